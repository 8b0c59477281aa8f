"""Asking the other workers: connections that are kept, one question at a time on each."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from service.frames import Frame, read_frame, write_frame
from service.group import Group

log = structlog.get_logger()

PATIENCE = 5.0
"""Seconds for what workers ask each other beside requests."""

Answer = Callable[[Frame], Awaitable[Frame]]
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class PeerAway(Exception):
    """The worker does not answer. ``gone``: nobody listens there, so whoever comes next will read the database anew."""

    def __init__(self, index: int, gone: bool) -> None:
        super().__init__(f"worker {index} " + ("is away" if gone else "gave no answer"))
        self.index, self.gone = index, gone


class Peers:
    """Belongs to one event loop; other threads use :meth:`gather_from_thread`."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self._loop = asyncio.get_running_loop()
        self._idle: dict[int, list[Connection]] = {index: [] for index in group.others}

    async def ask(self, index: int, frame: Frame, seconds: float = PATIENCE) -> Frame:
        """The worker's answer.

        Raises:
            PeerAway: there is none. What was asked may have been done, unless the worker is ``gone``.
        """
        connection = await self._connect(index)
        try:
            async with asyncio.timeout(seconds):
                write_frame(connection[1], frame)
                await connection[1].drain()
                answer = await read_frame(connection[0])
        except (OSError, asyncio.IncompleteReadError):  # TimeoutError is an OSError
            connection[1].close()
            raise PeerAway(index, gone=False) from None
        except BaseException:  # cancelled: the answer that is on its way must not be taken for that of another question
            connection[1].close()
            raise
        self._idle[index].append(connection)
        return answer

    async def ask_all(self, frame: Frame, seconds: float = PATIENCE) -> list[Frame | PeerAway]:
        """Every other worker's answer, or why there is none."""
        return list(await asyncio.gather(*(self._answer_or_away(index, frame, seconds) for index in self.group.others)))

    def gather_from_thread(self, frame: Frame, seconds: float = PATIENCE) -> list[Frame | PeerAway]:
        """:meth:`ask_all` for a thread that is not the event loop's. The loop must go on meanwhile."""
        return asyncio.run_coroutine_threadsafe(self.ask_all(frame, seconds), self._loop).result()

    def close(self) -> None:
        for connections in self._idle.values():
            for _, writer in connections:
                writer.close()
            connections.clear()

    async def _answer_or_away(self, index: int, frame: Frame, seconds: float) -> Frame | PeerAway:
        try:
            return await self.ask(index, frame, seconds)
        except PeerAway as away:
            return away

    async def _connect(self, index: int) -> Connection:
        idle = self._idle[index]
        while idle:
            reader, writer = idle.pop()
            if not reader.at_eof() and not writer.is_closing():
                return reader, writer
            writer.close()
        try:
            return await asyncio.open_unix_connection(self.group.socket(index))
        except (ConnectionRefusedError, FileNotFoundError):
            raise PeerAway(index, gone=True) from None
        except OSError:
            raise PeerAway(index, gone=False) from None


class PeerServer:
    """Answers the other workers on this one's socket.

    Args:
        answers: by the kind of question.
    """

    def __init__(self, answers: dict[str, Answer]) -> None:
        self._answers = answers
        self._open: set[asyncio.StreamWriter] = set()

    async def start(self, socket: Any) -> None:
        """``socket`` listens already: what is asked before this waits."""
        self._server = await asyncio.start_unix_server(self._serve, sock=socket)

    async def close(self) -> None:
        self._server.close()
        for writer in list(self._open):
            writer.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while True:
                frame = await read_frame(reader)
                write_frame(writer, await self._answers[frame.head["kind"]](frame))
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the other side has gone
        except Exception:
            log.exception("a worker's question was not answered")
        finally:
            self._open.discard(writer)
            writer.close()
