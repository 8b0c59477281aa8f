"""GradNorm."""

import tensorflow as tf

from models.balancing.adam import AdamVector
from models.balancing.base import Balancing, Losses, scaled
from models.noise import Noise

LEAST = 1e-3
"""The least a weight may become."""


class GradNorm(Balancing):
    """Weights w whose gradients' lengths G_k = w_k ||g_k|| tend to mean(G) r_k^alpha.

    r_k = (L_k / L_k(0)) / its mean: how far behind an objective is. A step uses w, then moves it by Adam against
    sum_k |G_k - mean(G) r_k^alpha| with the target held constant: dw_k = sign(.) ||g_k||; then scales those present back to
    the sum they had (K in all). L_k(0) is the loss in an objective's first batch with labelled rows. The paper takes
    the lengths over the last shared layer to save time; here they are over all shared parameters, as everywhere.

    Chen et al., "GradNorm: Gradient Normalization for Adaptive Loss Balancing", ICML 2018, algorithm 1.
    """

    kind = "gradnorm"
    gradients = True

    def __init__(self, objectives: int, alpha: float, rate: float) -> None:
        super().__init__()
        self._alpha = alpha
        self.factors = AdamVector([1.0] * objectives, rate)
        self._first = tf.Variable(tf.fill([objectives], float("nan")))
        self.variables = {**self.factors.variables, "first": self._first}

    def weights(self, losses: Losses) -> tf.Tensor:
        return losses.prior * tf.identity(self.factors.value)

    def mix(self, products: tf.Tensor, losses: Losses, noise: Noise) -> tf.Tensor:
        used = self.weights(losses)
        present, lengths = losses.present, tf.sqrt(tf.maximum(tf.linalg.diag_part(products), 0.0))
        self._first.assign(tf.where(present & tf.math.is_nan(self._first), losses.values, self._first))
        relative = tf.where(present, tf.math.divide_no_nan(losses.values, self._first), 0.0)
        behind = scaled(relative, present)
        weighted = self.factors.value * lengths
        mean = tf.math.divide_no_nan(tf.reduce_sum(tf.where(present, weighted, 0.0)), _sum(present))
        self._move(tf.sign(weighted - mean * behind**self._alpha) * lengths, present)
        return used

    def _move(self, gradient: tf.Tensor, present: tf.Tensor) -> None:
        before = tf.reduce_sum(tf.where(present, self.factors.value, 0.0))
        self.factors.step(gradient, present)
        moved = tf.maximum(self.factors.value, LEAST)
        after = tf.reduce_sum(tf.where(present, moved, 0.0))
        self.factors.value.assign(tf.where(present, moved * tf.math.divide_no_nan(before, after), self.factors.value))


def _sum(present: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(present, tf.float32))
