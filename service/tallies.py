"""What champion and canary each did since the canary began: slates as they are answered, outcomes as they come in."""

from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping, Sequence
from threading import Lock
from typing import Protocol, TypedDict, TypeVar

import numpy as np

from data.config import Config
from models.calibration import Predictions
from service.bands import Figures
from service.pipeline import Slate
from service.serving import Serving

REMEMBERED = 10_000
"""Slates whose events are waited for; of more, the oldest are forgotten."""
Number = TypeVar("Number", int, float)

PLACES = 30
"""First places of a slate that are remembered."""
LATENCIES = 1_000


class Report(TypedDict):
    """One side's sums in one worker, as they travel: ``seconds`` of the last slates, the rest as in :class:`Figures`."""

    counts: dict[str, int]
    seconds: list[float]
    predicted: dict[str, float]
    positives: dict[str, int]


class Outcome(Protocol):
    """What of an event counts here."""

    @property
    def request_id(self) -> str: ...
    @property
    def video_id(self) -> str: ...
    @property
    def type(self) -> str: ...


class Tally:
    """One side's sums. The objectives that are counted are binary and not defined given another outcome."""

    def __init__(self, config: Config) -> None:
        self.events: dict[str, list[str]] = {}  # objectives by the event that makes them positive
        for objective in config.objectives:
            if objective.kind == "binary" and objective.given is None:
                self.events.setdefault(config.event_of(objective.label), []).append(objective.name)
        self.columns = [config.objective_names.index(name) for names in self.events.values() for name in names]
        self._names = [name for names in self.events.values() for name in names]
        self._context = tuple(config.log.context)
        self._counts = dict.fromkeys(
            ("slates", "errors", "candidates", "unknown_videos", "unknown_users", "context", "nulls", "views"), 0
        )
        self._seconds: deque[float] = deque(maxlen=LATENCIES)
        self._predicted = np.zeros(len(self._names))
        self._positives = dict.fromkeys(self._names, 0)

    def fail(self) -> None:
        self._counts["errors"] += 1

    def slate(self, slate: Slate, serving: Serving, seconds: float) -> None:
        if slate.combined.not_finite.any():
            return self.fail()
        query, counts = slate.query, self._counts
        counts["slates"] += 1
        self._seconds.append(seconds)
        counts["candidates"] += len(slate.candidates.video_ids)
        counts["unknown_videos"] += int((slate.candidates.rows < 0).sum())
        counts["unknown_users"] += serving.features.state.knowledge.vocabularies["user_id"].get(query.user_id) is None
        counts["context"] += len(self._context)
        counts["nulls"] += sum(query.context.get(name) is None for name in self._context)

    def view(self, predictions: Predictions) -> None:
        """An item was seen; ``predictions`` are those of ``columns``."""
        self._counts["views"] += 1
        self._predicted += predictions

    def positive(self, kind: str) -> None:
        for name in self.events.get(kind, ()):
            self._positives[name] += 1

    def report(self) -> Report:
        predicted = dict(zip(self._names, self._predicted.tolist(), strict=True))
        return Report(
            counts=dict(self._counts), seconds=list(self._seconds), predicted=predicted, positives=dict(self._positives)
        )


class _Shown:
    """A slate whose events may come."""

    def __init__(self, tally: Tally, video_ids: Sequence[str], predictions: Predictions) -> None:
        self.tally, self._predictions = tally, predictions
        self._places = {video_id: place for place, video_id in enumerate(video_ids)}
        self._met: set[tuple[str, str]] = set()

    def event(self, video_id: str, kind: str) -> None:
        """Each kind counts once an item, whichever comes first is its view."""
        place = self._places.get(video_id)
        if place is None or (video_id, kind) in self._met:
            return
        if (video_id, "") not in self._met:
            self._met.add((video_id, ""))
            self.tally.view(self._predictions[place])
        self._met.add((video_id, kind))
        self.tally.positive(kind)


class Tallies:
    """Both sides', for any number of threads. What is answered by neither version is not counted."""

    def __init__(self, champion: Serving, canary: Serving) -> None:
        self._lock = Lock()
        self._sides = {serving.version: Tally(serving.config) for serving in (champion, canary)}
        self._shown: OrderedDict[str, _Shown] = OrderedDict()

    def answered(self, slate: Slate, serving: Serving, seconds: float) -> None:
        side = self._sides.get(slate.version)
        if side is None:
            return
        first = slate.filled.shown[:PLACES]
        predictions = slate.scores.predictions[first][:, side.columns]
        video_ids = [slate.candidates.video_ids[place] for place in first.tolist()]
        with self._lock:
            side.slate(slate, serving, seconds)
            self._shown[slate.query.request_id] = _Shown(side, video_ids, predictions)
            if len(self._shown) > REMEMBERED:
                self._shown.popitem(last=False)

    def failed(self, version: int) -> None:
        with self._lock:
            if (side := self._sides.get(version)) is not None:
                side.fail()

    def events(self, events: Iterable[Outcome]) -> None:
        with self._lock:
            for event in events:
                if (shown := self._shown.get(event.request_id)) is not None:
                    shown.event(event.video_id, event.type)

    def report(self, version: int) -> Report:
        with self._lock:
            return self._sides[version].report()

    def figures(self, version: int, elsewhere: Sequence[Report] = ()) -> Figures:
        """With what other workers report of the version."""
        return summed([self.report(version), *elsewhere])


def summed(reports: Sequence[Report]) -> Figures:
    """The figures of several workers as of one; the latency is over the last slates of each."""
    seconds = [second for report in reports for second in report["seconds"]]
    latency = float(np.percentile(seconds, 95)) if seconds else float("nan")
    counts = _sums([report["counts"] for report in reports])
    predicted = _sums([report["predicted"] for report in reports])
    positives = _sums([report["positives"] for report in reports])
    return Figures(**counts, latency=latency, predicted=predicted, positives=positives)


def _sums(counts: Sequence[Mapping[str, Number]]) -> dict[str, Number]:
    return {name: sum((count[name] for count in counts[1:]), counts[0][name]) for name in counts[0]}
