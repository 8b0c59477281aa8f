"""Conflict-averse gradient descent: CAGrad."""

import tensorflow as tf

from models.balancing.base import Balancing, Losses
from models.noise import Noise

TURNS = 100
"""At most, of the search for the weights. Two objectives take one, five some ten."""
TOLERANCE = 1e-6
"""Of the optimality gap, relative to ||g_0||^2, at which the search ends."""


class ConflictAverse(Balancing):
    """m times the direction d that maximises min_k g_k . d within ||d - g_0|| <= c ||g_0||, g_0 the mean of the m gradients.

    d = g_0 + c ||g_0|| / ||g_w|| g_w, with g_w = sum_k w_k g_k and w on the simplex the minimiser of the dual
    F(w) = g_w . g_0 + c ||g_0|| ||g_w||. g_k is the gradient of prior_k L_k; those without labelled rows are left out.
    Times m, c = 0 is the sum, as with fixed weights.

    Liu et al., "Conflict-Averse Gradient Descent for Multi-task Learning", NeurIPS 2021, algorithm 1.
    """

    kind = "cagrad"
    gradients = True

    def __init__(self, c: float) -> None:
        super().__init__()
        self._c = c

    def mix(self, products: tf.Tensor, losses: Losses, noise: Noise) -> tf.Tensor:
        prior = tf.cast(losses.prior, tf.float64)
        products = tf.cast(products, tf.float64) * prior[:, None] * prior[None, :]
        return tf.cast(prior * averse(products, losses.present, self._c), losses.prior.dtype)


def averse(products: tf.Tensor, present: tf.Tensor, c: float) -> tf.Tensor:
    """Coefficients a [K] of m d = sum_k a_k g_k.

    Args:
        products: g_i . g_j [K, K], float64.
        present: booleans [K].
        c: of the paper.
    """
    there = tf.cast(present, products.dtype)
    count = tf.maximum(tf.reduce_sum(there), 1.0)
    towards = tf.linalg.matvec(products, there / count)
    radius = c * _root(tf.tensordot(there / count, towards, 1))
    weights = worst_off(products, towards, radius, present)
    length = _root(tf.tensordot(weights, tf.linalg.matvec(products, weights), 1))
    return there + count * tf.math.divide_no_nan(radius, length) * weights


def worst_off(products: tf.Tensor, towards: tf.Tensor, radius: tf.Tensor, present: tf.Tensor) -> tf.Tensor:
    """The w [K] on the simplex of those present that minimises F(w) = w . towards + radius sqrt(w' products w).

    Pairwise Frank-Wolfe: weight moves from the objective of F's highest partial derivative (among those that have some)
    to that of the lowest, by the exact minimiser along that line, until no move gains.
    """
    there = tf.cast(present, products.dtype)
    start = there / tf.maximum(tf.reduce_sum(there), 1.0)
    least = TOLERANCE * tf.reduce_max(tf.abs(towards))

    def pair(weights: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Where weight should come from and go to, and the difference in slope between them."""
        along = tf.linalg.matvec(products, weights)
        slope = towards + radius * tf.math.divide_no_nan(along, _root(tf.tensordot(weights, along, 1)))
        low = tf.argmin(tf.where(present, slope, float("inf")))
        high = tf.argmax(tf.where(weights > 0, slope, -float("inf")))
        return high, low, slope[high] - slope[low]

    def gains(turn: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        return (turn < TURNS) & (pair(weights)[2] > least)

    def move(turn: tf.Tensor, weights: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        high, low, _ = pair(weights)
        line = tf.one_hot(low, there.shape[0], dtype=there.dtype) - tf.one_hot(high, there.shape[0], dtype=there.dtype)
        moved = tf.linalg.matvec(products, line)
        p = tf.tensordot(weights, tf.linalg.matvec(products, weights), 1)
        q, r = tf.tensordot(weights, moved, 1), tf.maximum(tf.tensordot(line, moved, 1), 0.0)
        step = best_step(tf.tensordot(line, towards, 1), radius, p, q, r)
        return turn + 1, weights + tf.clip_by_value(step, 0.0, weights[high]) * line

    return tf.while_loop(gains, move, (tf.constant(0), start))[1]


def best_step(b: tf.Tensor, s: tf.Tensor, p: tf.Tensor, q: tf.Tensor, r: tf.Tensor) -> tf.Tensor:
    """The t that minimises b t + s sqrt(p + 2 q t + r t^2), a length under the root; infinite where it falls for ever.

    With u = q + r t and D = p r - q^2 the derivative is b + s sqrt(r) u / sqrt(u^2 + D), 0 at u = k sqrt(D / (1 - k^2)),
    k = -b / (s sqrt(r)).
    """
    steepest = s * tf.sqrt(r)
    k = tf.math.divide_no_nan(-b, steepest)
    u = k * _root(tf.math.divide_no_nan(p * r - q**2, 1 - k**2))
    return tf.where(tf.abs(b) < steepest, tf.math.divide_no_nan(u - q, r), tf.sign(-b) * float("inf"))


def _root(x: tf.Tensor) -> tf.Tensor:
    """Of what rounding may have made negative."""
    return tf.sqrt(tf.maximum(x, 0.0))
