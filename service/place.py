"""A worker's place among the others: it listens to them before it reads anything, and leaves when they have finished too."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic

from fastapi import APIRouter

from service.frames import Frame
from service.group import Group
from service.inside import Inside
from service.peers import PeerAway, Peers, PeerServer
from service.runtime import Runtime
from service.together import answers

LEAVING = 3.0
"""Seconds that a worker, which takes nothing in any more, waits for those that may still ask it."""
BACKLOG = 1_024


@dataclass(frozen=True)
class Place:
    group: Group
    socket: socket.socket

    @classmethod
    def open(cls, group: Group) -> "Place":
        """From now on the others' questions wait. Whoever finds nobody here knows that nothing has been read yet."""
        path = group.socket(group.index)
        path.unlink(missing_ok=True)
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(path))
        listening.listen(BACKLOG)
        return cls(group, listening)

    @asynccontextmanager
    async def taken(self, runtime: Runtime, routers: Sequence[APIRouter]) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        """The others are answered until the block's end. Yields what closes ``runtime`` once they have finished too: a
        request that one of them is answering may be for a user of this worker."""
        peers, finished = Peers(self.group), asyncio.Event()

        async def leave() -> None:
            finished.set()
            until = monotonic() + LEAVING
            while monotonic() < until and not all(map(_finished, await peers.ask_all(Frame({"kind": "finished"}), 1.0))):
                await asyncio.sleep(0.05)
            await asyncio.to_thread(runtime.close)  # whose watcher may be asking others, by this very loop

        async def answer(_: Frame) -> Frame:
            return Frame({"finished": finished.is_set()})

        runtime.peers, runtime.inside = peers, Inside(routers, runtime)
        server = PeerServer(answers(runtime) | {"finished": answer})
        await server.start(self.socket)
        try:
            yield leave
        finally:
            peers.close()
            await server.close()


def _finished(answer: Frame | PeerAway) -> bool:
    return answer.gone if isinstance(answer, PeerAway) else bool(answer.head["finished"])
