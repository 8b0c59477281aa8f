"""Work for two threads: numpy lets go of the interpreter's lock while it sorts, takes and computes."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from typing import TypeVar

Answer = TypeVar("Answer")

THREADS = min(2, os.cpu_count() or 1)


def in_turns(tasks: Iterable[Callable[[], Answer]]) -> Iterator[Answer]:
    """What the tasks return, in their order; at most one is done, and not yet asked for, ahead of those at work."""
    coming = iter(tasks)
    first = list(islice(coming, 2))
    if len(first) <= 1 or THREADS == 1:
        yield from (task() for task in chain(first, coming))
        return
    waiting: deque[Future[Answer]] = deque()
    with ThreadPoolExecutor(THREADS) as pool:
        for task in chain(first, coming):
            waiting.append(pool.submit(task))
            if len(waiting) > THREADS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
