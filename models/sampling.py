"""Which rows a pass trains on, and for which objectives."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.config_balancing import Sampling, Tasks
from models.noise import derive


class Draw(NamedTuple):
    """Rows to train on [n], and the objective that each counts for [n]; None: all whose label is known."""

    rows: NDArray[np.int64]
    objective: NDArray[np.int64] | None = None

    def part(self, start: int, stop: int) -> "Draw":
        """The rows from ``start`` up to ``stop``."""
        return Draw(self.rows[start:stop], None if self.objective is None else self.objective[start:stop])

    def targets(self, targets: NDArray[np.float32]) -> NDArray[np.float32]:
        """The rows' targets [n, K] of [*, K], NaN where they don't count."""
        mine = np.take(targets, self.rows, axis=0)
        if self.objective is None:
            return mine
        return np.where(self.objective[:, None] == np.arange(targets.shape[1]), mine, np.float32(np.nan))


def draw(
    order: NDArray[np.int64],
    targets: NDArray[np.float32],
    sampling: Sampling,
    weights: Sequence[float],
    batch_size: int,
    seed: int,
) -> Draw:
    """A pass over the rows of ``order``, batch after batch: a pure function of the arguments, as many rows either way.

    Jointly, the rows in that order. By tasks, the lecture's procedure: for each batch a mini-batch of objectives, drawn
    with the probabilities of :func:`probabilities`, and for each of these a mini-batch of its own labelled rows, an equal
    part of the batch. The draws are systematic (Madow 1949): in m draws an objective of probability p comes floor(m p) or
    ceil(m p) times, m p on average. Its rows come shuffled and none twice before all have come once.

    Args:
        targets: [*, K], NaN where masked.
        weights: loss weights [K]; an objective of weight 0 is not drawn.
    """
    if not isinstance(sampling, Tasks):
        return Draw(order)
    defined = ~np.isnan(targets[order]) & (np.asarray(weights) > 0)
    chances = probabilities(defined.sum(0), sampling)
    if not chances.any():
        return Draw(order[:0])
    objective = _objectives(len(order), batch_size, chances, sampling.draws or len(chances), seed)
    rows = np.zeros(len(order), np.int64)
    for k in np.flatnonzero(chances):
        places = np.flatnonzero(objective == k)
        rows[places] = _rounds(order[defined[:, k]], len(places), derive(seed, "rows", int(k)))
    return Draw(rows, objective)


def probabilities(labelled: NDArray[np.int64], sampling: Tasks) -> NDArray[np.float64]:
    """Of each objective to be drawn [K], from its labelled rows [K]: equal, ~ rows, or ~ rows ** (1 / temperature); 0 where
    it has none."""
    power = {"uniform": 0.0, "proportional": 1.0, "tempered": 1 / sampling.temperature}[sampling.probabilities]
    raised = np.where(labelled > 0, np.maximum(labelled, 1.0) ** power, 0.0)
    total = raised.sum()
    return raised / total if total else raised


def _objectives(n: int, batch_size: int, chances: NDArray[np.float64], draws: int, seed: int) -> NDArray[np.int64]:
    """The objective of each of n rows [n], batch after batch of ``batch_size``, the last one shorter."""
    random = np.random.default_rng(derive(seed, "objectives"))
    place = np.arange(n)
    batch, within = place // batch_size, place % batch_size
    size = np.minimum(batch_size, n - batch * batch_size)
    parts = np.minimum(draws, size)
    start = random.random(n // batch_size + 1)
    drawn = (start[batch] + within * parts // size) / parts
    ends = np.cumsum(chances)
    ends[np.flatnonzero(chances)[-1] :] = 1.0
    return np.searchsorted(ends, drawn, side="right")


def _rounds(rows: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """``count`` of ``rows`` in rounds, each a permutation of its own."""
    random = np.random.default_rng(seed)
    rounds = [random.permutation(rows) for _ in range(-(-count // len(rows)))]
    return np.concatenate([np.zeros(0, np.int64), *rounds])[:count]
