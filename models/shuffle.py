"""The order in which a day's rows are trained on: at random, and in blocks where the day is large."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.config import Side
from data.features.layout import SIDES, Block
from data.features.storage import let_go
from data.memory import will_read

LARGE_ROWS = 1_000_000
"""Up to so many rows, about a gigabyte of features, each row comes at a random place."""
BLOCK_ROWS = 64
TOGETHER = 512
"""The blocks whose rows are shuffled with each other: 32,768 rows, as many as one call of the graph trains on."""
PIECES = 16
"""A call's rows are gathered in so many pieces. The system maps what lies around each page that is read, 64 KB or more:
for 512 blocks at once most of a day."""


def shuffled(n: int, random: np.random.Generator) -> NDArray[np.int64]:
    """A permutation of n rows.

    Of more than ``LARGE_ROWS``: the blocks of 64 neighbours in random order, then the rows of 512 blocks at a time. A batch
    has rows from all over the day still, but what is read for it are stretches of the day's files, not single rows, for
    each of which the system reads a page at least. That decides where the files don't fit in memory; where they do, it is
    the cheaper reading by half (docs/decisions/0011).
    """
    if n <= LARGE_ROWS:
        return random.permutation(n)
    blocks = random.permutation(-(-n // BLOCK_ROWS))
    rows = (blocks[:, None] * BLOCK_ROWS + np.arange(BLOCK_ROWS)).reshape(-1)
    rows = rows[rows < n]
    stride = TOGETHER * BLOCK_ROWS
    return np.concatenate([random.permutation(rows[start : start + stride]) for start in range(0, n, stride)])


def gather(
    blocks: Mapping[Side, Block], rows: NDArray[np.int64]
) -> dict[Side, tuple[NDArray[np.int32], NDArray[np.float32]]]:
    """These rows' ints and floats [n, width] of each side. A large day's files are read in their own order, and what was
    read is let go of: mapped pages count as resident memory. (``np.take`` takes half the time of an index.)"""
    parts = PIECES if announce(blocks, rows) else 1
    pieces = np.array_split(np.argsort(rows), parts) if parts > 1 else []
    each = {side: blocks[side] for side in SIDES}
    return {s: (_gathered(block.ints, rows, pieces), _gathered(block.floats, rows, pieces)) for s, block in each.items()}


def _gathered(array: NDArray[Any], rows: NDArray[np.int64], pieces: Sequence[NDArray[np.int64]]) -> NDArray[Any]:
    if not pieces:
        return np.asarray(np.take(array, rows, axis=0))
    found = np.empty((len(rows), array.shape[1]), array.dtype)
    for piece in pieces:
        found[piece] = np.take(array, rows[piece], axis=0)
        let_go(array)
    return found


def announce(blocks: Mapping[Side, Block], rows: NDArray[np.int64]) -> bool:
    """Have those of the rows that are in files of a large day read at once, block by block, before they are gathered.
    Returns whether the day is large, and the rows lie in blocks."""
    if max(len(block) for block in blocks.values()) <= LARGE_ROWS:
        return False
    starts = np.unique(rows // BLOCK_ROWS) * BLOCK_ROWS
    if len(starts) * 8 > len(rows):  # not in blocks: replayed, or in the order of slates
        return False
    for block in blocks.values():
        for array in (block.ints, block.floats):
            will_read(array, starts, BLOCK_ROWS)
    return True
