"""Co-watch: videos that the same users watched soon before or after the query video, beyond what chance explains."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.indexes.arrays import load_array, save_array
from models.indexes.found import NOTHING, Found

LISTED = 200
"""Videos kept per video."""
SHRINKAGE = 10.0
"""How many expected pairs the prior is worth. Recall as in :mod:`models.indexes.pairs`: 0.119 with 0.3, 0.127 with 1, 0.133
with 3, 0.137 with 10, 0.138 with 30."""


@dataclass(frozen=True)
class CoWatchIndex:
    """Of each video [V] its co-watched videos with their lifts, the highest first."""

    offsets: NDArray[np.int64]  # [V + 1]
    videos: NDArray[np.int32]
    scores: NDArray[np.float32]
    order: NDArray[np.int32]

    def query(self, row: int, n: int) -> Found:
        """Up to ``n`` candidates for the video in ``row``; none for an unknown one (-1)."""
        if n <= 0 or not 0 <= row < len(self.order):
            return NOTHING
        span = slice(self.offsets[row], min(self.offsets[row + 1], self.offsets[row] + n))
        return Found(self.videos[span].astype(np.int64), np.asarray(self.scores[span]))

    @classmethod
    def load(cls, folder: Path, order: NDArray[np.int32]) -> "CoWatchIndex":
        """From the files that :func:`write_co_watch` wrote."""
        return cls(
            load_array(folder / "offsets.npy", np.int64),
            load_array(folder / "videos.npy", np.int32),
            load_array(folder / "scores.npy", np.float32),
            order,
        )


def write_co_watch(
    folder: Path,
    left: NDArray[np.int64],
    right: NDArray[np.int64],
    counts: NDArray[np.float64],
    expected: NDArray[np.float64],
    order: NDArray[np.int32],
) -> None:
    """Write the index of unordered pairs [p] of catalogue rows, each with its count and the count that chance expects."""
    scores = lift(counts, expected)
    first, second, scores = np.concatenate([left, right]), np.concatenate([right, left]), np.concatenate([scores, scores])
    sequence = np.lexsort((order[second], -scores, first))
    sizes = np.bincount(first, minlength=len(order))
    place = np.arange(len(first)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    kept = sequence[place < LISTED]
    save_array(folder / "offsets.npy", np.concatenate([[0], np.cumsum(np.minimum(sizes, LISTED))]).astype(np.int64))
    save_array(folder / "videos.npy", second[kept].astype(np.int32))
    save_array(folder / "scores.npy", scores[kept])


def lift(counts: NDArray[np.float64], expected: NDArray[np.float64]) -> NDArray[np.float32]:
    """Observed over expected, shrunk to 1: (c + s) / (e + s).

    The posterior mean of a Poisson rate's ratio to e under a Gamma(s, s) prior (DuMouchel, The American Statistician
    1999): without it, pairs of two rare videos seen together once would stand first everywhere.
    """
    return np.asarray((counts + SHRINKAGE) / (expected + SHRINKAGE), np.float32)
