"""The ranking score: several predictions of a video become one number (DESIGN.md, Ranking score). Pure functions.

    s_k = y_k, or y_given * y_k for an objective that is defined given another outcome
    weighted sum:      score = sum_k w_k s_k / m_k
    weighted product:  score = prod_k (1 + max(s_k, 0) / m_k)^w_k, computed in logs

A score depends on its own row alone, never on the other candidates.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from data.config import Objective, RankingConfig
from data.errors import ConfigError
from models.calibration import Predictions

Combine = Literal["weighted_sum", "weighted_product"]

LARGEST_EXPONENT = 709.0
"""exp of more overflows a double; the order, which is made in logs, doesn't mind."""


@dataclass(frozen=True)
class Ranking:
    """Weights and scales of the objectives, in the bundle's order [K]."""

    combine: Combine
    objectives: tuple[str, ...]
    given: tuple[int | None, ...]  # index of the objective that each is defined given
    weights: NDArray[np.float64]
    means: NDArray[np.float64]

    @classmethod
    def of(cls, config: RankingConfig, objectives: Sequence[Objective], means: Mapping[str, float | None]) -> "Ranking":
        """From the configuration, checked against the bundle's objectives; an objective without a weight has 0.

        ``means`` are the objectives' means in natural units where each is defined; they stand in for reference
        means that the configuration doesn't pin. One that is unknown or not above 0 can't be a scale: then it is 1.

        Raises:
            ConfigError: a weight or mean of an unknown objective, one that is not finite, a pinned mean not above 0.
        """
        names = [objective.name for objective in objectives]
        given = [None if objective.given is None else names.index(objective.given) for objective in objectives]
        for key, values in (("weights", config.weights), ("reference_means", config.reference_means)):
            for name, value in values.items():
                if name not in names:
                    raise ConfigError(f"ranking.{key}: unknown objective {name!r}: the bundle has {', '.join(names)}")
                if not math.isfinite(value):
                    raise ConfigError(f"ranking.{key}.{name}: expected a finite number, got {value}")
                if key == "reference_means" and value <= 0:
                    raise ConfigError(f"ranking.{key}.{name}: expected a number above 0, got {value}")
        observed = [_scale(means.get(name)) for name in names]
        unpinned = [m if g is None else m * observed[g] for m, g in zip(observed, given, strict=True)]
        scales = [config.reference_means.get(name, mean) for name, mean in zip(names, unpinned, strict=True)]
        weights = [config.weights.get(name, 0.0) for name in names]
        return cls(config.combine, tuple(names), tuple(given), np.array(weights, np.float64), np.array(scales, np.float64))

    def reweighted(
        self, weights: Mapping[str, float], means: Mapping[str, float] | None = None, combine: Combine | None = None
    ) -> "Ranking":
        """With some weights replaced, and with the reference means and the way to combine that they were chosen for.

        Raises KeyError for an objective that isn't one."""
        return replace(
            self,
            weights=self._replaced(self.weights, weights),
            means=self._replaced(self.means, means or {}),
            combine=combine or self.combine,
        )

    def _replaced(self, values: NDArray[np.float64], changes: Mapping[str, float]) -> NDArray[np.float64]:
        by_name = dict(zip(self.objectives, values.tolist(), strict=True))
        if unknown := changes.keys() - by_name.keys():
            raise KeyError(min(unknown))
        return np.array(list({**by_name, **changes}.values()), np.float64)

    @property
    def unweighted(self) -> tuple[str, ...]:
        """Objectives that are trained but don't move the score: worth a warning."""
        return tuple(name for name, weight in zip(self.objectives, self.weights, strict=True) if weight == 0)


@dataclass(frozen=True)
class Combined:
    """Of n candidates. ``keys`` order them: the score, or the logarithm of a product; -inf where it isn't finite."""

    keys: NDArray[np.float64]  # [n]
    scores: NDArray[np.float64]  # [n]; NaN where not finite
    contributions: NDArray[np.float64]  # [n, K]; each row adds up to its key

    @property
    def not_finite(self) -> NDArray[np.bool_]:
        return np.asarray(self.keys == -np.inf)

    @cached_property
    def sunk(self) -> int:
        """How many aren't finite."""
        return int(np.count_nonzero(self.not_finite))


def combine(predictions: Predictions, ranking: Ranking) -> Combined:
    """From predictions [n, K] in natural units. A row with any prediction that isn't finite sinks, whatever its weight:
    a network that says NaN for one objective isn't to be trusted with the others."""
    with np.errstate(all="ignore"):
        ratios = expected(predictions, ranking.given) / ranking.means
        if ranking.combine == "weighted_product":
            ratios = np.log1p(np.maximum(ratios, 0.0))
        contributions = ratios * ranking.weights
        if not ranking.weights.all():
            contributions = np.where(ranking.weights == 0, 0.0, contributions)
        keys = contributions.sum(axis=1)
    finite = np.isfinite(predictions)
    sound = bool(finite.all()) and bool(np.isfinite(keys).all())
    if not sound:
        finite = finite.all(axis=1) & np.isfinite(keys)
        keys = np.where(finite, keys, -np.inf)
    scores = np.exp(np.minimum(keys, LARGEST_EXPONENT)) if ranking.combine == "weighted_product" else keys
    return Combined(keys, scores if sound else np.where(finite, scores, np.nan), contributions)


def expected(predictions: Predictions, given: Sequence[int | None]) -> NDArray[np.float64]:
    """s [n, K] from predictions [n, K]: p(given) E[y | given] where an objective is conditional."""
    values = predictions.astype(np.float64)
    if not any(other is not None for other in given):
        return values
    result = values.copy()
    for k, other in enumerate(given):
        if other is not None:
            result[:, k] = values[:, other] * values[:, k]
    return result


def order(keys: NDArray[np.float64], ids: Sequence[str]) -> NDArray[np.int64]:
    """Positions of the candidates, best first [n]; equal keys by video id."""
    by_key = (-keys).argsort()
    ordered = keys[by_key]
    if not (ordered[1:] == ordered[:-1]).any():
        return by_key
    by_id = np.array(sorted(range(len(ids)), key=ids.__getitem__), np.int64)
    return by_id[np.argsort(-keys[by_id], kind="stable")]


def _scale(mean: float | None) -> float:
    return mean if mean is not None and math.isfinite(mean) and mean > 0 else 1.0
