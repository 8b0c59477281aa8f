"""What is fitted of each objective's targets, on the fit days, and kept until a full retrain."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.config import Objective

LEVELS = 101
"""Points of a group's quantile function, from level 0 to level 1."""
LEAST_OF_GROUP = 50
"""Targets below which a group has the pooled quantiles."""
TAIL = 2.0
"""How much finer the discretised head's thresholds are towards the long watches (:func:`_thresholds`)."""
_UNKNOWN = np.expm1(np.linspace(0.0, np.log1p(3600.0), LEVELS))
"""Stands in for the quantiles of targets where there are none: from nothing to an hour, evenly on a log scale."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class TargetStats:
    """Of a binary objective: the base rate. Of a regression: mean and std of the transformed target. Then what the
    objective's head asks for, in natural units, negative targets as 0:

    - weighted_logistic: ``natural_mean``, and ``positive`` = P(y > 0).
    - duration_quantile: ``grid`` [groups, LEVELS], a row for each bucket row of the duration feature, of the quantiles at
      evenly spaced levels; of a group with fewer than LEAST_OF_GROUP targets, and of the rows of the unseen and of null,
      those of all targets.
    - discretised: ``thresholds`` t [M], increasing; ``above`` = P(y > t_m) [M]; ``means`` [M + 1] of the targets up to t_1,
      between t_m and t_m+1, and above t_M.
    """

    mean: float
    std: float
    count: int
    natural_mean: float = 0.0
    positive: float = 0.0
    grid: tuple[tuple[float, ...], ...] = ()
    thresholds: tuple[float, ...] = ()
    above: tuple[float, ...] = ()
    means: tuple[float, ...] = ()

    @classmethod
    def fit(
        cls, objective: Objective, values: NDArray[np.float32], groups: NDArray[np.int32] | None = None, count: int = 0
    ) -> "TargetStats":
        """From targets [n] in natural units, NaN masked. Without any: mean 0 (binary: 0.5), std 1, count 0.

        Args:
            groups: for a duration_quantile head, each row's bucket row [n].
            count: and how many such rows there are.
        """
        here = ~np.isnan(values)
        known = values[here].astype(np.float64)
        fitted = _fit_head(objective, np.maximum(known, 0), None if groups is None else groups[here], count)
        if not len(known):
            return cls(0.5 if objective.kind == "binary" else 0.0, 1.0, 0, **fitted)
        if objective.kind == "regression":
            known = transform(objective, known)
        std = float(known.std())
        return cls(float(known.mean()), std if std > 0 else 1.0, len(known), **fitted)

    def facts(self) -> dict[str, Any]:
        """JSON-ready; what the head has not asked for is left out."""
        return {name: value for name, value in vars(self).items() if name in ("mean", "std", "count") or value}

    @classmethod
    def of(cls, facts: dict[str, Any]) -> "TargetStats":
        """What :meth:`facts` gave, read back from JSON."""
        lists = {name: tuple(value) for name, value in facts.items() if isinstance(value, list)}
        if "grid" in lists:
            lists["grid"] = tuple(tuple(row) for row in lists["grid"])
        return cls(**{**facts, **lists})


def transform(objective: Objective, values: Floats) -> Floats:
    """A regression's label before it is standardised: log(1 + y), negative ones as 0; or as it is."""
    return np.log1p(np.maximum(values, 0)) if objective.transform == "log" else values


def _fit_head(objective: Objective, known: Floats, groups: NDArray[np.int32] | None, count: int) -> dict[str, Any]:
    match objective.head:
        case "value":
            return {}
        case "weighted_logistic":
            return {"natural_mean": float(known.mean()), "positive": float((known > 0).mean())} if len(known) else {}
        case "duration_quantile":
            assert groups is not None
            return {"grid": tuple(_floats(row) for row in _grid(known, groups, count))}
        case "discretised":
            return _bins(known, objective.bins)


def _grid(known: Floats, groups: NDArray[np.int32], count: int) -> list[Floats]:
    """The quantiles of each group, the pooled ones where it has too few targets."""
    levels = np.linspace(0, 1, LEVELS)
    pooled = np.quantile(known, levels) if len(known) else _UNKNOWN
    grid = [pooled] * max(count, 1)
    for group in np.unique(groups).tolist():
        own = known[groups == group]
        if group > 1 and len(own) >= LEAST_OF_GROUP:
            grid[group] = np.quantile(own, levels)
    return grid


def _bins(known: Floats, bins: int) -> dict[str, Any]:
    values = known if len(known) else _UNKNOWN
    thresholds = _thresholds(values, bins)
    place = np.searchsorted(thresholds, values, side="left")  # a target equal to a threshold is not above it
    rows = np.bincount(place, minlength=len(thresholds) + 1)
    sums = np.bincount(place, values, len(thresholds) + 1)
    empty = np.concatenate([thresholds[:1], thresholds])  # a bin without targets restores to its lower threshold
    means = np.where(rows > 0, sums / np.maximum(rows, 1), empty)
    above = np.cumsum(rows[::-1])[::-1][1:] / len(values)
    return {"thresholds": _floats(thresholds), "above": _floats(above), "means": _floats(means)}


def _thresholds(values: Floats, bins: int) -> Floats:
    """At the quantile levels (1 - exp(-a z)) / (1 - exp(-a)), z = 1/bins .. 1 - 1/bins, a = TAIL, each value once and none
    that nothing is above: between equal shares (a = 0) and equal widths of a skewed target (CREAD's error-adaptive
    discretisation, Sun et al., AAAI 2024)."""
    z = np.arange(1, bins) / bins
    levels = np.expm1(-TAIL * z) / np.expm1(-TAIL)
    found = np.unique(np.quantile(values, levels, method="inverted_cdf"))
    inside = found[found < values.max()]
    return inside if len(inside) else found[:1]


def _floats(values: Floats) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
