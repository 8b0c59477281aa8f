"""The bounded queue in front of the threads that rank: what can't be answered in time is refused before any work is done.

A request crosses to a thread and back once, and what it crosses by is part of its latency. So these are bare threads on a
queue: an executor's future, the event loop's wrapped around it and a timeout's scope took three times the CPU. A request
that is alone need not cross at all (docs/decisions/0023).
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from queue import SimpleQueue
from threading import Lock, Thread
from time import perf_counter
from typing import Any, Generic, ParamSpec, TypeVar

from service.problems import Problem

P = ParamSpec("P")
T = TypeVar("T")
QUICK = 0.01
"""Seconds that work may take which holds up the event loop,"""
FORGET = 0.9
"""and what of the longest that was seen still counts after every further one."""


class Lane:
    """``threads`` work, at most ``waiting`` more wait.

    A thread can't be stopped, so a request that was given up counts until its work has ended; one that was given up
    while it waited is never begun.
    """

    def __init__(self, threads: int, waiting: int) -> None:
        self._threads, self._most = threads, threads + waiting
        self._jobs: SimpleQueue[_Job[Any] | None] = SimpleQueue()
        self._lock = Lock()
        self._started = self._coming = 0
        self._longest = 1.0  # that work is quick has to be seen first
        self.taken = 0

    @property
    def idle(self) -> bool:
        """A thread has nothing to do."""
        return self.taken < self._threads

    def check(self) -> None:
        """Raises Problem (503) where there is no place left."""
        if self.taken >= self._most:
            raise Problem(503, f"{self.taken} requests are being ranked or wait for it", headers={"retry-after": "1"})

    async def run(self, seconds: float, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """``work`` in one of the threads, with the caller's context variables.

        Raises:
            Problem: 503, there is no place left.
            TimeoutError: it took more than ``seconds``.
        """
        loop = asyncio.get_running_loop()
        job = _Job(loop, partial(copy_context().run, work, *args, **kwargs))
        with self._lock:
            self.check()
            self.taken += 1
            if self._started < min(self.taken, self._threads):
                self._started += 1
                Thread(target=self._work, name=f"rank_{self._started}", daemon=True).start()
        timer = loop.call_later(seconds, job.expire)
        self._jobs.put(job)  # last: the thread that wakes wants the interpreter's lock
        try:
            return await job.answer
        finally:
            timer.cancel()
            if self._claim(job):
                self._leave()  # nobody began it, and now nobody will

    async def run_here(self, seconds: float, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The same, for ``work`` that waits for nothing: on the event loop itself where no other request is there and what
        was done lately was quick.

        Raises:
            Problem: 503, there is no place left.
            TimeoutError: it took more than ``seconds``.
        """
        if self.taken or self._longest > QUICK or not await self._alone():
            return await self.run(seconds, work, *args, **kwargs)
        with self._lock:
            self.taken += 1
        began = perf_counter()
        try:
            answer = work(*args, **kwargs)
        finally:
            self._leave(took := perf_counter() - began)
        if took > seconds:
            raise TimeoutError
        return answer

    def close(self) -> None:
        """The threads end when they have done what waits now."""
        with self._lock:
            for _ in range(self._threads):
                self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            if self._claim(job):
                job.work_off(self._leave)
            del job  # with all that it was about: now, and not when the next one is here

    def _claim(self, job: "_Job[Any]") -> bool:
        """Whether the job is the caller's now: it is one thread's, or that of the request which gives it up."""
        with self._lock:
            ours, job.claimed = not job.claimed, True
            return ours

    def _leave(self, took: float | None = None) -> None:
        """``took``: seconds; None: it was never begun, which says nothing of how long work takes."""
        with self._lock:
            self.taken -= 1
            if took is not None:
                self._longest = max(took, FORGET * self._longest)

    async def _alone(self) -> bool:
        """Whether no other request came in the same round of the loop: all that did have said so when the next begins."""
        self._coming += 1
        try:
            await asyncio.sleep(0)
            return self._coming == 1 and not self.taken
        finally:
            self._coming -= 1


class _Job(Generic[T]):
    """Work on its way to a thread, and the answer on its way back."""

    def __init__(self, loop: asyncio.AbstractEventLoop, work: Callable[[], T]) -> None:
        self._loop, self._work = loop, work
        self.answer: asyncio.Future[T] = loop.create_future()
        self.claimed = False

    def expire(self) -> None:
        if not self.answer.done():
            self.answer.set_exception(TimeoutError())

    def work_off(self, leave: Callable[[float], None]) -> None:
        """In a thread."""
        began = perf_counter()
        try:
            put: Callable[[Any], None] = self.answer.set_result
            what: Any = self._work()
        except BaseException as error:
            put, what = self.answer.set_exception, error
        leave(perf_counter() - began)
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._tell, put, what)
        del what  # an error refers to this frame

    def _tell(self, put: Callable[[Any], None], what: Any) -> None:
        if not self.answer.done():
            put(what)
