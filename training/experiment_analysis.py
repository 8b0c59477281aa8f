"""An experiment's differences: every metric, every treatment against the control, at every look, in one function."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from training.experiment_effects import Difference, Levels, Outcome, difference, levels, relative
from training.experiment_frame import Floats, Ints, UserDays
from training.experiment_metrics import Metric, metrics_of, outcome
from training.experiment_sequential import DRAWS, LEVEL, boundaries, paths, spending

LEAST_USERS = 50
"""Users that each arm must have before a day is a look: with fewer, sums are far from normal."""

Bounds = tuple[float, float]


@dataclass(frozen=True)
class Plan:
    """What was decided beforehand. ``level`` is shared equally among the treatments."""

    shares: Sequence[float]  # [K]
    control: int
    planned: int  # D: days
    level: float = LEVEL
    draws: int = DRAWS

    @property
    def treatments(self) -> list[int]:
        return [k for k in range(len(self.shares)) if k != self.control]

    @property
    def level_each(self) -> float:
        return self.level / len(self.treatments)


@dataclass(frozen=True)
class Effect:
    """A treatment against the control in one metric, at S looks."""

    metric: Metric
    treatment: int
    looks: Ints  # [S] their days, from 0
    of: Difference
    treated: Floats  # [S] the treatment's level
    bounds: Floats  # [S] c of the intervals that may be looked at daily
    fixed: float  # the same of one look alone
    adjusted: bool
    narrowed: float | None  # 1 - variance with history / variance without, at the last look

    def interval(self, look: int, daily: bool = True) -> Bounds | None:
        """Of the difference at look ``look`` [of S]; None where nothing may be spent yet."""
        half = (self.bounds[look] if daily else self.fixed) * self.of.error[look]
        return (float(self.of.delta[look] - half), float(self.of.delta[look] + half)) if np.isfinite(half) else None

    def relative_interval(self, look: int, daily: bool = True) -> Bounds | None:
        """The same in parts of the control's level."""
        return relative(self.of, look, float(self.bounds[look]) if daily else self.fixed)

    @property
    def statistics(self) -> Floats:
        """[S] differences in standard errors."""
        return np.asarray(self.of.delta / self.of.error)

    @property
    def p_value(self) -> float:
        """Of the last look, as if it had been the only one."""
        return float(2 * norm.sf(abs(self.statistics[-1])))

    @property
    def found_at(self) -> int | None:
        """The first day on which the daily interval leaves out 0."""
        crossings = np.flatnonzero(np.abs(self.statistics) >= self.bounds)
        return int(self.looks[crossings[0]]) if len(crossings) else None

    @property
    def found_fixed(self) -> bool:
        """Whether the last look's interval leaves out 0, as if it had been the only one."""
        return bool(abs(self.statistics[-1]) >= self.fixed)


@dataclass(frozen=True)
class MetricResult:
    """``of`` at all looks; ``effects`` of the treatments that have any look, in order."""

    metric: Metric
    of: Levels
    effects: Sequence[Effect]


def analyse(frame: UserDays, plan: Plan, adjust: bool = True, metrics: Sequence[Metric] | None = None) -> list[MetricResult]:
    """All metrics that the frame has. ``adjust``: for what the users did before (CUPED)."""
    chosen = metrics_of(frame) if metrics is None else metrics
    return [measure(metric, outcome(frame, metric, adjust), frame.arm, plan) for metric in chosen]


def measure(metric: Metric, of_users: Outcome, arm: Ints, plan: Plan) -> MetricResult:
    found = levels(of_users, arm, len(plan.shares))
    effects = [effect for k in plan.treatments if (effect := compare(metric, of_users, found, k, plan)) is not None]
    return MetricResult(metric, found, effects)


def compare(metric: Metric, of_users: Outcome, found: Levels, treatment: int, plan: Plan) -> Effect | None:
    """None where no day is a look: too few users, or none that differ."""
    whole = difference(found, treatment, plan.control)
    enough = found.users[[treatment, plan.control]].min(axis=0) >= LEAST_USERS
    looks = np.flatnonzero(enough & (whole.error > 0) & np.isfinite(whole.error))
    if not len(looks):
        return None
    of = _at(whole, looks)
    bounds = boundaries(np.abs(paths(of.covariance, plan.draws)), spending(plan.level_each, looks, plan.planned))
    adjusted = of_users.history.shape[1] > 0
    narrowed = _narrowed(of_users, found, (treatment, plan.control), int(looks[-1]), of) if adjusted else None
    fixed = float(norm.isf(plan.level_each / 2))
    return Effect(metric, treatment, looks, of, found.level[treatment][looks], bounds, fixed, adjusted, narrowed)


def _at(whole: Difference, looks: NDArray[np.int64]) -> Difference:
    return Difference(
        whole.delta[looks],
        whole.covariance[np.ix_(looks, looks)],
        whole.level[looks],
        whole.level_variance[looks],
        whole.level_covariance[looks],
    )


def _narrowed(of_users: Outcome, found: Levels, arms: tuple[int, int], look: int, of: Difference) -> float | None:
    """What the history took off the variance of the last look's difference."""
    variance = 0.0
    for k in arms:
        members = found.members[k]
        bottom = of_users.bottom[members, look]
        spread = of_users.top[members, look] - found.plain[k, look] * bottom
        variance += float((spread**2).sum() / bottom.sum() ** 2)
    return 1 - float(of.covariance[-1, -1]) / variance if variance > 0 else None
