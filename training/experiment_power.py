"""The power of an experiment, announced from days before it by the analysis that will judge it.

The last days of the log are taken as the experiment's, and the days before them as its history, with one arm of all
users: what each user then moves a metric by, at every look, tells the variances, the correlations between looks and
what the history takes off. With n users planned in an arm in place of the log's N, covariances are N / n times those;
the arms' add up. The power for a relative effect e is the share of normal paths with drift e R_d / error_d that cross the
boundary, looked at daily; or at the end alone.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

from training.experiment_analysis import LEAST_USERS, Plan
from training.experiment_effects import Outcome, levels
from training.experiment_frame import Floats, Ints
from training.experiment_metrics import Metric
from training.experiment_sequential import Paths, boundaries, crossed, paths, spending

WANTED = 0.8


@dataclass(frozen=True)
class Power:
    """Of one metric and one treatment against the control."""

    metric: Metric
    level: float  # of the metric after all planned days
    error: float  # relative standard error of the difference after all planned days
    drift: Floats  # [S] what a relative effect of 1 is in standard errors at each look
    normal: Paths  # [S, draws]
    bounds: Floats  # [S]
    fixed: float

    def daily(self, effect: float) -> float:
        """The probability that a relative ``effect`` is found on some day."""
        return crossed(np.abs(self.normal + (effect * self.drift).astype(np.float32)[:, None]), self.bounds)

    def at_end(self, effect: float) -> float:
        """The probability that it is found by one look after the last day."""
        shift = effect * float(self.drift[-1])
        return float(norm.sf(self.fixed - shift) + norm.cdf(-self.fixed - shift))

    def least_effect(self, wanted: float = WANTED) -> float:
        """The minimum detectable effect, relative: that which is found on some day with probability ``wanted``."""
        high = 1.0 / float(self.drift[-1])
        while self.daily(high) < wanted:
            high *= 2
        return float(brentq(lambda effect: self.daily(effect) - wanted, 0.0, high, xtol=high * 1e-4))


def announce(metric: Metric, of_users: Outcome, users: Floats, plan: Plan, treatment: int) -> Power | None:
    """The power of a ``plan`` with ``users`` [K] in its arms, from outcomes of N users over days as many as planned.

    None where the metric doesn't vary or the log has too few users.
    """
    everyone: Ints = np.zeros(len(of_users.top), np.int64)
    found = levels(of_users, everyone, 1)
    count = found.users[0, -1]
    moves, level = found.moves[0], found.level[0]
    with np.errstate(invalid="ignore"):
        covariance = moves.T @ moves * (count / users[treatment] + count / users[plan.control])
    share = min(users[treatment], users[plan.control]) / count
    looks = np.flatnonzero((found.users[0] * share >= LEAST_USERS) & (np.diag(covariance) > 0) & (level > 0))
    if not len(looks):
        return None
    covariance = covariance[np.ix_(looks, looks)]
    error, normal = np.sqrt(np.diag(covariance)), paths(covariance, plan.draws)
    bounds = boundaries(np.abs(normal), spending(plan.level_each, looks, plan.planned))
    return Power(
        metric=metric,
        level=float(level[looks[-1]]),
        error=float(error[-1] / level[looks[-1]]),
        drift=level[looks] / error,
        normal=normal,
        bounds=bounds,
        fixed=float(norm.isf(plan.level_each / 2)),
    )
