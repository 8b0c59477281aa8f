"""Past impressions as point-in-time features see them: every outcome with the time from which it counts."""

from collections.abc import Callable, Mapping
from threading import Lock
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from data.columns import Batch, Column, concatenate
from data.config import Config, RateFeature
from data.features.asof import Timeline, running
from data.features.view import View

Ints = NDArray[np.int64]

MICRO = 1_000_000
"""Outcomes are summed as integers of a millionth, so that a sum never depends on the order of its parts."""


SEEN = "seen_at"
"""The column of what we served ourselves: when the item became an impression (ms); null on rows of a team's files."""


Made = TypeVar("Made")
SOME = 65_536
"""Times that are looked at at once for one that is not null."""

Timing = tuple[Mapping[str, int], Mapping[str, int]]
"""Of each label its feedback delay and its window, ms."""


def timings(config: Config) -> Timing:
    delays = {name: round(label.feedback_delay * 1000) for name, label in config.labels.items()}
    return delays, {name: config.window(name) for name in config.labels}


class Past:
    """Entries seen as a :class:`View`, with each label's values and the times from which features may use them.

    A label's value is visible from ``<label>_visible_at`` (default the row's ``visible_at``) plus its feedback delay, and
    histories of positives read it from then. It counts, in rates and means, from the same time; but on rows that we
    served ourselves only once the label's window has closed too, so that positives don't count before the negatives.
    """

    def __init__(self, view: View, config: Config, origin: int, timing: Timing | None = None) -> None:
        self.view = view
        self.origin = origin
        self.delays, self.windows = timing or timings(config)
        self.all: Callable[[], Past] | None = None
        """What :meth:`of_all` returns, where these entries are of some users alone."""
        self._made: dict[object, object] = {}
        self._locks: dict[object, Lock] = {}

    def __len__(self) -> int:
        return len(self.view)

    def of_all(self) -> "Past":
        """The entries of all users."""
        return self.all() if self.all else self

    def once(self, key: object, make: Callable[[], Made]) -> Made:
        """What ``make`` returns, made once under a key by whichever thread asks for it first."""
        with self._locks.setdefault(key, Lock()):
            if key not in self._made:
                self._made[key] = make()
            return self._made[key]  # type: ignore[return-value]

    def known(self, label: str) -> NDArray[np.bool_]:
        """Where the label was observed [m]."""
        return np.asarray(~np.isnan(self.view.batch.numbers(label)))

    def micro(self, label: str, rows: Ints) -> Ints:
        """The label in millionths at these entries [e], 0 where unknown."""
        values = self.view.batch.numbers(label)[rows] * np.float64(MICRO)
        np.rint(values, out=values)
        np.copyto(values, 0.0, where=np.isnan(values))
        return np.asarray(values.astype(np.int64))

    def visible(self, label: str) -> Ints:
        """When the label can be known [m], ms."""
        return visible_at(self.view.batch, label) + self.delays[label]

    def counts(self, label: str) -> Ints:
        """When the label counts [m], ms."""
        return after_window(self.view.batch, self.visible(label), self.windows[label] + self.delays[label])

    def timing(self, label: str) -> tuple[object, ...]:
        """Labels of equal timing are known on the same rows from the same times, and can share one timeline."""
        return self.once(("timing", label), lambda: self._timing(label))

    def _timing(self, label: str) -> tuple[object, ...]:
        batch = self.view.batch
        own = f"{label}_visible_at"
        complete = bool(self.known(label).all())
        window = self.windows[label] if SEEN in batch else 0
        return (own if own in batch else "", self.delays[label], window, "" if complete else label)

    def timeline(self, label: str, at_least: float | None = None) -> tuple[Ints, Timeline]:
        """Entries of known label by (user, when it counts), or those above ``at_least`` by (user, when it is visible):
        (positions [e], timeline)."""
        key = self.timing(label) if at_least is None else (label, at_least)
        return self.once(("timeline", key), lambda: self._timeline(label, at_least))

    def _timeline(self, label: str, at_least: float | None) -> tuple[Ints, Timeline]:
        if at_least is None:
            chosen, time = self.known(label), self.counts(label)
        else:
            chosen, time = self.view.batch.numbers(label) > at_least, self.visible(label)
        rows = np.flatnonzero(chosen)
        return rows, Timeline(self.view.user[rows], time[rows], self.origin)

    def total(self, label: str) -> Ints:
        """Sums of the label's outcomes, in millionths, over the first 0, 1, ... e entries of its timeline [e + 1]."""
        return self.once(("total", label), lambda: self._total(label))

    def _total(self, label: str) -> Ints:
        rows, timeline = self.timeline(label)
        return running(self.micro(label, rows[timeline.order]))


def visible_at(batch: Batch, label: str) -> Ints:
    """When a label could be known [n], ms: its own column, where that has a value, else the row's."""
    common = np.asarray(batch.numbers("visible_at"), np.int64)
    own = f"{label}_visible_at"
    if own not in batch:
        return common
    values = batch.numbers(own)
    return np.where(np.isnan(values), common, np.nan_to_num(values)).astype(np.int64)


def seen_at(batch: Batch) -> Ints:
    """When each row was seen [n], ms: of rows from files, its timestamp."""
    timestamp = np.asarray(batch.numbers("timestamp"), np.int64)
    if SEEN not in batch:
        return timestamp
    seen = batch.numbers(SEEN)
    return np.where(np.isnan(seen), timestamp, np.nan_to_num(seen)).astype(np.int64)


def after_window(batch: Batch, time: Ints, window: int) -> Ints:
    """``time`` [n], on rows that we served ourselves not before ``window`` (ms) after their request."""
    if SEEN not in batch:
        return time
    closes = batch.numbers("timestamp").astype(np.int64) + window
    return np.where(np.isnan(batch.numbers(SEEN)), time, np.maximum(time, closes))


def past_columns(config: Config) -> list[str]:
    """The columns of an impression that later features read."""
    keys = {key for feature in config.features if isinstance(feature, RateFeature) for key in feature.keys}
    context = [name for name in config.log.context if name in keys]
    return ["user_id", "video_id", "timestamp", "visible_at", *context, *config.labels]


def past_batch(batch: Batch, config: Config) -> Batch:
    """Those columns of a batch, in one fixed order, and of the labels' own times and :data:`SEEN` those that are not null
    throughout."""
    columns: dict[str, Column] = {name: batch[name] for name in past_columns(config)}
    for own in (SEEN, *(f"{label}_visible_at" for label in config.labels)):
        if own in batch and not _all_null(times := np.asarray(batch.numbers(own), np.float64)):
            columns[own] = times
    return Batch(columns)


def _all_null(times: NDArray[np.float64]) -> bool:
    """Of a file with times nearly nothing is read."""
    return all(np.isnan(times[start : start + SOME]).all() for start in range(0, len(times), SOME))


def join(first: Batch, second: Batch) -> Batch:
    """Both batches' rows; times that one of them lacks are null there."""
    return concatenate(*alike(first, second))


def alike(first: Batch, second: Batch) -> tuple[Batch, Batch]:
    """Both batches, with the times that either has."""
    if not len(first):
        return first, second
    names = {**first.columns, **second.columns}
    return with_times(first, names), with_times(second, names)


def with_times(batch: Batch, names: Mapping[str, object]) -> Batch:
    """The batch with all columns of these names; those that it lacks are times, which are null."""
    lacking = [name for name in names if name not in batch]
    return Batch({**batch.columns, **{name: np.full(len(batch), np.nan) for name in lacking}}) if lacking else batch


Priors = Mapping[str, float]
"""Each label's mean over the fit days."""
