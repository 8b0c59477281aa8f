"""Watch time as classifiers over thresholds, restored as an expectation (CREAD)."""

import numpy as np
import tensorflow as tf

from data.config import Objective
from data.features.targets import TargetStats
from models.heads.logit import logit
from models.heads.value import HUBER_DELTA


class Discretised:
    """M outputs, p_m = P(y > t_m | x) = sigmoid(raw_m), and the prediction m_0 + sum_m p_m (m_m - m_m-1).

    Sun et al., "CREAD: A Classification-Restoration Framework with Error Adaptive Discretization for Watch Time
    Prediction" (AAAI 2024): the thresholds lie closer where errors cost more. Chosen over TPM's tree (Lin et al., KDD
    2023) for one matrix product and a sum in the serving graph, where a tree multiplies along paths of classifiers that
    see ever fewer rows. Unlike the paper, which adds up the widths of the bins, the prediction adds up what the bins hold on
    average on the fit days (m_0 up to t_1, ..., m_M above t_M): right on average where the p_m are, however wide the bins.

    The loss is the mean cross-entropy of 1[y > t_m], and ``restoration`` times the Huber loss of the prediction's error in
    standard deviations of the target between bins. P(y > t) can only fall in t: where the p_m don't, the prediction takes
    the middle of the greatest such sequence below them and the least above.
    """

    def __init__(self, objective: Objective, stats: TargetStats) -> None:
        self._thresholds = np.asarray(stats.thresholds, np.float32)  # [M]
        means, above = np.asarray(stats.means), np.asarray([1.0, *stats.above, 0.0])
        self._first, self._steps = float(means[0]), np.diff(means).astype(np.float32)
        shares = above[:-1] - above[1:]
        self._std = float(np.sqrt(shares @ (means - shares @ means) ** 2)) or 1.0
        self._restoration = objective.restoration
        self.start = tuple(logit(share) for share in stats.above)

    def row_losses(self, raw: tf.Tensor, target: tf.Tensor, group: tf.Tensor | None) -> tf.Tensor:
        above = tf.cast(target[:, None] > tf.constant(self._thresholds), raw.dtype)
        losses = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=above, logits=raw), 1)
        if not self._restoration:
            return losses
        error = (self._restore(tf.sigmoid(raw)) - target) / self._std
        size = tf.abs(error)
        huber = tf.where(size <= HUBER_DELTA, 0.5 * error**2, HUBER_DELTA * (size - 0.5 * HUBER_DELTA))
        return losses + self._restoration * huber

    def to_natural(self, raw: tf.Tensor, group: tf.Tensor | None) -> tf.Tensor:
        return self._restore(falling(tf.sigmoid(raw), len(self._steps)))

    def _restore(self, p: tf.Tensor) -> tf.Tensor:
        return self._first + tf.reduce_sum(p * tf.constant(self._steps), 1)


def falling(p: tf.Tensor, count: int) -> tf.Tensor:
    """p [n, M] made to fall from left to right: (the least so far + the greatest from there on) / 2, or as it is."""
    least, greatest, step = p, p, 1
    while step < count:  # after which each has met 2 * step neighbours
        least = tf.minimum(least, tf.pad(least[:, :-step], [[0, 0], [step, 0]], constant_values=1.0))
        greatest = tf.maximum(greatest, tf.pad(greatest[:, step:], [[0, 0], [0, step]], constant_values=0.0))
        step *= 2
    return (least + greatest) / 2
