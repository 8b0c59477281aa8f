"""Gradient surgery: PCGrad."""

import tensorflow as tf

from models.balancing.base import Balancing, Losses
from models.noise import Noise


class ProjectingConflicts(Balancing):
    """Each gradient loses its component along every other that it conflicts with, in a random order; the results are summed.

    g_i' = g_i; for j != i in random order: if g_i' . g_j < 0: g_i' -= (g_i' . g_j / ||g_j||^2) g_j;  g = sum_i g_i'

    with g_k the gradient of prior_k L_k. Since g_i' stays a combination of the g_k, their inner products are all it needs.
    Objectives without labelled rows are zero vectors: they neither project nor are projected. The order of each i is
    drawn from the step's noise.

    Yu et al., "Gradient Surgery for Multi-Task Learning", NeurIPS 2020, algorithm 1.
    """

    kind = "pcgrad"
    gradients = True

    def mix(self, products: tf.Tensor, losses: Losses, noise: Noise) -> tf.Tensor:
        count = products.shape[0]
        order = tf.argsort(noise.uniform([count, count]), axis=1)
        products = products * losses.prior[:, None] * losses.prior[None, :]
        return losses.prior * tf.reduce_sum(project(products, order), 0)


def project(products: tf.Tensor, order: tf.Tensor) -> tf.Tensor:
    """Coefficients c [K, K] of g_i' = sum_j c_ij g_j.

    Args:
        products: g_i . g_j [K, K].
        order: int [K, K], for each i (a row) all objectives in the order in which it meets them; itself is passed over.
    """
    count = products.shape[0]
    coefficients = tf.eye(count, dtype=products.dtype)
    lengths = tf.linalg.diag_part(products)
    for turn in range(count):
        met = tf.one_hot(order[:, turn], count, dtype=products.dtype)
        dots = tf.reduce_sum(tf.matmul(coefficients, products) * met, 1)
        dots = tf.where(order[:, turn] == tf.range(count), 0.0, tf.minimum(dots, 0.0))
        step = tf.math.divide_no_nan(dots, tf.linalg.matvec(met, lengths))
        coefficients -= step[:, None] * met
    return coefficients
