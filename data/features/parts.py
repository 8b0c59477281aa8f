"""A day's features part by part, two parts at once: a part's arrays are such as the processor's caches hold."""

from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.config import Side
from data.features.asof import Ints
from data.features.layout import SIDES, Block
from data.features.past import Past
from data.features.sorting import stable_order
from data.features.spec import Knowledge, encode_sides
from data.features.threads import in_turns
from data.features.view import View

PART_ROWS = 65_536
"""Rows encoded at once, at most. What a part takes is small beside a large day's past."""

Blocks = dict[Side, Block]


def encode_whole(know: Knowledge, queries: View, cutoff: Ints, past: Past, order: Ints) -> Blocks:
    """The features of the rows, in memory. A part is a stretch of users: what it searches and gathers lies together.

    Args:
        cutoff: as in :func:`data.features.spec.encode_sides`.
        order: the rows in the order of their users.
    """
    whole = _empty(know, len(queries))
    tasks = [
        partial(_encode, know, queries, cutoff, past, order[start:end], number, whole, 0)
        for number, (start, end) in enumerate(_parts(queries))
    ]
    for _ in in_turns(tasks):
        pass
    return whole


def encode_parts(know: Knowledge, queries: View, cutoff: Ints, past: Past) -> Iterator[Blocks]:
    """The same in parts that follow each other, one at least; few are in memory at once."""

    def encode(number: int, start: int, end: int) -> Blocks:
        order = stable_order(queries.user[start:end])
        return _encode(know, queries, cutoff, past, start + order, number, _empty(know, len(order)), start)

    return in_turns([partial(encode, number, *edges) for number, edges in enumerate(_parts(queries))])


def _parts(queries: View) -> list[tuple[int, int]]:
    """Where each begins and ends: one at least, of equal sizes, since a small one does not let go of what it maps."""
    rows, parts = len(queries), max(-(-len(queries) // PART_ROWS), 1)
    return list(pairwise(rows * number // parts for number in range(parts + 1)))


def _encode(
    know: Knowledge, queries: View, cutoff: Ints, past: Past, rows: Ints, number: int, into: Blocks, first: int
) -> Blocks:
    """Encode the rows of a part, in the order of their users, ``into`` blocks of which the first row is ``first``."""
    blocks = encode_sides(know, queries.part(rows), cutoff[rows], past, SIDES, number)
    for side, block in blocks.items():
        _put(into[side].ints, rows - first, block.ints)
        _put(into[side].floats, rows - first, block.floats)
    return into


def _empty(know: Knowledge, rows: int) -> Blocks:
    layouts = {side: know.layout.sides[side] for side in SIDES}
    return {
        side: Block(np.empty((rows, layout.int_width), np.int32), np.empty((rows, layout.float_width), np.float32))
        for side, layout in layouts.items()
    }


def _put(into: NDArray[Any], rows: Ints, values: NDArray[Any]) -> None:
    """``into[rows] = values`` [n, width]: a row at a time as one item is four times as fast."""
    if values.size:
        item = np.dtype((np.void, values.shape[1] * values.itemsize))
        into.view(item)[rows, 0] = values.view(item)[:, 0]
