"""Fresh and trending: what is liked now, and a share of the newest that hardly anyone has been shown."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.indexes.arrays import load_array, save_array
from models.indexes.found import NOTHING, Found, best
from models.indexes.popularity import DAY_MS

LISTED = 2_000
"""Videos kept of each kind."""
FRESH_SHARE = 0.3
"""Share of an answer given to fresh videos, as long as there are any."""
FRESH_DAYS = 7
"""How long after its first appearance a video counts as fresh,"""
FRESH_IMPRESSIONS = 100
"""and up to how many impressions."""
UNKNOWN_TIME = np.iinfo(np.int64).min
"""The first appearance of a video that may have been there before the log begins."""


@dataclass(frozen=True)
class TrendingIndex:
    """Two lists: videos by popularity with a half-life of a day, and fresh videos, the newest first."""

    trending: NDArray[np.int32]
    fresh: NDArray[np.int32]
    fresh_since: NDArray[np.int64]  # ms; when each fresh video appeared
    scores: NDArray[np.float32]  # [V] popularity

    def query(self, n: int, now: int) -> Found:
        """``n`` videos: the two lists interleaved, so that every beginning has its share of fresh ones.

        What appears after ``now`` (ms) or appeared more than ``FRESH_DAYS`` before is not fresh. Scores are
        popularities; the order is that of the interleaving.
        """
        young = (self.fresh_since <= now) & (self.fresh_since > now - FRESH_DAYS * DAY_MS)
        fresh = self.fresh[young][:n]
        trending = self.trending[: n + len(fresh)]
        trending = trending[~np.isin(trending, fresh)]
        # The i-th fresh video stands where the share of fresh ones would otherwise fall behind.
        places = np.concatenate(
            [(np.arange(len(fresh)) + 1) / FRESH_SHARE, (np.arange(len(trending)) + 1) / (1 - FRESH_SHARE)]
        )
        rows = np.concatenate([fresh, trending])[np.argsort(places, kind="stable")][: max(n, 0)].astype(np.int64)
        return Found(rows, self.scores[rows]) if len(rows) else NOTHING

    @classmethod
    def load(cls, folder: Path) -> "TrendingIndex":
        """From the files that :func:`write_trending` wrote."""
        return cls(
            load_array(folder / "trending.npy", np.int32),
            load_array(folder / "fresh.npy", np.int32),
            load_array(folder / "fresh_since.npy", np.int64),
            load_array(folder / "scores.npy", np.float32),
        )


def write_trending(
    folder: Path,
    popularity: NDArray[np.float32],
    impressions: NDArray[np.int64],
    since: NDArray[np.int64],
    order: NDArray[np.int32],
) -> None:
    """Write the index, from each video's popularity [V], impressions so far [V] and first appearance [V] (ms)."""
    shown = np.flatnonzero(impressions > 0)
    fresh = np.flatnonzero((since != UNKNOWN_TIME) & (impressions <= FRESH_IMPRESSIONS))
    fresh = fresh[np.lexsort((order[fresh], -since[fresh]))][:LISTED]
    save_array(folder / "trending.npy", best(shown, popularity[shown], LISTED, order).rows.astype(np.int32))
    save_array(folder / "fresh.npy", fresh.astype(np.int32))
    save_array(folder / "fresh_since.npy", since[fresh].astype(np.int64))
    save_array(folder / "scores.npy", popularity.astype(np.float32))
