"""Request bodies read as JSON and as nothing else."""

from collections.abc import Callable, Coroutine
from email.message import Message
from functools import lru_cache
from typing import Any

from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute
from pydantic_core import from_json

from service.problems import Problem


def read(body: bytes) -> Any:
    """The value; raises ValueError. NaN and Infinity get through here and are refused with the field's name, like any other
    bad value. Names come again with every request and are kept; ids don't, and would only push each other out."""
    return from_json(body, allow_inf_nan=True, cache_strings="keys")


class _JsonRequest(Request):
    async def json(self) -> Any:
        # Raises HTTPException, since the framework answers to any other error here in its own words.
        try:
            return read(await self.body())
        except ValueError as error:
            raise HTTPException(400, f"the body is not valid JSON: {error}") from None


class JsonRoute(APIRoute):
    """A route whose body must be declared and be JSON: 415 and 400 otherwise. Nesting and digits of a number are bounded."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def strict(request: Request) -> Response:
            if self.body_field is not None and not is_json(request.headers.get("content-type", "")):
                raise Problem(415, "expected the header `content-type: application/json`")
            return await handle(_JsonRequest(request.scope, request.receive))

        return strict


@lru_cache(16)
def is_json(content_type: str) -> bool:
    """Whether a header says so."""
    message = Message()
    message["content-type"] = content_type
    return message.get_content_type() == "application/json"
