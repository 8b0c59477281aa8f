"""The outermost layer: a request gets its id, its log line and its metrics, and a defect is answered without a traceback."""

from asyncio import get_running_loop
from os import urandom
from time import perf_counter

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, reset_contextvars

from service.observability import Metrics
from service.problems import Problem

log = structlog.get_logger()

QUIET = ("/healthz", "/readyz", "/metrics")
"""Asked for every few seconds by machines: logged at debug level."""


class Access:
    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics
        self._log = log.bind()  # looked up once: this is the one line that every request writes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        started = perf_counter()
        request_id = urandom(16).hex()
        scope.setdefault("state", {})["request_id"] = request_id
        status = 0

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                named = scope["state"]["request_id"]  # it may have been given another name meanwhile
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", named.encode())]
            await send(message)

        bound = bind_contextvars(request_id=request_id)
        try:
            await self.app(scope, receive, note)
        except Exception:
            log.exception("request failed")
            if status:
                raise
            await Problem(500, "the service has a defect; its log says more").response()(scope, receive, note)
        finally:  # the line and the figures wait for the next round of the loop: the answer leaves at the end of this one
            get_running_loop().call_soon(self._count, scope, status, perf_counter() - started)
            reset_contextvars(**bound)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        route = scope["state"].get("route") or getattr(scope.get("route"), "path", "unmatched")
        self.metrics.answered(route, status, seconds)
        write = self._log.debug if route in QUIET else self._log.info
        caller = {"key": scope["state"]["key_id"]} if "key_id" in scope["state"] else {}
        milliseconds = round(seconds * 1e3, 2)
        write("request", method=scope["method"], route=route, status=status, milliseconds=milliseconds, **caller)
