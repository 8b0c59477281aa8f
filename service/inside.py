"""Requests without their connection: as one worker hands them to another, and answers them."""

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import structlog
from fastapi import APIRouter, FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import events_api, problems, ranking_api
from service.direct import Direct
from service.frames import Frame, as_bytes, as_text
from service.guard import RANKING
from service.observability import UNTRACED
from service.problems import Problem
from service.runtime import Runtime

log = structlog.get_logger()


@dataclass(frozen=True)
class Reply:
    """An answer. ``request_id`` is what the request is called from now on, ``route`` what it counts as."""

    status: int
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes
    request_id: str
    route: str

    @classmethod
    def of(cls, frame: Frame) -> "Reply":
        head = frame.head
        return cls(head["status"], as_bytes(head["headers"]), frame.body, head["request_id"], head["route"])

    def frame(self) -> Frame:
        head = {"status": self.status, "headers": as_text(self.headers), "request_id": self.request_id}
        return Frame({**head, "route": self.route}, self.body)


def question(scope: Scope, body: bytes) -> Frame:
    """The request that ``scope`` begins, for another worker."""
    head = {
        "kind": "request",
        "method": scope["method"],
        "path": scope["path"],
        "query": scope["query_string"].decode("latin-1"),
        "headers": as_text(scope["headers"]),
        "request_id": scope["state"]["request_id"],
        "begun": scope["state"].get("begun") or perf_counter(),
    }
    return Frame(head, body)


class Inside:
    """The endpoints without what stands before them: whoever took the request in has checked its key, its rate and its size,
    and writes its line of the log."""

    def __init__(self, routers: Sequence[APIRouter], runtime: Runtime) -> None:
        self._runtime = runtime
        app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False, telemetry=UNTRACED)
        problems.install(app)
        app.add_middleware(Direct, routers=(ranking_api.router, events_api.router))
        app.add_middleware(_Defects)
        for router in routers:
            app.include_router(router)
        self._app: ASGIApp = app

    async def answer(self, frame: Frame) -> Frame:
        return (await self.reply(frame)).frame()

    async def reply(self, frame: Frame) -> Reply:
        scope = self._scope(frame.head)
        caught = _Caught(frame.body)
        with structlog.contextvars.bound_contextvars(request_id=frame.head["request_id"]):
            try:
                if scope["path"] in RANKING:
                    self._runtime.lane.check()
            except Problem as problem:
                self._runtime.metrics.refused.labels(str(problem.status)).inc()
                await problem.response()(scope, caught.receive, caught.send)
            else:
                await self._app(scope, caught.receive, caught.send)
        route = getattr(scope.get("route"), "path", "unmatched")
        return Reply(caught.status, caught.headers, bytes(caught.body), scope["state"]["request_id"], route)

    def _scope(self, head: dict[str, Any]) -> Scope:
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": head["method"],
            "scheme": "http",
            "path": head["path"],
            "raw_path": head["path"].encode(),
            "query_string": head["query"].encode("latin-1"),
            "root_path": "",
            "headers": as_bytes(head["headers"]),
            "client": None,
            "server": None,
            "state": {"runtime": self._runtime, "request_id": head["request_id"], "begun": head["begun"]},
        }


class _Defects:
    """A defect is answered as in :mod:`service.access`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        try:
            await self.app(scope, receive, send)
        except Exception:
            log.exception("request failed")
            await Problem(500, "the service has a defect; its log says more").response()(scope, receive, send)


class _Caught:
    """Gives a request's body, and catches what is answered. A later start of an answer stands in place of the first."""

    def __init__(self, body: bytes) -> None:
        self._request = body
        self.status, self.headers, self.body = 0, list[tuple[bytes, bytes]](), bytearray()

    async def receive(self) -> Message:
        return {"type": "http.request", "body": self._request, "more_body": False}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], [(bytes(n), bytes(v)) for n, v in message.get("headers", ())]
            self.body.clear()
        else:
            self.body += message.get("body", b"")
