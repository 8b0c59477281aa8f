"""The user's state of the moment: recent outcomes, activity, and what was watched or liked last."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from data.config import ActivityFeature, HistoryFeature, LabelConfig, RecentFeature
from data.features.asof import Timeline, running
from data.features.layout import PADDING
from data.features.past import MICRO, Past, Priors, seen_at
from data.features.rates import against_prior
from data.features.sorting import first_of_each
from data.features.view import View

Ints = NDArray[np.int64]


def recent_columns(
    feature: RecentFeature, past: Past, queries: View, priors: Priors, labels: Mapping[str, LabelConfig]
) -> NDArray[np.float32]:
    """Per label and N: mean of the last N outcomes that count before the feature time, and whether there was none.

    A binary label's mean is its share less the prior; a number's is on the scale of
    :func:`data.features.rates.against_prior`. Where there was none the mean is 0.
    """
    columns = np.empty((len(queries), len(feature.labels), len(feature.last), 2), np.float32)
    counted: dict[tuple[Timeline, int], tuple[Ints, Ints, NDArray[np.bool_]]] = {}  # labels may share it
    for i, label in enumerate(feature.labels):
        _, timeline = past.timeline(label)
        start, end = queries.span(timeline)
        total = past.total(label)
        sums = total[end]
        for j, n in enumerate(feature.last):
            if (timeline, n) not in counted:
                count = np.minimum(end - start, n)
                counted[timeline, n] = end - count, np.maximum(count, 1) * MICRO, count == 0
            first, divisor, none = counted[timeline, n]
            mean = (sums - total[first]) / divisor
            binary = labels[label].type == "binary"
            scaled = mean - priors[label] if binary else against_prior(mean, priors[label], labels[label])
            scaled[none] = 0.0
            columns[:, i, j, 0], columns[:, i, j, 1] = scaled, none
    return columns.reshape(len(queries), -1)


def activity_columns(feature: ActivityFeature, past: Past, queries: View) -> NDArray[np.float32]:
    """log10(1 + minutes since the last impression before the feature time), whether there was none, and for each
    window log10(1 + impressions in [time - window, time))."""
    timeline, seen = past.once("seen", lambda: _seen(past))
    start, end = queries.span(timeline)
    some = end > start
    minutes = np.where(some, (queries.time - seen[np.where(some, end - 1, -1)]) / 60_000, 0.0)
    columns = np.empty((len(queries), 2 + len(feature.hours)), np.float32)
    columns[:, 0], columns[:, 1] = np.log10(1 + minutes), ~some
    for i, hours in enumerate(feature.hours):
        first = timeline.before(queries.user, queries.time - hours_ms(hours))
        columns[:, 2 + i] = np.log10(1.0 + end - first)
    return columns


def _seen(past: Past) -> tuple[Timeline, Ints]:
    """The entries by (user, when they were seen) [m], and these times in that order, 0 behind them [m + 1]."""
    seen = seen_at(past.view.batch)
    timeline = Timeline(past.view.user, seen, past.origin)
    return timeline, np.append(seen[timeline.order], 0)


def history_rows(
    feature: HistoryFeature, past: Past, queries: View, value: Callable[[], NDArray[np.int32]]
) -> NDArray[np.int32]:
    """``value()`` [m] of the last N visible positives, newest first, PADDING behind them [n, N]."""
    rows, timeline = past.timeline(feature.label, feature.above)
    start, end = queries.span(timeline)

    def last_first() -> tuple[NDArray[np.int32], Ints]:
        """The positives from the last one to the first, behind each user's N times PADDING; and how many users the first 0,
        1, ... e of them, from the other end, are of."""
        ordered = rows.take(timeline.order)
        users = running(first_of_each(past.view.user.take(ordered)))
        padded = np.full(len(ordered) + feature.length * (int(users[-1]) + 1), PADDING, np.int32)
        padded[np.arange(len(ordered)) + feature.length * users[1:]] = value().take(ordered)
        return padded[::-1], users

    backwards, users = past.once(("history", feature.name), last_first)
    windows = np.lib.stride_tricks.sliding_window_view(backwards, feature.length)
    return np.asarray(windows[len(windows) - 1 - end - feature.length * users.take(start)])


def hours_ms(hours: float) -> int:
    return round(hours * 3_600_000)
