"""What an experiment is judged by: totals by user first, then ratios of totals, all as numerator over denominator."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.experiment_effects import Outcome
from training.experiment_frame import Floats, UserDays

USERS = "users"
"""The denominator of a total by user: each user who has entered counts 1."""


@dataclass(frozen=True)
class Metric:
    """The sum of ``numerator`` over the sum of ``denominator``, both over an arm's users. ``better`` is -1 where less is."""

    name: str
    numerator: str
    denominator: str = USERS
    better: int = 1
    unit: str = ""

    @property
    def is_total(self) -> bool:
        return self.denominator == USERS


WATCH_TIME = Metric("watch time by user", "watch_time", unit="s")
METRICS: Sequence[Metric] = (
    WATCH_TIME,
    Metric("impressions by user", "impressions"),
    Metric("active days by user", "active_days"),
    Metric("click rate", "click", "click_seen"),
    Metric("watch time by impression", "watch_time", "impressions", unit="s"),
    Metric("like rate", "like", "like_seen"),
    Metric("dismissal rate", "dismiss", "dismiss_seen", better=-1),
)
"""``<label>_seen`` counts the impressions in which the outcome could be observed."""


def metrics_of(frame: UserDays) -> list[Metric]:
    """The metrics whose columns are there."""
    there = {USERS, *frame.columns}
    return [metric for metric in METRICS if {metric.numerator, metric.denominator} <= there]


def outcome(frame: UserDays, metric: Metric, adjust: bool) -> Outcome:
    """A metric of every user at every look, and, to ``adjust`` by, the same of the days before."""
    top = frame.cumulative(metric.numerator)
    bottom = frame.entered.astype(np.float64) if metric.is_total else frame.cumulative(metric.denominator)
    return Outcome(top, bottom, frame.entered, history(frame, metric) if adjust else np.zeros((len(frame), 0)))


def history(frame: UserDays, metric: Metric) -> Floats:
    """[n, 2] what each user did before, and whether there was anything; [n, 0] where nobody did."""
    top, seen = frame.before(metric.numerator), frame.before("impressions") > 0
    if not seen.any():
        return np.zeros((len(frame), 0))
    return covariates(top, None if metric.is_total else frame.before(metric.denominator), seen.astype(np.float64))


def covariates(top: Floats, bottom: Floats | None, seen: Floats) -> Floats:
    """[n, 2]: a total as it is, a ratio R linearised as ``top - R bottom``; and whether the user was seen at all."""
    if bottom is not None:
        total = bottom.sum()
        top = top - (top.sum() / total if total else 0.0) * bottom
    return np.stack([top, seen], axis=1)
