"""Past outcomes by key and time, with running sums: what a rate of the moment adds to the totals of the boundary."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from data.features.asof import Timeline
from data.features.past import Past
from data.features.sorting import FEW, places, ranks

Ints = NDArray[np.int64]


class Ledger:
    """The entries that begin to count at or after ``since`` (ms), of labels of equal timing, by a combined key.

    In the order of (key, when they count); ``_totals`` [e + 1, labels] are sums of the outcomes, in millionths, of the first
    0, 1, ... e of them.
    """

    def __init__(self, past: Past, keys: tuple[str, ...], labels: Sequence[str], since: int) -> None:
        self._since, self._labels = since, labels
        self._distinct: Ints | None = None
        if keys == ("user_id",) and since >= past.origin:
            # The entries before are there too: where a user's begin is looked up.
            rows, self._timeline = past.timeline(labels[0])
        else:
            when = past.counts(labels[0])
            chosen = np.flatnonzero(past.known(labels[0]) & (when >= since))
            rows, key = past.view.keys(keys, chosen)
            if len(keys) > 1:  # a timeline takes no large numbers
                self._distinct, key = ranks(key)
            self._timeline = Timeline(key, when[rows], past.origin)
        rows = rows[self._timeline.order]
        self._totals = np.zeros((len(rows) + 1, len(labels)), np.int64)
        for i, label in enumerate(labels):
            np.cumsum(past.micro(label, rows), out=self._totals[1:, i])

    @classmethod
    def of(cls, past: Past, keys: tuple[str, ...], labels: Sequence[str], since: int) -> "Ledger":
        """The one of these entries, which is made once."""
        return past.once(("ledger", keys, *labels, since), lambda: cls(past, keys, labels, since))

    def add(self, keys: Ints, cutoff: Ints, labels: Sequence[str], counts: Ints, sums: Ints) -> None:
        """Add, in place, what counts in [since, cutoff) of each key [n]; ``labels`` are those of the columns [n, labels]."""
        group = keys
        if self._distinct is not None:
            group = places(self._distinct, keys)
            group[np.append(self._distinct, -1)[group] != keys] = len(self._distinct)
        start = self._timeline.start(group, self._since)
        end = np.maximum(start, self._timeline.before(group, cutoff))
        found = self._totals.take(end, axis=0)
        found -= self._totals.take(start, axis=0)
        for i, label in enumerate(self._labels):
            counts[:, labels.index(label)] += end - start
            sums[:, labels.index(label)] += found[:, i]


def begun(labels: Sequence[str], past: Past, since: int, until: int) -> list[list[str]]:
    """The labels of which some entry begins to count in [since, until), those of equal timing together."""
    together: dict[tuple[object, ...], list[str]] = {}
    for label in labels:
        if _first(past, label, since) < until:
            together.setdefault(past.timing(label), []).append(label)
    return list(together.values())


def _first(past: Past, label: str, since: int) -> int:
    """When the first of the entries that begin to count at or after ``since`` does, ms."""

    def first() -> int:
        when = past.counts(label)
        return int(when[past.known(label) & (when >= since)].min(initial=np.iinfo(np.int64).max))

    return past.once(("first", label if len(past) <= FEW else past.timing(label), since), first)
