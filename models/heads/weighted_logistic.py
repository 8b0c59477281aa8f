"""Watch time as the odds of a logistic regression weighted by it (YouTube, 2016)."""

import math

import tensorflow as tf

from data.config import Objective
from data.features.targets import TargetStats

LIMITS = (-16.0, 16.0)
"""Of raw, in predictions: beyond nine million times the mean nothing is learnt, but a float would overflow."""


class WeightedLogistic:
    """exp(raw) = E[y | x] / s, in units of s, the fit days' mean: (y / s) log(1 + exp(-raw)) + c log(1 + exp(raw)).

    Covington et al., "Deep Neural Networks for YouTube Recommendations" (RecSys 2016): impressions that were watched are
    weighted by their watch time, the others by 1, and the odds at serving estimate the expected watch time.

    - ``negatives = "others"`` is the paper's: c = 1 where y = 0, else 0. The odds that fit best are E[y | x] /
      P(y = 0 | x): too large by 1 / P(y = 0 | x), which is little only where few impressions are watched, and without
      limit where all are, as under ``given``.
    - ``negatives = "all"`` (default): c = 1 on every row. The odds that fit best are E[y | x], whatever the population.

    Negative targets count as 0. Dividing by s keeps the two terms alike in size; it moves raw by a constant.
    """

    def __init__(self, objective: Objective, stats: TargetStats) -> None:
        self._all = objective.negatives == "all"
        self._scale = stats.natural_mean if stats.natural_mean > 0 else 1.0
        odds = stats.natural_mean / self._scale / (1.0 if self._all else max(1 - stats.positive, 1e-3))
        self.start = (math.log(odds) if odds > 0 else 0.0,)

    def row_losses(self, raw: tf.Tensor, target: tf.Tensor, group: tf.Tensor | None) -> tf.Tensor:
        logit, watched = raw[:, 0], tf.maximum(target, 0.0)
        negative = tf.nn.softplus(logit)
        if not self._all:
            negative = tf.where(watched > 0, 0.0, negative)
        return watched / self._scale * tf.nn.softplus(-logit) + negative

    def to_natural(self, raw: tf.Tensor, group: tf.Tensor | None) -> tf.Tensor:
        return self._scale * tf.exp(tf.clip_by_value(raw[:, 0], *LIMITS))
