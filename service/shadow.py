"""The shadow: a version that scores a share of what was answered, in its own time, and is served to nobody."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import BoundedSemaphore, Event, Lock
from time import perf_counter

import numpy as np
import structlog
from numpy.typing import NDArray

from models.calibration import Predictions
from models.ranking import Combined
from models.rollouts import Rollout
from service.canary import position
from service.observability import Metrics
from service.pipeline import Slate
from service.serving import Serving

log = structlog.get_logger()

WAITING = 32
"""Slates that may wait to be scored again; more are left out, and counted."""
TOP = 10
PATIENCE = 1.0
"""Seconds that a slate waits for a moment in which no request does."""

Scored = tuple[Predictions, Combined]
"""Predictions [n, K] and what was made of them."""
Score = Callable[[Slate, Serving], Scored]


@dataclass
class Differences:
    """Sums over the slates that both have scored. ``predicted`` is by objective: (shadow's, champion's)."""

    slates: int = 0
    left_out: int = 0
    failed: int = 0
    correlated: int = 0
    correlation: float = 0.0
    overlap: float = 0.0
    seconds: float = 0.0
    champion_seconds: float = 0.0
    predicted: dict[str, tuple[float, float]] = field(default_factory=dict)


class Shadow:
    """One thread and a short queue. It begins on a slate when no request waits for a thread, and drops what comes too fast.

    Args:
        score: scores a slate's candidates once more, with another bundle.
        idle: whether a ranking thread is free.
    """

    def __init__(self, rollout: Rollout, serving: Serving, score: Score, idle: Callable[[], bool], metrics: Metrics) -> None:
        self.rollout, self.serving = rollout, serving
        self._score, self._idle, self._metrics = score, idle, metrics
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="shadow")
        self._room, self._closed = BoundedSemaphore(WAITING), Event()
        self._lock, self._sums = Lock(), Differences()

    def offer(self, slate: Slate, seconds: float) -> None:
        """Never waits. ``seconds`` is what the answer took."""
        if self._closed.is_set() or position(self.rollout.salt, slate.query.request_id) >= self.rollout.share:
            return
        if not self._room.acquire(blocking=False):
            return self._note("left_out")
        try:
            future = self._pool.submit(self._run, slate, seconds)
        except RuntimeError:  # closed meanwhile
            self._room.release()
        else:
            future.add_done_callback(lambda _: self._room.release())

    def differences(self) -> Differences:
        """A copy, as of now."""
        with self._lock:
            return Differences(**{**vars(self._sums), "predicted": dict(self._sums.predicted)})

    def begin_anew(self) -> None:
        """Forget the differences: another champion is served from now on."""
        with self._lock:
            self._sums = Differences()

    def close(self) -> None:
        self._closed.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _run(self, slate: Slate, seconds: float) -> None:
        give_up = perf_counter() + PATIENCE
        while not self._idle():
            if perf_counter() > give_up or self._closed.wait(0.002):
                return self._note("left_out")
        started = perf_counter()
        try:
            predictions, combined = self._score(slate, self.serving)
        except Exception:
            log.exception("the shadow failed", version=self.rollout.version)
            return self._note("failed")
        self._add(slate, predictions, combined, seconds, perf_counter() - started)

    def _note(self, outcome: str) -> None:
        with self._lock:
            setattr(self._sums, outcome, getattr(self._sums, outcome) + 1)
        self._metrics.shadowed.labels(outcome).inc()

    def _add(
        self, slate: Slate, predictions: Predictions, combined: Combined, champion_seconds: float, seconds: float
    ) -> None:
        correlation = rank_correlation(slate.combined.keys, combined.keys)
        overlap = top_overlap(slate.combined.keys, combined.keys, TOP)
        theirs = _sums(slate.query.ranking.objectives, slate.scores.predictions)
        ours = _sums(self.serving.ranking.objectives, predictions)
        with self._lock:
            sums = self._sums
            sums.slates += 1
            sums.overlap += overlap
            sums.seconds += seconds
            sums.champion_seconds += champion_seconds
            if correlation is not None:
                sums.correlated += 1
                sums.correlation += correlation
            for name in ours.keys() & theirs.keys():
                before = sums.predicted.get(name, (0.0, 0.0))
                sums.predicted[name] = (before[0] + ours[name], before[1] + theirs[name])
            ratios = {name: ratio(*pair) for name, pair in sums.predicted.items()}
        self._metrics.shadowed.labels("scored").inc()
        self._metrics.shadow_seconds.observe(seconds)
        self._metrics.shadow_overlap.observe(overlap)
        if correlation is not None:
            self._metrics.shadow_correlation.observe(correlation)
        for name, value in ratios.items():
            if value is not None:
                self._metrics.shadow_ratio.labels(name).set(value)


def rank_correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float | None:
    """Spearman's, equal scores sharing their mean rank; None where one side has only one score."""
    ranks = [_ranks(values) - (len(values) - 1) / 2 for values in (one, other)]
    norm = float(np.sqrt((ranks[0] ** 2).sum() * (ranks[1] ** 2).sum()))
    return float(ranks[0] @ ranks[1]) / norm if norm > 0 else None


def top_overlap(one: NDArray[np.float64], other: NDArray[np.float64], top: int) -> float:
    """Share of one side's first ``top`` that the other has among its first; 1 where there is nothing."""
    top = min(top, len(one))
    first, second = (set(np.argsort(-values, kind="stable")[:top].tolist()) for values in (one, other))
    return len(first & second) / top if top else 1.0


def ratio(ours: float, theirs: float) -> float | None:
    return ours / theirs if theirs else None


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts + 1) / 2)[inverse], np.float64)


def _sums(objectives: tuple[str, ...], predictions: Predictions) -> Mapping[str, float]:
    return dict(zip(objectives, np.nan_to_num(predictions.astype(np.float64)).sum(axis=0).tolist(), strict=True))
