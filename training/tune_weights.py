"""Ranking weights to look at, what each would bring, which of them none beats, and the choice by a rule. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.errors import ConfigError
from models.ranking import Ranking
from training.off_policy import Estimate, Judge, target_of
from training.off_policy_intervals import LeftOut

Floats = NDArray[np.float64]

STEPS = (0.05, 0.2, 0.8)
"""How far the near settings go: standard deviations of the weights' logarithms."""
DIGITS = 4
"""Of a weight: what is judged is what is written."""


def settings(current: Floats, count: int, seed: int) -> Floats:
    """Weights [count, K]: first the ``current`` ones, then by turns near ones (each weight times a random factor, one that
    is 0 a random part of the largest) and any direction at all. Signs stay; an objective without a weight gets none below
    0. All have the same sum of sizes, as the order depends on the direction alone."""
    rng = np.random.default_rng(seed)
    size, sign = np.abs(current), np.where(current < 0, -1.0, 1.0)
    total = size.sum() or 1.0
    found = [current]
    for number in range(count - 1):
        if number % 2 == 0:
            step = STEPS[number // 2 % len(STEPS)]
            small = np.where(size > 0, 0.0, step * rng.random(len(size)) * size.max(initial=0.0))
            weights = size * np.exp(step * rng.standard_normal(len(size))) + small
        else:
            weights = rng.dirichlet(np.full(len(size), 0.7))
        scaled = sign * weights * (total / (weights.sum() or 1.0))
        found.append(np.array([float(f"{value:.{DIGITS}g}") for value in scaled]))
    return np.array(found)


@dataclass(frozen=True)
class Judged:
    """A setting with its estimate; ``change`` is the relative difference of DR to the current weights, per objective."""

    index: int
    weights: Floats
    estimate: Estimate
    change: LeftOut | None


def judge_all(judge: Judge, ranking: Ranking, weights: Floats, share: float | None = None) -> list[Judged]:
    """Every setting on the same requests; the first is what the others are compared with."""
    found: list[Judged] = []
    for index, row in enumerate(weights):
        reweighted = ranking.reweighted(dict(zip(ranking.objectives, row.tolist(), strict=True)))
        estimate = judge.estimate(target_of(judge.slates, reweighted, share))
        base = (found[0].estimate if found else estimate).dr
        change = None if estimate.dr is None or base is None else estimate.dr.over(base)
        found.append(Judged(index, row, estimate, change))
    return found


def front(values: Floats) -> NDArray[np.bool_]:
    """Which of the points [n, A] no other beats: none is at least as good in all and better in one."""
    beaten = [np.any(np.all(values >= one, axis=1) & np.any(values > one, axis=1)) for one in values]
    return ~np.array(beaten, np.bool_)


def signs(ranking: Ranking) -> Floats:
    """Whether more of an objective is better [K]: -1 where its weight is below 0."""
    return np.where(ranking.weights < 0, -1.0, 1.0)


def choose(found: Sequence[Judged], ranking: Ranking, maximise: str, keep: Mapping[str, float]) -> int:
    """The index of the setting that surely brings most of ``maximise``: by the lower end of the interval of its change, so
    that what is little known counts little. Every objective of ``keep`` may be worse by its share at most, by the lower
    end too. The current weights are among them, with a change of 0: better known than any other.

    Raises:
        ConfigError: an unknown objective, a margin above 0, or no estimate for the current weights.
    """
    for name in (maximise, *keep):
        if name not in ranking.objectives:
            raise ConfigError(f"unknown objective {name!r}: expected one of {', '.join(ranking.objectives)}")
    for name, margin in keep.items():
        if not -1 <= margin <= 0:
            raise ConfigError(f"--keep {name}: expected a share from -1 to 0 that may be lost at most, got {margin:g}")
    if not found or found[0].change is None:
        raise ConfigError("there is no estimate for the current weights: nothing can be chosen by a rule")
    place = {name: k for k, name in enumerate(ranking.objectives)}
    best, most = 0, 0.0
    for one in found[1:]:
        if one.change is None:
            continue
        low = worst_ends(one.change, signs(ranking))
        if all(low[place[name]] >= margin for name, margin in keep.items()) and low[place[maximise]] > most:
            best, most = one.index, float(low[place[maximise]])
    return best


def worst_ends(change: LeftOut, sign: Floats) -> Floats:
    """The end of each interval that is worse, in the direction in which more is better [K]."""
    bounds = change.interval * sign
    return np.asarray(bounds.min(axis=0))
