"""Watch time as its quantile among videos of like duration (D2Q)."""

import numpy as np
import tensorflow as tf

from data.features.targets import LEVELS, TargetStats
from models.heads.logit import logit

UNIT = 12.0
"""One over a uniform variable's variance: the loss of always predicting the mean is 1, as it is of the default head."""


class DurationQuantile:
    """q = F_g(y), the share of the fit days' watches of the row's duration group g below y; the loss is
    12 (sigmoid(raw) - q)^2, the prediction F_g^-1(sigmoid(raw)).

    Zhan et al., "Deconfounding Duration Bias in Watch-time Prediction for Video Recommendation" (KDD 2022): duration both
    shapes the watch time and decides what is shown; within a group of like duration the quantile says how much more a
    video was watched than others of its length. Groups are the buckets of the duration feature, which the serving graph
    sees too. F_g is linear between LEVELS quantiles; of equal targets (all that were not watched at all) q is the middle
    of their quantiles. The quantile of a mean is no mean: of skewed watch time the predictions add up to too little.
    """

    def __init__(self, stats: TargetStats) -> None:
        self._grid = np.asarray(stats.grid, np.float32)  # [groups, LEVELS]
        self.start = (_start(self._grid[0]),)

    def row_losses(self, raw: tf.Tensor, target: tf.Tensor, group: tf.Tensor | None) -> tf.Tensor:
        return UNIT * tf.square(tf.sigmoid(raw[:, 0]) - self.quantile(target, group))

    def to_natural(self, raw: tf.Tensor, group: tf.Tensor | None) -> tf.Tensor:
        return self.value(tf.sigmoid(raw[:, 0]), group)

    def quantile(self, target: tf.Tensor, group: tf.Tensor | None) -> tf.Tensor:
        """F_g(y) [n] in [0, 1]."""
        points = tf.gather(tf.constant(self._grid), self._row(group))
        y = tf.clip_by_value(target[:, None], points[:, :1], points[:, -1:])
        below = tf.reduce_sum(tf.cast(points < y, tf.int32), 1)
        upto = tf.reduce_sum(tf.cast(points <= y, tf.int32), 1)
        before, after = (tf.gather(points, i, batch_dims=1) for i in (tf.maximum(upto - 1, 0), tf.minimum(upto, LEVELS - 1)))
        between = tf.math.divide_no_nan(y[:, 0] - before, after - before)
        middle = tf.cast(below + upto - 1, tf.float32) / 2  # of the points equal to y
        place = tf.where(upto > below, middle, tf.cast(upto - 1, tf.float32) + between)
        return place / (LEVELS - 1)

    def value(self, quantile: tf.Tensor, group: tf.Tensor | None) -> tf.Tensor:
        """F_g^-1(q) [n] in natural units."""
        place = quantile * (LEVELS - 1)
        low = tf.minimum(tf.cast(place, tf.int32), LEVELS - 2)
        flat, first = tf.constant(self._grid.ravel()), self._row(group) * LEVELS + low
        left, right = tf.gather(flat, first), tf.gather(flat, first + 1)
        return left + (place - tf.cast(low, tf.float32)) * (right - left)

    def _row(self, group: tf.Tensor | None) -> tf.Tensor:
        """The group's row of the grid; a bucket that the grid has not is the unknown one's, row 0."""
        assert group is not None
        return tf.where(group < len(self._grid), tf.maximum(group, 0), 0)


def _start(pooled: "np.ndarray[tuple[int], np.dtype[np.float32]]") -> float:
    """The logit of the pooled mean's quantile."""
    mean = float(np.trapezoid(pooled)) / (LEVELS - 1)
    return logit(float(np.interp(mean, pooled, np.linspace(0, 1, LEVELS))))
