"""Vectors in lists of neighbours, so that a search reads only the lists that lie near (inverted lists: Sivic and Zisserman,
"Video Google", 2003; Jegou et al., "Product Quantization for Nearest Neighbor Search", 2011)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.errors import BundleError
from models.indexes.arrays import load_array, save_array

LISTS = 2.0
"""Times the root of V are the lists: choosing among them and reading the chosen ones both grow with that root."""
READ = 64
"""Lists of mean size that a search reads."""
SAMPLE = 64
"""Vectors a list that the centres are learnt from,"""
ROUNDS = 8
"""in so many rounds of k-means."""
SEED = 1
ROWS_AT_ONCE = 8_192

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Lists:
    """L lists of V vectors [V, D], which lie list by list.

    ``centres`` [L, D]; ``offsets`` [L + 1] into the vectors; ``rows`` [V] says whose each vector is, ``places`` [V] where
    each row's lies.
    """

    centres: Floats
    offsets: Ints
    rows: NDArray[np.int32]
    places: NDArray[np.int32]

    @property
    def shape(self) -> tuple[int, int]:
        """(V, D)."""
        return len(self.rows), self.centres.shape[1]

    def scan(self, vectors: Floats, wanted: Floats) -> tuple[Ints, Floats]:
        """Rows [m] and their inner products with ``wanted`` [D]: of the lists with the nearest centres as many as hold
        ``READ`` times the mean number."""
        nearest = np.argsort(-(self.centres @ wanted), kind="stable")
        held = np.cumsum(np.diff(self.offsets)[nearest])
        count = int(np.searchsorted(held, READ * len(vectors) / len(self.centres))) + 1
        spans = [slice(self.offsets[i], self.offsets[i + 1]) for i in np.sort(nearest[:count]).tolist()]
        scores = np.concatenate([vectors[span] @ wanted for span in spans])
        return np.concatenate([self.rows[span] for span in spans]).astype(np.int64), scores

    @classmethod
    def load(cls, folder: Path) -> "Lists":
        """From the files that :func:`write_lists` wrote.

        Raises:
            BundleError: a file is missing or damaged, or they don't belong together.
        """
        lists = cls(
            load_array(folder / "centres.npy", np.float32, 2),
            load_array(folder / "offsets.npy", np.int64),
            load_array(folder / "rows.npy", np.int32),
            load_array(folder / "places.npy", np.int32),
        )
        count, ends = len(lists.rows), lists.offsets
        fits = len(ends) == len(lists.centres) + 1 and len(lists.places) == count
        if not fits or ends[0] != 0 or ends[-1] != count or (np.diff(ends) < 0).any():
            raise BundleError(f"the lists in {folder} don't fit each other")
        return lists


def write_lists(folder: Path, vectors: Floats) -> Ints:
    """Write the lists of ``vectors`` [V, D] of length 1 (or 0); returns their order, list by list [V]."""
    centres = learn_centres(vectors, max(1, round(LISTS * len(vectors) ** 0.5)))
    list_of = nearest_centre(vectors, centres)
    rows = np.argsort(list_of, kind="stable")
    places = np.empty(len(rows), np.int32)
    places[rows] = np.arange(len(rows), dtype=np.int32)
    sizes = np.bincount(list_of, minlength=len(centres))
    save_array(folder / "centres.npy", centres)
    save_array(folder / "offsets.npy", np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))
    save_array(folder / "rows.npy", rows.astype(np.int32))
    save_array(folder / "places.npy", places)
    return rows


def learn_centres(vectors: Floats, count: int) -> Floats:
    """``count`` directions [count, D] by k-means on the sphere (Dhillon and Modha, 2001), from a sample drawn alike every
    time. A centre that no vector is near stays where it is."""
    count = min(count, len(vectors))
    drawn = np.random.default_rng(SEED).choice(len(vectors), min(len(vectors), SAMPLE * count), replace=False)
    sample = vectors[drawn]
    centres = sample[:count].copy()
    for _ in range(ROUNDS):
        list_of = nearest_centre(sample, centres)
        filled, starts = np.unique(np.sort(list_of), return_index=True)
        sums = np.add.reduceat(sample[np.argsort(list_of, kind="stable")], starts)
        norms = np.linalg.norm(sums, axis=1, keepdims=True)
        centres[filled] = np.where(norms > 0, sums / np.where(norms > 0, norms, 1), centres[filled])
    return centres


def nearest_centre(vectors: Floats, centres: Floats) -> Ints:
    """The centre with the largest inner product [V]."""
    parts = range(0, len(vectors), ROWS_AT_ONCE)
    return np.concatenate([np.argmax(vectors[i : i + ROWS_AT_ONCE] @ centres.T, 1) for i in parts])
