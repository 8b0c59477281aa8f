"""Every error is answered as RFC 9457 problem details (``application/problem+json``), and none with a traceback."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

MEDIA_TYPE = "application/problem+json"
SHOWN = 80
"""Characters of a received value that an error repeats."""


class FieldError(BaseModel):
    """What is wrong with one field of the request."""

    model_config = ConfigDict(extra="forbid")

    field: str = Field(examples=["weights.click"])
    message: str = Field(examples=["Input should be less than or equal to 1000, got 5000"])


class ProblemDetails(BaseModel):
    """RFC 9457. ``errors`` names the fields where the request's body is at fault."""

    model_config = ConfigDict(extra="forbid")

    type: str = Field(examples=["about:blank"])
    title: str = Field(examples=["Unprocessable Content"])
    status: int = Field(examples=[422])
    detail: str = Field(examples=["weights.click: Input should be less than or equal to 1000, got 5000"])
    errors: list[FieldError] = []


class Problem(Exception):
    """Raised anywhere under a request, answered as problem details."""

    def __init__(
        self, status: int, detail: str, errors: Sequence[FieldError] = (), headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.errors, self.headers = status, detail, tuple(errors), headers

    @classmethod
    def of_fields(cls, errors: Mapping[str, str]) -> "Problem":
        """422 from messages by field."""
        fields = [FieldError(field=field, message=message) for field, message in errors.items()]
        return cls(422, "; ".join(f"{e.field}: {e.message}" for e in fields[:3]), fields)

    def response(self) -> Response:
        title = _TITLES.get(self.status) or HTTPStatus(self.status).phrase
        body: dict[str, Any] = {"type": "about:blank", "title": title, "status": self.status, "detail": self.detail}
        if self.errors:
            body["errors"] = [error.model_dump() for error in self.errors]
        return Response(orjson.dumps(body), self.status, self.headers, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Answer problems, the framework's own errors and validation errors alike. 500 is :mod:`service.access`'s."""

    async def problem(_: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        return error.response()

    async def http(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return Problem(error.status_code, str(error.detail), headers=error.headers).response()

    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return from_validation(error.errors()).response()

    app.add_exception_handler(Problem, problem)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)


def from_validation(details: Sequence[Mapping[str, Any]]) -> Problem:
    """422 from pydantic's errors: the field as ``history[2].timestamp``, the message, and what came."""
    errors: dict[str, str] = {}
    for detail in details[:20]:
        errors.setdefault(field_name(detail["loc"]), _message(detail))
    return Problem.of_fields(errors)


def field_name(loc: Sequence[int | str]) -> str:
    """``("body", "history", 2, "timestamp")`` is ``history[2].timestamp``; the body itself is ``body``."""
    name = ""
    for part in loc[1:] if loc and loc[0] == "body" else loc:
        if part == "[key]":
            continue
        name += f"[{part}]" if isinstance(part, int) else f".{shorten(part)}" if name else shorten(part)
    return name or "body"


def shorten(text: str) -> str:
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."


def describe(value: object) -> str:
    """A received value, short enough to be repeated to who sent it."""
    if isinstance(value, dict):
        return f"an object of {len(value)}"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    return shorten(repr(value))


def _message(detail: Mapping[str, Any]) -> str:
    match detail["type"]:
        case "extra_forbidden":
            return "unknown field"
        case "missing":
            return "required, but missing"
        case "duplicate_id" | "value_error":
            return str(detail["msg"]).removeprefix("Value error, ")
        case _:
            return f"{detail['msg']}, got {describe(detail.get('input'))}"


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of an endpoint that may answer these errors, for OpenAPI."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}}
    return {status: {"description": _DESCRIPTIONS[status], "content": content} for status in statuses}


_TITLES: Mapping[int, str] = {413: "Content Too Large", 422: "Unprocessable Content"}
"""RFC 9110's names, where the standard library's changed from one version to the next."""

_DESCRIPTIONS: Mapping[int, str] = {
    400: "The body is not JSON",
    401: "No key, or an unknown or revoked one",
    403: "The key lacks the scope",
    409: "It does not fit what is there",
    404: "There is no such thing",
    413: "The body is over the limit",
    415: "The body is not declared as JSON",
    422: "A field is invalid; `errors` names it",
    429: "Too many requests; `Retry-After` says when there may be more",
    500: "A defect of the service",
    503: "No bundle is loaded, too many requests wait, or the deadline has passed",
}
