"""What an objective's error costs, and how outputs and natural units relate."""

import math
from collections.abc import Sequence

import tensorflow as tf

from data.config import Objective
from data.features.targets import TargetStats

HUBER_DELTA = 1.0
"""In standard deviations of the transformed target."""
_RATE_LIMITS = (1e-6, 1 - 1e-6)


def row_losses(raw: tf.Tensor, target: tf.Tensor, objective: Objective, stats: TargetStats) -> tf.Tensor:
    """The loss of each row [n] from the raw outputs [n] and the targets [n] in natural units (none masked).

    cross_entropy: -y log p - (1 - y) log(1 - p), p = sigmoid(raw). On z = (t(y) - mean) / std and d = raw - z:
    squared_error: d^2; huber: d^2 / 2 where |d| <= 1, else |d| - 1/2.
    """
    if objective.kind == "binary":
        return tf.nn.sigmoid_cross_entropy_with_logits(labels=target, logits=raw)
    difference = raw - standardise(target, objective, stats)
    if objective.loss == "huber":
        size = tf.abs(difference)
        return tf.where(size <= HUBER_DELTA, 0.5 * difference**2, HUBER_DELTA * (size - 0.5 * HUBER_DELTA))
    return tf.square(difference)


def objective_losses(
    raw: tf.Tensor, targets: tf.Tensor, objectives: Sequence[Objective], stats: Sequence[TargetStats]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Each objective's mean loss over its defined rows, 0 where it has none [K], and their count [K].

    Args:
        raw: [n, K].
        targets: [n, K] in natural units, NaN where masked.
    """
    losses, counts = [], []
    for k, (objective, scale) in enumerate(zip(objectives, stats, strict=True)):
        defined = ~tf.math.is_nan(targets[:, k])
        known = tf.where(defined, targets[:, k], 0.0)
        values = tf.where(defined, row_losses(raw[:, k], known, objective, scale), 0.0)
        count = tf.reduce_sum(tf.cast(defined, raw.dtype))
        losses.append(tf.reduce_sum(values) / tf.maximum(count, 1))
        counts.append(count)
    return tf.stack(losses), tf.stack(counts)


def standardise(target: tf.Tensor, objective: Objective, stats: TargetStats) -> tf.Tensor:
    """(t(y) - mean) / std, with t(y) = log(1 + max(y, 0)) or y."""
    moved = tf.math.log1p(tf.maximum(target, 0.0)) if objective.transform == "log" else target
    return (moved - stats.mean) / stats.std


def to_natural(raw: tf.Tensor, objectives: Sequence[Objective], stats: Sequence[TargetStats]) -> tf.Tensor:
    """Predictions [n, K] in natural units: sigmoid(raw); raw * std + mean; exp(that) - 1, at least 0, where log."""
    columns = []
    for k, (objective, scale) in enumerate(zip(objectives, stats, strict=True)):
        if objective.kind == "binary":
            columns.append(tf.sigmoid(raw[:, k]))
            continue
        value = raw[:, k] * scale.std + scale.mean
        columns.append(tf.maximum(tf.exp(value) - 1, 0.0) if objective.transform == "log" else value)
    return tf.stack(columns, 1)


def start_bias(objective: Objective, stats: TargetStats) -> float:
    """The raw output that predicts the training data's mean: the base rate's logit; 0 on a standardised scale."""
    if objective.kind == "regression":
        return 0.0
    rate = min(max(stats.mean, _RATE_LIMITS[0]), _RATE_LIMITS[1])
    return math.log(rate / (1 - rate))
