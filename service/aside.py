"""Heavy work beside live traffic, so that the requests feel as little of it as can be."""

import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from threading import Lock, get_native_id
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

TURN = 0.0002
"""Seconds for which a thread keeps the interpreter while others wait for it, in place of Python's 5 ms."""
NICENESS = 5
"""Of the working thread, towards the other threads. At 19 it sometimes was kept from running for half a second while it
held the interpreter. With both, the p99 of requests beside endless loads was that without any (35 ms and 40 ms on two busy
cores); with neither, and with only the first, it was up to twice that."""

_lock = Lock()
_running = 0
_usual = sys.getswitchinterval()


class Aside:
    """One thread that yields to all others. It is always the same one: bundles that are loaded by threads that come and go
    lie in memory of each, and 50 swaps took 50 MB more."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="aside", initializer=_step_back)

    def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of ``work(...)``. Waits for it."""

        def shortly() -> T:
            with short_turns():
                return work(*args, **kwargs)

        return self._pool.submit(shortly).result()

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def _step_back() -> None:
    with suppress(OSError, AttributeError):  # only Linux has priorities of threads
        thread = get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, max(NICENESS, os.getpriority(os.PRIO_PROCESS, thread)))


@contextmanager
def short_turns() -> Iterator[None]:
    """Threads hand the interpreter on more often, until the last such block ends."""
    global _running, _usual
    with _lock:
        if _running == 0:
            _usual = sys.getswitchinterval()
            sys.setswitchinterval(TURN)
        _running += 1
    try:
        yield
    finally:
        with _lock:
            _running -= 1
            if _running == 0:
                sys.setswitchinterval(_usual)
