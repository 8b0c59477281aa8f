"""A day's features by groups of users, two groups at once: what a group takes is small beside a large day."""

import shutil
from collections.abc import Iterator
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.config import Side
from data.features.asof import Ints
from data.features.groups import Group, Pasts
from data.features.layout import SIDES, Block
from data.features.spec import Knowledge, encode_sides
from data.features.storage import let_go_of_blocks, write_blocks
from data.features.threads import in_turns
from data.features.view import View

PART_ROWS = 65_536
"""Rows put into the log's order at once, at most, on their way into files."""
BY_USERS = "by users"

Blocks = dict[Side, Block]


def encode_whole(know: Knowledge, queries: View, cutoff: Ints, pasts: Pasts) -> Blocks:
    """The features of the rows, in memory.

    Args:
        cutoff: as in :func:`data.features.spec.encode_sides`.
    """
    whole = _empty(know, len(queries))
    tasks = [partial(_encode, know, queries, cutoff, pasts, group, whole, group.today) for group in pasts.groups]
    for _ in in_turns(tasks):
        pass
    return whole


def encode_into(folder: Path, know: Knowledge, queries: View, cutoff: Ints, pasts: Pasts) -> Blocks:
    """The same in files, mapped into memory, by way of others in which the rows of each group follow each other."""
    groups = [np.sort(group.today) for group in pasts.groups]

    def encode(group: Group, rows: Ints) -> Blocks:
        return _encode(know, queries, cutoff, pasts, group, _empty(know, len(rows)), rows.searchsorted(group.today))

    found = in_turns([partial(encode, *each) for each in zip(pasts.groups, groups, strict=True)])
    if len(groups) == 1:
        return write_blocks(found, len(queries), folder)
    by_users = write_blocks(found, len(queries), folder / BY_USERS)
    whole = write_blocks(_in_order(know, by_users, groups), len(queries), folder)
    shutil.rmtree(folder / BY_USERS)
    return whole


def _in_order(know: Knowledge, by_users: Blocks, groups: list[Ints]) -> Iterator[Blocks]:
    """Stretches of all rows. Each group's lie behind those of the one before; ``groups`` are their places, sorted."""
    rows = sum(map(len, groups))
    firsts = [0, *accumulate(map(len, groups))]
    parts = max(-(-rows // PART_ROWS), 1)

    def part(start: int, end: int) -> Blocks:
        into = _empty(know, end - start)
        for places, first in zip(groups, firsts, strict=False):
            here = slice(*places.searchsorted([start, end]).tolist())
            mine = slice(first + here.start, first + here.stop)
            for side, block in by_users.items():
                _put(into[side], places[here] - start, Block(block.ints[mine], block.floats[mine]))
        let_go_of_blocks(by_users)
        return into

    return in_turns([partial(part, *edges) for edges in pairwise(rows * number // parts for number in range(parts + 1))])


def _encode(know: Knowledge, queries: View, cutoff: Ints, pasts: Pasts, group: Group, into: Blocks, places: Ints) -> Blocks:
    """Encode a group's rows ``into`` blocks, at these places [n]."""
    blocks = encode_sides(know, queries.part(group.today), cutoff[group.today], pasts.of(group), SIDES)
    for side, block in blocks.items():
        _put(into[side], places, block)
    return into


def _empty(know: Knowledge, rows: int) -> Blocks:
    layouts = {side: know.layout.sides[side] for side in SIDES}
    return {
        side: Block(np.empty((rows, layout.int_width), np.int32), np.empty((rows, layout.float_width), np.float32))
        for side, layout in layouts.items()
    }


def _put(into: Block, rows: Ints, block: Block) -> None:
    """``into[rows] = block`` [n, width]: a row at a time as one item is four times as fast."""
    _put_rows(into.ints, rows, block.ints)
    _put_rows(into.floats, rows, block.floats)


def _put_rows(into: NDArray[Any], rows: Ints, values: NDArray[Any]) -> None:
    if values.size:
        item = np.dtype((np.void, values.shape[1] * values.itemsize))
        into.view(item)[rows, 0] = values.view(item)[:, 0]
