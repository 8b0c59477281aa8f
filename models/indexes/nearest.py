"""Nearest videos: those whose embeddings point where the user's history points."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.errors import BundleError
from models.indexes.arrays import load_array, save_array
from models.indexes.found import NOTHING, Found, best

APPROXIMATE_FILE = "nearest.usearch"
CONNECTIVITY = 32
"""Edges a node. On 20,000 random directions in 64 dimensions, the hardest case, 0.98 of the exact 100 nearest were found
(usearch's default of 16: 0.89); on embeddings with structure (12 latent dimensions and noise) all of them with either."""
OVERSAMPLE = 2
"""How many times the wanted number the approximate index is asked for, before exact cosines order them."""


@dataclass(frozen=True)
class NearestIndex:
    """L2-normalised embeddings [V, D], and above ``exact_up_to`` videos usearch's HNSW graph over them (Malkov and
    Yashunin, 2018)."""

    embeddings: NDArray[np.float32]
    approximate: Any  # usearch.index.Index, or None
    order: NDArray[np.int32]

    def query(self, rows: NDArray[np.int64], weights: NDArray[np.float32] | None, n: int) -> Found:
        """Up to ``n`` videos by cosine with the weighted mean of the history's embeddings; the history is left out.

        Args:
            rows: The history's rows of the catalogue [h]; unknown ones (-1) are passed over.
            weights: Of each [h]; default: equal.
        """
        known = (rows >= 0) & (rows < len(self.embeddings))
        history = rows[known]
        wanted = self.embeddings[history]
        mean = wanted.sum(0) if weights is None else weights[known].astype(np.float32) @ wanted
        norm = float(np.linalg.norm(mean))
        if n <= 0 or not norm > 1e-6:  # nothing known, or tastes that cancel out
            return NOTHING
        if self.approximate is None:
            scores = self.embeddings @ (mean / norm)
            scores[history] = -np.inf
            found = best(np.arange(len(scores)), scores, n, self.order)
            return Found(found.rows[found.scores > -np.inf], found.scores[found.scores > -np.inf])
        matches = self.approximate.search(mean / norm, OVERSAMPLE * n + len(history))
        near = np.setdiff1d(np.asarray(matches.keys, np.int64), history)
        return best(near, self.embeddings[near] @ (mean / norm), n, self.order)

    @classmethod
    def load(cls, folder: Path, order: NDArray[np.int32]) -> "NearestIndex":
        """From the files that :func:`write_nearest` wrote; the graph is viewed where it lies."""
        embeddings = load_array(folder / "embeddings.npy", np.float32, 2)
        path = folder / APPROXIMATE_FILE
        if not path.exists():
            return cls(embeddings, None, order)
        from usearch.index import Index

        try:
            graph = Index.restore(str(path), view=True)
        except (RuntimeError, ValueError, OSError) as error:
            raise BundleError(f"cannot read {path}: {error}") from None
        if graph is None or (len(graph), graph.ndim) != embeddings.shape:
            raise BundleError(f"{path} is not the graph of the {len(embeddings)} embeddings beside it")
        return cls(embeddings, graph, order)


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
    save_array(folder / "embeddings.npy", normalised)
    if len(embeddings) > exact_up_to:
        from usearch.index import Index

        graph = Index(ndim=embeddings.shape[1], metric="ip", dtype="f32", connectivity=CONNECTIVITY)
        graph.add(np.arange(len(embeddings), dtype=np.uint64), normalised, threads=1)  # one: the same graph every time
        graph.save(str(folder / APPROXIMATE_FILE))
