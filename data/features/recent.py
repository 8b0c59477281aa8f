"""Which past impressions must be kept after a boundary, so that later features come out as from the whole log."""

import numpy as np
from numpy.typing import NDArray

from data.config import Config, HistoryFeature, RateFeature, RecentFeature
from data.features.past import Past, seen_at
from data.features.sorting import order_by
from data.features.spec import longest_window

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

WATCHED = 20
"""How many of the user's last positive videos the generators may ask for."""


def kept(config: Config, past: Past, until: int, positive: str) -> Mask:
    """Entries [m] that a feature at or after ``until`` may still need one by one.

    These are: outcomes that don't count yet, impressions within the longest activity window, the last one of each
    user, and the last N that some feature looks back to. All others are in the totals.
    """
    seen = seen_at(past.view.batch)
    user = past.view.user
    keep = seen >= until - longest_window(config)
    keep |= _last(user, seen, seen < until, 1)
    for label in {past.timing(label): label for label in used_labels(config)}.values():
        keep |= past.known(label) & (past.counts(label) >= until)
    back = {
        (past.timing(label) if above is None else label, above, n): label
        for label, above, n in _looking_back(config, positive)
    }
    for (_, above, n), label in back.items():
        time = past.counts(label) if above is None else past.visible(label)
        chosen = past.known(label) if above is None else past.view.batch.numbers(label) > above
        chosen &= time < until
        keep |= _last(user, time, chosen, n)
    return keep


def used_labels(config: Config) -> set[str]:
    """The labels that some feature reads."""
    used: set[str] = set()
    for feature in config.features:
        match feature:
            case RateFeature() | RecentFeature():
                used.update(feature.labels)
            case HistoryFeature():
                used.add(feature.label)
            case _:
                pass
    return used


def _looking_back(config: Config, positive: str) -> set[tuple[str, float | None, int]]:
    wanted: set[tuple[str, float | None, int]] = {(positive, 0.0, WATCHED)}
    for feature in config.features:
        if isinstance(feature, RecentFeature):
            wanted.update((label, None, max(feature.last)) for label in feature.labels)
        if isinstance(feature, HistoryFeature):
            wanted.add((feature.label, feature.above, feature.length))
    return wanted


def _last(user: Ints, time: Ints, chosen: Mask, n: int) -> Mask:
    """The last n chosen entries of each user by (time, position)."""
    rows = np.flatnonzero(chosen)
    rows = rows.take(order_by(user.take(rows), time.take(rows)))
    ordered = user.take(rows)
    last = np.ones(len(rows), bool)
    last[:-n] = ordered[n:] != ordered[:-n]
    result = np.zeros(len(user), bool)
    result[rows[last]] = True
    return result
