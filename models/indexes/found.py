"""What an index answers, and the order of answers."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


class Found(NamedTuple):
    """Candidates, best first: ``rows`` [m] of the catalogue, and the index's own ``scores`` [m]."""

    rows: Ints
    scores: Floats


NOTHING = Found(np.zeros(0, np.int64), np.zeros(0, np.float32))


def best(rows: NDArray[np.integer], scores: NDArray[np.floating], n: int, order: NDArray[np.int32]) -> Found:
    """The ``n`` highest of ``scores`` [m] with their ``rows`` [m], equal scores in the order of their ids.

    Args:
        order: Of every row of the catalogue [V], the place of its id among the sorted ids.
    """
    if n < len(scores):
        if n <= 0:
            return NOTHING
        least = np.partition(scores, len(scores) - n)[len(scores) - n]
        kept = np.flatnonzero(scores >= least)  # with every row that ties for the last place
        rows, scores = rows[kept], scores[kept]
    sequence = np.lexsort((order[rows], -scores))[:n]
    return Found(rows[sequence].astype(np.int64), scores[sequence].astype(np.float32))


def id_order(ids: "list[str]") -> NDArray[np.int32]:
    """Of every row [V], the place of its id among the sorted ids."""
    order = np.empty(len(ids), np.int32)
    order[sorted(range(len(ids)), key=ids.__getitem__)] = np.arange(len(ids), dtype=np.int32)
    return order
