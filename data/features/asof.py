"""How many entries of a group lie before a time: the one primitive under every point-in-time feature."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.features.sorting import order_by, places

_BITS = 33
_SPAN = (1 << _BITS) - 2
"""The longest stretch of time, in ms, that one timeline tells apart: 99 days."""

Ints = NDArray[np.int64]


class Timeline:
    """Entries sorted by (group, time, position given), ready for searches.

    Args:
        group: [m] non-negative, below 2**30.
        time: [m] ms.
        origin: no query asks for a time before it, so entries before it need no telling apart.
    """

    def __init__(self, group: Ints, time: Ints, origin: int) -> None:
        self._origin = origin
        code = self._code(group, time)
        self.order = order_by(group, time)
        self._sorted = code[self.order]

    def _code(self, group: Ints, time: Ints) -> Ints:
        return (group.astype(np.int64) << _BITS) | np.clip(time - self._origin + 1, 0, _SPAN + 1)

    def before(self, group: Ints, time: Ints) -> Ints:
        """For each query [n], the position in sorted order behind the group's last entry with entry time < time."""
        if len(time) and int(time.max()) - self._origin > _SPAN:
            raise ValueError("queries span more than 99 days")
        return places(self._sorted, self._code(group, time))

    def start(self, group: Ints) -> Ints:
        """For each query [n], the position in sorted order of the group's first entry."""
        return places(self._sorted, group.astype(np.int64) << _BITS)


def running(values: NDArray[Any]) -> Ints:
    """Sums of the first 0, 1, ... m values [m + 1], exact in int64."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(values, dtype=np.int64)])
