"""All generators at once, each within its own deadline; what fails or is late is left out and named."""

from collections.abc import Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import zip_longest
from threading import BoundedSemaphore
from time import perf_counter

import structlog

from service.generators.protocol import Source, Taste
from service.observability import Metrics

log = structlog.get_logger()


@dataclass
class Gathered:
    """Candidates in no particular order of merit, with the names of the generators that brought each."""

    brought_by: dict[int, list[str]] = field(default_factory=dict)  # by row of the catalogue
    degraded: list[str] = field(default_factory=list)


class Gatherer:
    """Runs generators in threads.

    A thread can't be stopped, so a generator that hangs keeps the one it has: each has its own few, and while all of
    them are taken it is left out at once, as ``busy``. The others don't feel it.
    """

    def __init__(self, threads: int, metrics: Metrics) -> None:
        self._threads, self._metrics = threads, metrics
        self._lanes: dict[str, _Lane] = {}

    def gather(self, sources: Sequence[Source], taste: Taste, most: int) -> Gathered:
        """Rows from every source, merged in turns until there are ``most``."""
        started = perf_counter()
        lists: dict[str, Sequence[int]] = {source.generator.name: () for source in sources}
        running = [(source, self._lane(source).submit(source, taste)) for source in sources if source.quota > 0]
        result = Gathered()
        for source, future in sorted(running, key=lambda pair: pair[0].deadline_ms):
            reason = "busy"
            if future is not None:
                try:
                    left = started + source.deadline_ms / 1e3 - perf_counter()
                    lists[source.generator.name] = future.result(max(0.0, left))[: source.quota]
                    continue
                except (TimeoutError, CancelledError):
                    future.cancel()
                    reason = "late"
                except Exception:
                    log.exception("generator failed", generator=source.generator.name)
                    reason = "failed"
            self._metrics.generators_left_out.labels(source.generator.name, reason).inc()
            result.degraded.append(f"generator {source.generator.name}: {reason}")
        _merge(lists, most, result.brought_by)
        result.degraded.sort()
        return result

    def _lane(self, source: Source) -> "_Lane":
        name = source.generator.name
        return self._lanes.setdefault(name, _Lane(name, self._threads, self._metrics))

    def close(self) -> None:
        for lane in self._lanes.values():
            lane.pool.shutdown(wait=False, cancel_futures=True)


class _Lane:
    """The threads of one generator."""

    def __init__(self, name: str, threads: int, metrics: Metrics) -> None:
        self.pool = ThreadPoolExecutor(threads, thread_name_prefix=f"generator-{name}")
        self._free = BoundedSemaphore(threads)
        self._seconds = metrics.generator_seconds.labels(name)
        self._brought = metrics.generated.labels(name)

    def submit(self, source: Source, taste: Taste) -> Future[Sequence[int]] | None:
        if not self._free.acquire(blocking=False):
            return None
        future = self.pool.submit(self._run, source, taste)
        future.add_done_callback(lambda _: self._free.release())
        return future

    def _run(self, source: Source, taste: Taste) -> Sequence[int]:
        started = perf_counter()
        try:
            rows = source.generator.candidates(taste, source.quota)
            self._brought.inc(len(rows))
            return rows
        finally:
            self._seconds.observe(perf_counter() - started)


def _merge(lists: dict[str, Sequence[int]], most: int, into: dict[int, list[str]]) -> None:
    """Each list's best first, in turns, so that a cut is fair to all. A row that comes twice counts once; its generators
    are named in the order of ``lists``."""
    for turn in zip_longest(*lists.values()):
        for name, row in zip(lists, turn, strict=True):
            if row is None:
                continue
            if row in into:
                into[row].append(name)
            elif len(into) < most:
                into[row] = [name]
    places = {name: place for place, name in enumerate(lists)}
    for names in into.values():
        names.sort(key=places.__getitem__)
