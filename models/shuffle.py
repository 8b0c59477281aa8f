"""The order in which a day's rows are trained on: at random, and in blocks where the day is large."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from data.config import Side
from data.features.layout import Block
from data.memory import will_read

LARGE_ROWS = 1_000_000
"""Up to so many rows, about a gigabyte of features, each row comes at a random place."""
BLOCK_ROWS = 64
TOGETHER = 512
"""The blocks whose rows are shuffled with each other: 32,768 rows, as many as one call of the graph trains on."""


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


def announce(blocks: Mapping[Side, Block], rows: NDArray[np.int64]) -> None:
    """Have those of the rows that are in files of a large day read at once, block by block, before they are gathered."""
    if max(len(block) for block in blocks.values()) <= LARGE_ROWS:
        return
    starts = np.unique(rows // BLOCK_ROWS) * BLOCK_ROWS
    if len(starts) * 8 > len(rows):  # not in blocks: replayed, or in the order of slates
        return
    for block in blocks.values():
        for array in (block.ints, block.floats):
            will_read(array, starts, BLOCK_ROWS)
