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


def aside(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """``work(...)`` in a thread of its own that yields to all others. Waits for it."""

    def run() -> T:
        with suppress(OSError, AttributeError):  # only Linux has priorities of threads
            thread = get_native_id()
            os.setpriority(os.PRIO_PROCESS, thread, max(NICENESS, os.getpriority(os.PRIO_PROCESS, thread)))
        with _short_turns():
            return work(*args, **kwargs)

    with ThreadPoolExecutor(1, thread_name_prefix="aside") as pool:
        return pool.submit(run).result()


@contextmanager
def _short_turns() -> Iterator[None]:
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
