"""How many entries of a group lie before a time: the one primitive under every point-in-time feature."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.features.sorting import FEW, order_by, places

_BITS = 33
_SPAN = (1 << _BITS) - 2
"""The longest stretch of time, in ms, that one timeline tells apart: 99 days."""

Ints = NDArray[np.int64]


class Timeline:
    """Entries sorted by (group, time, position given), ready for searches.

    Entries that are nearly in that order, and queries that are, cost little.

    Args:
        group: [m] non-negative, below 2**30.
        time: [m] ms.
        origin: no query asks for a time before it, so entries before it need no telling apart.
    """

    def __init__(self, group: Ints, time: Ints, origin: int) -> None:
        self._origin = origin
        self.order = order_by(group, time)
        self._sorted = self._code(group[self.order], time[self.order])
        self._starts: dict[int, Ints] = {}

    def _code(self, group: Ints, time: Ints) -> Ints:
        return (np.asarray(group, np.int64) << _BITS) | np.clip(time - self._origin + 1, 0, _SPAN + 1)

    def before(self, group: Ints, time: Ints) -> Ints:
        """For each query [n], the position in sorted order behind the group's last entry with entry time < time."""
        if len(time) and int(time.max()) - self._origin > _SPAN:
            raise ValueError("queries span more than 99 days")
        return places(self._sorted, self._code(group, time))

    def start(self, group: Ints, since: int | None = None) -> Ints:
        """For each query [n], the position in sorted order of the group's first entry (of entry time >= ``since``)."""
        code = 0 if since is None else int(np.clip(since - self._origin + 1, 0, _SPAN + 1))
        groups = int(self._sorted[-1] >> _BITS) + 1 if len(self._sorted) else 0
        if groups > len(self._sorted) + len(group) or len(group) <= FEW:
            return places(self._sorted, (group.astype(np.int64) << _BITS) | code)
        if code not in self._starts:  # groups are dense: all of them cost less than all queries
            self._starts[code] = self._sorted.searchsorted((np.arange(groups + 1) << _BITS) | code)
        return self._starts[code][np.minimum(group, groups)]


def running(values: NDArray[Any]) -> Ints:
    """Sums of the first 0, 1, ... m values [m + 1], exact in int64."""
    sums = np.zeros(len(values) + 1, np.int64)
    np.cumsum(values, dtype=np.int64, out=sums[1:])
    return sums
