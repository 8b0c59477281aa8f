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


class Past:
    """Entries seen as a :class:`View`, with each label's values and the times from which features may use them.

    A label's value counts from ``<label>_visible_at`` (default the row's ``visible_at``) plus its feedback delay.
    """

    def __init__(self, view: View, config: Config, origin: int) -> None:
        self.view = view
        self.origin = origin
        self._delay = {name: round(label.feedback_delay * 1000) for name, label in config.labels.items()}
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
        """When the label counts [m], ms."""
        return visible_at(self.view.batch, label) + self._delay[label]

    def timing(self, label: str) -> tuple[object, ...]:
        """Labels of equal timing are known on the same rows from the same times, and can share one timeline."""
        batch = self.view.batch
        own = f"{label}_visible_at"
        complete = bool(self.known(label).all())
        return (own if own in batch else "", self._delay[label], "" if complete else label)

    def timeline(self, label: str, at_least: float | None = None) -> tuple[Ints, Timeline]:
        """Entries of known label (above ``at_least``, if given) by (user, when it counts): (positions [e], timeline)."""
        key = self.timing(label) if at_least is None else (label, at_least)
        if key not in self._timelines:
            chosen = self.known(label)
            if at_least is not None:
                chosen &= self.view.batch.numbers(label) > at_least
            rows = np.flatnonzero(chosen)
            self._timelines[key] = rows, Timeline(self.view.user[rows], self.visible(label)[rows], self.origin)
        return self._timelines[key]


def visible_at(batch: Batch, label: str) -> Ints:
    """When a label could be known [n], ms: its own column, where that has a value, else the row's."""
    common = batch.numbers("visible_at").astype(np.int64)
    own = f"{label}_visible_at"
    if own not in batch:
        return common
    values = batch.numbers(own)
    return np.where(np.isnan(values), common, np.nan_to_num(values)).astype(np.int64)


def past_columns(config: Config) -> list[str]:
    """The columns of an impression that later features read."""
    keys = {key for feature in config.features if isinstance(feature, RateFeature) for key in feature.keys}
    context = [name for name in config.log.context if name in keys]
    return ["user_id", "video_id", "timestamp", "visible_at", *context, *config.labels]


def past_batch(batch: Batch, config: Config) -> Batch:
    """Those columns of a batch, in one fixed order and form, so that batches can be concatenated."""
    columns = {name: batch[name] for name in past_columns(config)}
    for label in config.labels:
        own = f"{label}_visible_at"
        columns[own] = batch.numbers(own).astype(np.float64) if own in batch else np.full(len(batch), np.nan)
    return Batch(columns)


def join(first: Batch, second: Batch) -> Batch:
    """Both batches' rows, without the visibility columns that are null throughout."""
    both = concatenate(first, second)
    empty = {name for name, column in both.columns.items() if name.endswith("_visible_at") and _all_nan(column)}
    return Batch({name: column for name, column in both.columns.items() if name not in empty})


def _all_nan(column: object) -> bool:
    return isinstance(column, np.ndarray) and bool(np.isnan(column).all())


Priors = Mapping[str, float]
"""Each label's mean over the fit days."""
