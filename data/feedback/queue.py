"""Group commit: one thread drains a bounded queue and commits once per drain; callers wait on futures."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from data.database import writing
from data.feedback.served import Served

Row = dict[str, Any]

LARGEST_GROUP = 2_000
"""Operations in one commit."""
GATHERING = 0.1
"""Seconds that slates wait for others to be written with; nobody waits for theirs. A commit takes the CPU of six to eight
slates' rows, so that waiting saves CPU; but a large group's rows hold the interpreter's lock for longer, which the slowest
requests feel (docs/experiments.md)."""


@dataclass
class Operation:
    """A served slate with its row, or rows of events; counts to add; and who waits for it. ``stamp`` (ms) is when it was
    taken in. The rows of a slate's items, of which there may be many, are made when it is written."""

    stamp: int
    slate: tuple[Row, Served] | None = None
    events: Sequence[Row] = ()
    counts: dict[str, int] = field(default_factory=dict)
    pins: Sequence[Any] = ()  # what in memory must stay until it is on disk
    done: "Future[None] | None" = None


Write = Callable[[sa.Connection, Sequence[Operation]], None]
Settle = Callable[[Sequence[Operation], Exception | None], None]


class WriteQueue:
    """Operations on their way to the disk, in order.

    Args:
        write: puts a group into the open transaction.
        settle: told of every group, after its commit or with what went wrong. In the latter case the group holds all
            that waited too, since what comes later may build on what came before.
        lock: held by callers around :meth:`put`, and taken while a failed group is settled.
    """

    def __init__(self, engine: sa.Engine, write: Write, settle: Settle, lock: threading.RLock, maximum: int) -> None:
        self._engine, self._write, self._settle, self._maximum = engine, write, settle, maximum
        self._ops: deque[Operation] = deque()
        self._changed = threading.Condition(lock)
        self._closing = False
        self._urgent = 0  # of the operations, those that somebody waits for
        self._thread = threading.Thread(target=self._run, name="feedback", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def full(self) -> bool:
        return len(self._ops) >= self._maximum

    @property
    def closed(self) -> bool:
        return self._closing

    def put(self, operation: Operation) -> None:
        """Take an operation in, whether the queue is full or not; the caller holds the lock."""
        self._ops.append(operation)
        self._urgent += operation.done is not None
        if operation.done is not None or len(self._ops) == 1:
            self._changed.notify()

    def close(self) -> None:
        """Write what waits and stop."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while group := self._take():
            error: Exception | None = None
            try:
                with writing(self._engine) as connection:
                    self._write(connection, group)
            except Exception as caught:  # whatever it is, the callers must hear of it
                error = caught
            with self._changed:
                if error is not None:
                    group += self._ops
                    self._ops.clear()
                    self._urgent = 0
                self._settle(group, error)
            for operation in group:
                if operation.done is not None:
                    operation.done.set_exception(error) if error else operation.done.set_result(None)

    def _take(self) -> list[Operation]:
        """What waits, at most LARGEST_GROUP, or comes in a moment; nothing once closed and empty."""
        with self._changed:
            while not self._ops and not self._closing:
                self._changed.wait()
            if not self._urgent and not self._closing:
                self._changed.wait_for(lambda: self._urgent or self._closing, GATHERING)
            group = [self._ops.popleft() for _ in range(min(len(self._ops), LARGEST_GROUP))]
            self._urgent -= sum(operation.done is not None for operation in group)
            return group
