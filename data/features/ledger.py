"""Past outcomes by key and time, with running sums: what a rate of the moment adds to the totals of the boundary."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from data.features.asof import Timeline, running
from data.features.past import Past
from data.features.sorting import FEW, places, ranks

Ints = NDArray[np.int64]


class Ledger:
    """The entries that begin to count at or after ``since`` (ms), of labels of equal timing, by a combined key.

    In the order of (key, when they count), which ``timeline`` has; ``_totals`` [e + 1] are, of each label, sums of the
    outcomes, in millionths, of the first 0, 1, ... e of them.
    """

    def __init__(self, past: Past, keys: tuple[str, ...], labels: Sequence[str], since: int) -> None:
        self._since, self._labels = since, labels
        self._distinct: Ints | None = None
        self.of_users = keys == ("user_id",) and since >= past.origin
        if self.of_users:
            # The entries before are there too: where a user's begin is looked up.
            self.timeline = past.timeline(labels[0])[1]
            self._totals = [past.total(label) for label in labels]
            return
        when = past.counts(labels[0])
        chosen = np.flatnonzero(past.known(labels[0]) & (when >= since))
        rows, key = past.view.keys(keys, chosen)
        if len(keys) > 1:  # a timeline takes no large numbers
            self._distinct, key = ranks(key)
        self.timeline = Timeline(key, when.take(rows), past.origin)
        rows = rows.take(self.timeline.order)
        self._totals = [running(past.micro(label, rows)) for label in labels]

    @classmethod
    def of(cls, past: Past, keys: tuple[str, ...], labels: Sequence[str], since: int) -> "Ledger":
        """The one of these entries, which is made once."""
        return past.once(("ledger", keys, *labels, since), lambda: cls(past, keys, labels, since))

    def add(
        self, keys: Ints, cutoff: Ints, labels: Sequence[str], counts: Ints, sums: Ints, end: Ints | None = None
    ) -> None:
        """Add, in place, what counts in [since, cutoff) of each key [n]; ``labels`` are those of the columns [n, labels].

        Args:
            end: where it is known, the position in the timeline behind the last entry before the cutoff [n].
        """
        group = keys
        if self._distinct is not None:
            group = places(self._distinct, keys)
            group[np.append(self._distinct, -1).take(group) != keys] = len(self._distinct)
        start = self.timeline.start(group, self._since)
        end = np.maximum(start, self.timeline.before(group, cutoff) if end is None else end)
        count = end - start
        for label, total in zip(self._labels, self._totals, strict=True):
            counts[:, labels.index(label)] += count
            sums[:, labels.index(label)] += total.take(end) - total.take(start)


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
