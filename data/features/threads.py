"""Work for two threads: numpy lets go of the interpreter's lock while it sorts, takes and computes."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Answer = TypeVar("Answer")

THREADS = min(2, os.cpu_count() or 1)


def in_turns(tasks: Sequence[Callable[[], Answer]]) -> Iterator[Answer]:
    """What the tasks return, in their order; at most one is done, and not yet asked for, ahead of those at work."""
    if len(tasks) <= 1 or THREADS == 1:
        yield from (task() for task in tasks)
        return
    waiting: deque[Future[Answer]] = deque()
    with ThreadPoolExecutor(THREADS) as pool:
        for task in tasks:
            waiting.append(pool.submit(task))
            if len(waiting) > THREADS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
