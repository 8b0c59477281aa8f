"""The sample-ratio check: do the arms have the users that their shares promise? If not, nothing else can be believed.

chi^2 = sum_k (n_k - N p_k)^2 / (N p_k) over the users who have entered by each day (Fabijan et al., KDD 2019). Looked at
daily it has a boundary of its own, spent as the intervals' is (training/experiment_sequential.py): users enter once, so
between looks the counts are a random walk, whose law under the promised shares needs no estimate.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2

from training.experiment_frame import Bools, Floats, Ints
from training.experiment_sequential import DRAWS, boundaries, spending, standard_normal

LEVEL = 0.01


@dataclass(frozen=True)
class SampleRatio:
    users: Ints  # [K, L] of each arm by each look
    expected: Floats  # [K, L]
    statistic: Floats  # [L] chi^2; NaN before anybody has entered
    p_value: Floats  # [L] of that look alone
    bounds: Floats  # [L] of the statistic

    @property
    def failed_at(self) -> int | None:
        """The first look that crossed its bound."""
        crossings = np.flatnonzero(self.statistic >= self.bounds)
        return int(crossings[0]) if len(crossings) else None

    @property
    def failed(self) -> bool:
        return self.failed_at is not None


def sample_ratio(
    entered: Bools, arm: Ints, shares: Sequence[float], planned: int, level: float = LEVEL, draws: int = DRAWS
) -> SampleRatio:
    """Of users [n] in arms ``0..K - 1`` of these shares, who had ``entered`` [n, L] by each of L looks of ``planned``."""
    users = np.stack([entered[arm == k].sum(axis=0) for k in range(len(shares))])
    part = np.array(shares) / sum(shares)
    everyone = users.sum(axis=0)
    expected = part[:, None] * everyone
    with np.errstate(invalid="ignore"):
        statistic = ((users - expected) ** 2 / expected).sum(axis=0)
    p_value = np.asarray(chi2.sf(statistic, len(shares) - 1))
    bounds = _bounds(everyone, len(shares) - 1, spending(level, np.arange(len(everyone)), planned), draws)
    return SampleRatio(users, expected, statistic, p_value, bounds)


def _bounds(everyone: Ints, freedom: int, spent: Floats, draws: int) -> Floats:
    """Bounds [L] from random walks in as many dimensions as there are degrees of freedom."""
    looks = len(everyone)
    steps = np.sqrt(np.diff(everyone, prepend=0)).astype(np.float32)[:, None]
    reached = np.sqrt(np.maximum(everyone, 1)).astype(np.float32)[:, None]
    normal = standard_normal(looks * freedom, draws).reshape(looks, freedom, draws)
    walks = (np.cumsum(normal[:, k] * steps, axis=0) / reached for k in range(freedom))
    return boundaries(np.asarray(sum(walk**2 for walk in walks)), spent)
