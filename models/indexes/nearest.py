"""Nearest videos: those whose embeddings point where the user's history points."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.errors import BundleError
from models.indexes.arrays import load_array, save_array
from models.indexes.found import NOTHING, Found, best
from models.indexes.lists import Lists, write_lists


@dataclass(frozen=True)
class NearestIndex:
    """L2-normalised embeddings [V, D], and above ``exact_up_to`` videos the lists in whose order they lie."""

    embeddings: NDArray[np.float32]
    lists: Lists | None
    order: NDArray[np.int32]

    def query(self, rows: NDArray[np.int64], weights: NDArray[np.float32] | None, n: int) -> Found:
        """Up to ``n`` videos by cosine with the weighted mean of the history's embeddings; the history is left out.

        Args:
            rows: The history's rows of the catalogue [h]; unknown ones (-1) are passed over.
            weights: Of each [h]; default: equal.
        """
        known = (rows >= 0) & (rows < len(self.embeddings))
        history = rows[known]
        wanted = self.embeddings[history if self.lists is None else self.lists.places[history]]
        mean = wanted.sum(0) if weights is None else weights[known].astype(np.float32) @ wanted
        norm = float(np.linalg.norm(mean))
        if n <= 0 or not norm > 1e-6:  # nothing known, or tastes that cancel out
            return NOTHING
        if self.lists is None:
            near, scores = np.arange(len(self.embeddings)), self.embeddings @ (mean / norm)
        else:
            near, scores = self.lists.scan(self.embeddings, mean / norm)
        found = best(near, scores, n + len(history), self.order)
        others = ~np.isin(found.rows, history)
        return Found(found.rows[others][:n], found.scores[others][:n])

    @classmethod
    def load(cls, folder: Path, order: NDArray[np.int32]) -> "NearestIndex":
        """From the files that :func:`write_nearest` wrote."""
        embeddings = load_array(folder / "embeddings.npy", np.float32, 2)
        path = folder / "lists"
        if not path.is_dir():
            return cls(embeddings, None, order)
        lists = Lists.load(path)
        if lists.shape != embeddings.shape:
            raise BundleError(f"{path} are not the lists of the {len(embeddings)} embeddings beside it")
        return cls(embeddings, lists, order)


def write_nearest(folder: Path, embeddings: NDArray[np.float32], exact_up_to: int) -> None:
    """Write the index of ``embeddings`` [V, D], in row order; a zero one stays zero.

    Raises:
        BundleError: an embedding is not finite.
    """
    bad = np.flatnonzero(~np.isfinite(embeddings).all(1))
    if len(bad):
        raise BundleError(f"the embedding of video row {bad[0]} is not finite, and {len(bad) - 1} others")
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    normalised = (embeddings / np.where(norms > 0, norms, 1)).astype(np.float32)
    if len(embeddings) > exact_up_to:
        normalised = normalised[write_lists(folder / "lists", normalised)]
    save_array(folder / "embeddings.npy", normalised)
