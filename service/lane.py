"""The bounded queue in front of the threads that rank: what can't be answered in time is refused before any work is done."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from threading import Lock
from typing import ParamSpec, TypeVar

from service.problems import Problem

P = ParamSpec("P")
T = TypeVar("T")


class Lane:
    """``threads`` work, at most ``waiting`` more wait.

    A thread can't be stopped, so a request that was given up counts until its work has ended; one that was given up
    while it waited is never begun.
    """

    def __init__(self, pool: ThreadPoolExecutor, threads: int, waiting: int) -> None:
        self._pool, self._threads, self._most = pool, threads, threads + waiting
        self._lock = Lock()
        self.taken = 0

    @property
    def idle(self) -> bool:
        """A thread has nothing to do."""
        return self.taken < self._threads

    def check(self) -> None:
        """Raises Problem (503) where there is no place left."""
        if self.taken >= self._most:
            raise Problem(503, f"{self.taken} requests are being ranked or wait for it", headers={"retry-after": "1"})

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """``work`` in one of the threads, with the caller's context variables.

        Raises:
            Problem: 503, there is no place left.
        """
        with self._lock:
            self.check()
            self.taken += 1
        try:
            context = copy_context()
            future = self._pool.submit(lambda: context.run(work, *args, **kwargs))
        except BaseException:
            self._leave()
            raise
        future.add_done_callback(self._leave)
        return await asyncio.wrap_future(future)

    def _leave(self, _: "Future[T] | None" = None) -> None:
        with self._lock:
            self.taken -= 1
