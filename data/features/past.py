"""Past impressions as point-in-time features see them: every outcome with the time from which it counts."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from data.columns import Batch, concatenate
from data.config import Config, RateFeature
from data.features.asof import Timeline
from data.features.view import View

Ints = NDArray[np.int64]

MICRO = 1_000_000
"""Outcomes are summed as integers of a millionth, so that a sum never depends on the order of its parts."""


SEEN = "seen_at"
"""The column of what we served ourselves: when the item became an impression (ms); null on rows of a team's files."""


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
        self._timelines: dict[tuple[object, ...], tuple[Ints, Timeline]] = {}

    def __len__(self) -> int:
        return len(self.view)

    def known(self, label: str) -> NDArray[np.bool_]:
        """Where the label was observed [m]."""
        return np.asarray(~np.isnan(self.view.batch.numbers(label)))

    def micro(self, label: str) -> Ints:
        """The label in millionths [m], 0 where unknown."""
        return np.asarray(np.rint(np.nan_to_num(self.view.batch.numbers(label)) * MICRO).astype(np.int64))

    def visible(self, label: str) -> Ints:
        """When the label can be known [m], ms."""
        return visible_at(self.view.batch, label) + self.delays[label]

    def counts(self, label: str) -> Ints:
        """When the label counts [m], ms."""
        return after_window(self.view.batch, self.visible(label), self.windows[label] + self.delays[label])

    def timing(self, label: str) -> tuple[object, ...]:
        """Labels of equal timing are known on the same rows from the same times, and can share one timeline."""
        batch = self.view.batch
        own = f"{label}_visible_at"
        complete = bool(self.known(label).all())
        window = self.windows[label] if SEEN in batch else 0
        return (own if own in batch else "", self.delays[label], window, "" if complete else label)

    def timeline(self, label: str, at_least: float | None = None) -> tuple[Ints, Timeline]:
        """Entries of known label by (user, when it counts), or those above ``at_least`` by (user, when it is visible):
        (positions [e], timeline)."""
        key = self.timing(label) if at_least is None else (label, at_least)
        if key not in self._timelines:
            chosen, time = self.known(label), self.counts(label)
            if at_least is not None:
                chosen, time = chosen & (self.view.batch.numbers(label) > at_least), self.visible(label)
            rows = np.flatnonzero(chosen)
            self._timelines[key] = rows, Timeline(self.view.user[rows], time[rows], self.origin)
        return self._timelines[key]


def visible_at(batch: Batch, label: str) -> Ints:
    """When a label could be known [n], ms: its own column, where that has a value, else the row's."""
    common = batch.numbers("visible_at").astype(np.int64)
    own = f"{label}_visible_at"
    if own not in batch:
        return common
    values = batch.numbers(own)
    return np.where(np.isnan(values), common, np.nan_to_num(values)).astype(np.int64)


def seen_at(batch: Batch) -> Ints:
    """When each row was seen [n], ms: of rows from files, its timestamp."""
    timestamp = batch.numbers("timestamp").astype(np.int64)
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
    """Those columns of a batch, in one fixed order and form, so that batches can be concatenated."""
    columns = {name: batch[name] for name in past_columns(config)}
    for own in (SEEN, *(f"{label}_visible_at" for label in config.labels)):
        columns[own] = batch.numbers(own).astype(np.float64) if own in batch else np.full(len(batch), np.nan)
    return Batch(columns)


def join(first: Batch, second: Batch) -> Batch:
    """Both batches' rows, without the columns of times that are null throughout."""
    times = [name for name in second.columns if name == SEEN or name.endswith("_visible_at")]
    empty = {name for name in times if all(_all_nan(batch[name]) for batch in (first, second) if name in batch)}
    return concatenate(*(Batch({n: c for n, c in batch.columns.items() if n not in empty}) for batch in (first, second)))


def _all_nan(column: object) -> bool:
    return isinstance(column, np.ndarray) and bool(np.isnan(column).all())


Priors = Mapping[str, float]
"""Each label's mean over the fit days."""
