"""The head of a binary objective: a logit."""

import math

import tensorflow as tf

from data.features.targets import TargetStats

RATE_LIMITS = (1e-6, 1 - 1e-6)


class Logit:
    """p = sigmoid(raw), at the cost of the cross-entropy -y log p - (1 - y) log(1 - p)."""

    def __init__(self, stats: TargetStats) -> None:
        self.start = (logit(stats.mean),)

    def row_losses(self, raw: tf.Tensor, target: tf.Tensor, group: tf.Tensor | None) -> tf.Tensor:
        return cross_entropy(raw[:, 0], target)

    def to_natural(self, raw: tf.Tensor, group: tf.Tensor | None) -> tf.Tensor:
        return tf.sigmoid(raw[:, 0])


def cross_entropy(raw: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """-y log p - (1 - y) log(1 - p) at p = sigmoid(raw), of any one shape.

    The two terms give two gradients, whose sum is the same in either order. TensorFlow's own function gives four, which
    are added up in the order in which their buffers come free: not the same in every run.
    """
    alone = tf.identity(raw)  # what else raw is used for is added to their sum
    return target * tf.nn.softplus(-alone) + (1 - target) * tf.nn.softplus(alone)


def logit(rate: float) -> float:
    """log(p / (1 - p)), finite also where the rate is 0 or 1."""
    rate = min(max(rate, RATE_LIMITS[0]), RATE_LIMITS[1])
    return math.log(rate / (1 - rate))
