"""The short way to the endpoints asked most: past what the framework does for any, for a request with nothing wrong.

Routing, dependencies and their stacks cost a request as much as all that is asked of them here: a body that is declared as
JSON, is JSON and fits the endpoint's model. Any other request goes through the framework, which has the words for what is
wrong with it. The routes are the framework's own, so that the OpenAPI document tells of them as of all others.
"""

from collections.abc import Iterable
from typing import Any

from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.body_limit import replay
from service.problems import Problem
from service.strict_json import is_json, read


class Direct:
    """Innermost of the middlewares: who may ask, how often and how much is decided before.

    Args:
        routers: of endpoints that take a ``body`` and the ``request`` and return a response.
    """

    def __init__(self, app: ASGIApp, routers: Iterable[APIRouter]) -> None:
        self.app = app
        routes = (route for router in routers for route in router.routes)
        self._routes = {route.path: route for route in routes if isinstance(route, APIRoute)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._routes.get(scope["path"]) if scope["type"] == "http" else None
        if route is None or scope["method"] != "POST" or scope.get("root_path"):
            return await self.app(scope, receive, send)
        message = await receive()
        body, again = _checked(route, scope, message), replay([message], receive)
        if body is None:
            return await self.app(scope, again, send)
        scope["route"] = route
        try:
            response = await route.endpoint(body=body, request=Request(scope, again))
        except Problem as problem:
            response = problem.response()
        await response(scope, receive, send)


def _checked(route: APIRoute, scope: Scope, message: Message) -> Any:
    """The body as the endpoint's model; None where the framework must look at it."""
    if message["type"] != "http.request" or message.get("more_body", False) or route.body_field is None:
        return None
    declared = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
    if not is_json(declared.decode("latin-1")):
        return None
    try:
        content = read(message.get("body", b""))
    except ValueError:
        return None
    body, errors = route.body_field.validate(content, {}, loc=("body",))
    return None if errors else body
