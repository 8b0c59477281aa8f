"""No body over the limit reaches the application, whether it says its length or comes in chunks."""

from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.problems import Problem


class BodyLimit:
    """Reads the body (at most ``limit`` bytes of it) before the application starts, and answers 413 to a larger one.

    Reading first means that the answer can still be chosen; the buffer is bounded by the limit.
    """

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app, self.limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        declared = Headers(scope=scope).get("content-length", "0")
        if declared.isdecimal() and int(declared[:20]) > self.limit:
            return await self._refuse(scope, receive, send)
        messages: list[Message] = []
        size = 0
        while not messages or messages[-1].get("more_body", False):
            message = await receive()
            size += len(message.get("body", b""))
            if size > self.limit:
                return await self._refuse(scope, receive, send)
            messages.append(message)
        if len(messages) > 1 and messages[-1]["type"] == "http.request":
            whole = b"".join(message.get("body", b"") for message in messages)
            messages = [{"type": "http.request", "body": whole, "more_body": False}]
        await self.app(scope, replay(messages, receive), send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        # The rest of the body stays unread, so the connection can't be used again.
        problem = Problem(413, f"the body is over the limit of {self.limit} bytes", headers={"connection": "close"})
        await problem.response()(scope, receive, send)


def replay(messages: Sequence[Message], receive: Receive) -> Receive:
    """Receives these messages again, and then what comes."""
    remaining = iter(messages)

    async def replay() -> Message:
        for message in remaining:
            return message
        return await receive()

    return replay
