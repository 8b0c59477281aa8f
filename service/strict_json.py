"""Request bodies read as JSON and as nothing else."""

from collections.abc import Callable, Coroutine
from email.message import Message
from typing import Any

from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute
from pydantic_core import from_json

from service.problems import Problem


class _JsonRequest(Request):
    async def json(self) -> Any:
        # Raises HTTPException, since the framework answers to any other error here in its own words.
        try:
            # NaN and Infinity get through here and are refused with the field's name, like any other bad value.
            return from_json(await self.body(), allow_inf_nan=True)
        except ValueError as error:
            raise HTTPException(400, f"the body is not valid JSON: {error}") from None


class JsonRoute(APIRoute):
    """A route whose body must be declared and be JSON: 415 and 400 otherwise. Nesting and digits of a number are bounded."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def strict(request: Request) -> Response:
            if self.body_field is not None and not _is_json(request.headers.get("content-type", "")):
                raise Problem(415, "expected the header `content-type: application/json`")
            return await handle(_JsonRequest(request.scope, request.receive))

        return strict


def _is_json(content_type: str) -> bool:
    message = Message()
    message["content-type"] = content_type
    return message.get_content_type() == "application/json"
