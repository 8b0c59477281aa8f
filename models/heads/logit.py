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
        return tf.nn.sigmoid_cross_entropy_with_logits(labels=target, logits=raw[:, 0])

    def to_natural(self, raw: tf.Tensor, group: tf.Tensor | None) -> tf.Tensor:
        return tf.sigmoid(raw[:, 0])


def logit(rate: float) -> float:
    """log(p / (1 - p)), finite also where the rate is 0 or 1."""
    rate = min(max(rate, RATE_LIMITS[0]), RATE_LIMITS[1])
    return math.log(rate / (1 - rate))
