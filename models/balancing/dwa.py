"""Dynamic weight average."""

from collections.abc import Callable, Mapping

import tensorflow as tf

from models.balancing.base import Balancing, Losses, scaled


class DynamicWeightAverage(Balancing):
    """lambda_k = K softmax(r / T)_k with r_k = L_k(t - 1) / L_k(t - 2): more for losses that fall more slowly.

    L_k(t) is the mean over the labelled rows of a period of N steps, where the paper has epochs: days differ in length,
    and a warm start goes on from the period it was in. r_k is 1 until an objective has two periods. One without labelled
    rows in a period keeps its two averages.

    Liu, Johns & Davison, "End-to-End Multi-Task Learning with Attention", CVPR 2019, section 3.3.
    """

    kind = "dwa"

    def __init__(self, objectives: int, temperature: float, period: int) -> None:
        super().__init__()
        self._temperature, self._period = temperature, float(period)
        self._steps = tf.Variable(0.0)
        self._sums, self._counts = (tf.Variable(tf.zeros(objectives)) for _ in range(2))
        self._last, self._before = (tf.Variable(tf.fill([objectives], float("nan"))) for _ in range(2))
        self.variables: Mapping[str, tf.Variable] = {
            "steps": self._steps,
            "sums": self._sums,
            "counts": self._counts,
            "last": self._last,
            "before": self._before,
        }

    def weights(self, losses: Losses) -> tf.Tensor:
        ratios = tf.math.divide_no_nan(self._last, self._before)
        ratios = tf.where(tf.math.is_nan(ratios), 1.0, ratios)
        largest = tf.reduce_max(tf.where(losses.present, ratios, 0.0))
        return losses.prior * scaled(tf.exp(tf.minimum(ratios - largest, 0.0) / self._temperature), losses.present)

    def learn(self, losses: Losses, again: Callable[[], tf.Tensor]) -> None:
        rows = tf.where(losses.present, losses.counts, 0.0)
        self._sums.assign_add(rows * losses.values)
        self._counts.assign_add(rows)
        self._steps.assign_add(1.0)
        over = self._steps >= self._period
        ended = over & (self._counts > 0)
        self._before.assign(tf.where(ended, self._last, self._before))
        self._last.assign(tf.where(ended, tf.math.divide_no_nan(self._sums, self._counts), self._last))
        for running in (self._sums, self._counts):
            running.assign(tf.where(over, tf.zeros_like(running), running))
        self._steps.assign(tf.where(over, 0.0, self._steps))
