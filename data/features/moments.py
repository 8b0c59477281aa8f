"""The user's state of the moment: recent outcomes, activity, and what was watched or liked last."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from data.config import ActivityFeature, HistoryFeature, LabelConfig, RecentFeature
from data.features.asof import Timeline, running
from data.features.layout import PADDING
from data.features.past import MICRO, Past, Priors, seen_at
from data.features.rates import against_prior
from data.features.view import View

Ints = NDArray[np.int64]

CHUNK = 65_536


def recent_columns(
    feature: RecentFeature, past: Past, queries: View, priors: Priors, labels: Mapping[str, LabelConfig]
) -> NDArray[np.float32]:
    """Per label and N: mean of the last N outcomes that count before the feature time, and whether there was none.

    A binary label's mean is its share less the prior; a number's is on the scale of
    :func:`data.features.rates.against_prior`. Where there was none the mean is 0.
    """
    columns: list[NDArray[np.float64]] = []
    for label in feature.labels:
        rows, timeline = past.timeline(label)
        start, end = timeline.start(queries.user), timeline.before(queries.user, queries.time)
        total = running(past.micro(label)[rows][timeline.order])
        for n in feature.last:
            count = np.minimum(end - start, n)
            mean = (total[end] - total[end - count]) / (np.maximum(count, 1) * MICRO)
            binary = labels[label].type == "binary"
            scaled = mean - priors[label] if binary else against_prior(mean, priors[label], labels[label])
            columns += [np.where(count > 0, scaled, 0.0), (count == 0).astype(np.float64)]
    return np.stack(columns, axis=1).astype(np.float32)


def activity_columns(feature: ActivityFeature, past: Past, queries: View) -> NDArray[np.float32]:
    """log10(1 + minutes since the last impression before the feature time), whether there was none, and for each
    window log10(1 + impressions in [time - window, time))."""
    seen = seen_at(past.view.batch)
    timeline = Timeline(past.view.user, seen, past.origin)
    start, end = timeline.start(queries.user), timeline.before(queries.user, queries.time)
    some = end > start
    last = np.concatenate([seen[timeline.order], [0]])[np.where(some, end - 1, -1)]
    minutes = np.where(some, (queries.time - last) / 60_000, 0.0)
    columns = [np.log10(1 + minutes), (~some).astype(np.float64)]
    for hours in feature.hours:
        first = timeline.before(queries.user, queries.time - hours_ms(hours))
        columns.append(np.log10(1.0 + end - first))
    return np.stack(columns, axis=1).astype(np.float32)


def history_rows(feature: HistoryFeature, past: Past, queries: View, value: NDArray[np.int32]) -> NDArray[np.int32]:
    """``value`` [m] of the last N visible positives, newest first, PADDING behind them [n, N]."""
    rows, timeline = past.timeline(feature.label, feature.above)
    start, end = timeline.start(queries.user), timeline.before(queries.user, queries.time)
    ordered = np.concatenate([value[rows][timeline.order], np.array([PADDING], np.int32)])
    found = np.empty((len(start), feature.length), np.int32)
    for first in range(0, len(start), CHUNK):  # a day's places at once are three times as large as what is found there
        part = slice(first, first + CHUNK)
        place = end[part, None] - 1 - np.arange(feature.length)
        found[part] = np.where(place >= start[part, None], ordered[np.maximum(place, -1)], PADDING)
    return found


def hours_ms(hours: float) -> int:
    return round(hours * 3_600_000)
