"""The default head of a regression: squared error or Huber on a standardised, perhaps logarithmic, scale."""

import tensorflow as tf

from data.config import Objective
from data.features.targets import TargetStats

HUBER_DELTA = 1.0
"""In standard deviations of the transformed target."""


class Value:
    """On z = (t(y) - mean) / std and d = raw - z: squared_error d^2; huber d^2 / 2 where |d| <= 1, else |d| - 1/2.

    t(y) = log(1 + max(y, 0)) or y. The prediction is t^-1(raw * std + mean), at least 0 where logarithmic: there it is
    nearer the median than the mean of what is skewed, and the predictions add up to less than the targets do.
    """

    start = (0.0,)

    def __init__(self, objective: Objective, stats: TargetStats) -> None:
        self._log, self._huber = objective.transform == "log", objective.loss == "huber"
        self._stats = stats

    def row_losses(self, raw: tf.Tensor, target: tf.Tensor, group: tf.Tensor | None) -> tf.Tensor:
        difference = raw[:, 0] - self.standardise(target)
        if self._huber:
            size = tf.abs(difference)
            return tf.where(size <= HUBER_DELTA, 0.5 * difference**2, HUBER_DELTA * (size - 0.5 * HUBER_DELTA))
        return tf.square(difference)

    def to_natural(self, raw: tf.Tensor, group: tf.Tensor | None) -> tf.Tensor:
        value = raw[:, 0] * self._stats.std + self._stats.mean
        return tf.maximum(tf.exp(value) - 1, 0.0) if self._log else value

    def standardise(self, target: tf.Tensor) -> tf.Tensor:
        moved = tf.math.log1p(tf.maximum(target, 0.0)) if self._log else target
        return (moved - self._stats.mean) / self._stats.std
