"""Orders, sets and places of whole arrays, all by sorting plain integers, which processors do best.

On a day of a million rows ``numpy.unique`` (a hash table), ``lexsort`` and a search for needles in any order each took five
to a hundred times as long.
"""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

FEW = 256
"""Up to so many, all is in the caches anyway, and a detour would only cost."""


def distinct(values: Ints) -> Ints:
    """The distinct values, sorted."""
    ordered = np.sort(values)
    return ordered[first_of_each(ordered)]


def first_of_each(ordered: Ints) -> NDArray[np.bool_]:
    """Where a value of a sorted array [n] is not the one before it [n]."""
    first = np.ones(len(ordered), bool)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return first


def stable_order(values: Ints) -> Ints:
    """What ``argsort`` gives, with equal values in the order given."""
    n = len(values)
    low = int(values.min(initial=0))
    bits = n.bit_length()
    if n <= FEW or (int(values.max(initial=0)) - low).bit_length() + bits > 63:
        return np.argsort(values, kind="stable")
    packed = ((values - low) << bits) | np.arange(n)
    packed.sort()
    return packed & ((1 << bits) - 1)


def order_by(group: Ints, time: Ints) -> Ints:
    """Positions in the order of (group, time, position)."""
    if len(time) > FEW:
        by_time = stable_order(time)
        return by_time[stable_order(group[by_time])]
    return np.lexsort((time, group))


def places(ordered: Ints, values: NDArray[Any], side: Literal["left", "right"] = "left") -> Ints:
    """What ``ordered.searchsorted(values, side)`` gives. Needles in order find one after the other close by."""
    if len(values) <= FEW:
        return ordered.searchsorted(values, side)
    order = np.argsort(values)
    found = np.empty(len(values), np.int64)
    found[order] = ordered.searchsorted(values[order], side)
    return found
