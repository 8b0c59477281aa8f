import math

import numpy as np
import pytest
import tensorflow as tf

from data.config import Objective
from data.features.targets import TargetStats
from models.losses import objective_losses, row_losses, standardise, start_bias, to_natural

NAN = math.nan
CLICK = Objective(name="click", family="engagement", label="click", kind="binary")
SQUARED = Objective(name="watch", family="engagement", label="watch", kind="regression", transform="none")
HUBER = SQUARED.model_copy(update={"loss": "huber"})
LOG = SQUARED.model_copy(update={"transform": "log"})
PLAIN = TargetStats(0.25, 0.5, 8)
SCALE = TargetStats(10.0, 4.0, 8)
LOG_SCALE = TargetStats(1.0, 0.5, 8)


def test_cross_entropy_by_hand() -> None:
    raw = tf.constant([0.0, math.log(3.0), math.log(3.0)])  # p = 1/2, 3/4, 3/4
    losses = row_losses(raw, tf.constant([1.0, 1.0, 0.0]), CLICK, PLAIN)
    np.testing.assert_allclose(losses, [math.log(2), -math.log(0.75), -math.log(0.25)], rtol=1e-6)


def test_squared_error_by_hand() -> None:
    losses = row_losses(tf.constant([0.0, 1.0]), tf.constant([16.0, 8.0]), SQUARED, SCALE)  # z = 1.5, -0.5
    np.testing.assert_allclose(losses, [2.25, 2.25])


def test_huber_by_hand() -> None:
    raw = tf.constant([0.5, 1.0, -2.0])
    losses = row_losses(raw, tf.constant([10.0, 10.0, 14.0]), HUBER, SCALE)  # d = 0.5, 1, -3
    np.testing.assert_allclose(losses, [0.125, 0.5, 2.5])


def test_logarithmic_scale_by_hand() -> None:
    z = standardise(tf.constant([math.e - 1, 0.0, -5.0]), LOG, LOG_SCALE)  # log1p: 1, 0, 0 (negative ones as 0)
    np.testing.assert_allclose(z, [0.0, -2.0, -2.0], atol=1e-6)


def test_means_are_over_the_defined_rows_alone() -> None:
    raw = tf.constant([[0.0, 0.0], [math.log(3.0), 1.0], [9.0, 5.0]])
    targets = tf.constant([[1.0, NAN], [0.0, 10.0], [NAN, NAN]])
    losses, counts = objective_losses(raw, targets, [CLICK, SQUARED], [PLAIN, SCALE])
    np.testing.assert_allclose(losses, [(math.log(2) - math.log(0.25)) / 2, 1.0], rtol=1e-6)
    assert counts.numpy().tolist() == [2, 1]


def test_masked_rows_have_no_gradient() -> None:
    raw = tf.Variable([[0.5, 0.5], [0.5, 0.5]])
    targets = tf.constant([[1.0, NAN], [NAN, NAN]])
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(objective_losses(raw, targets, [CLICK, LOG], [PLAIN, LOG_SCALE])[0])
    gradient = tape.gradient(total, raw).numpy()
    assert gradient[0, 0] == pytest.approx(1 / (1 + math.exp(-0.5)) - 1)
    assert gradient.ravel()[1:].tolist() == [0, 0, 0]


def test_all_masked_is_zero() -> None:
    losses, counts = objective_losses(tf.ones([3, 2]), tf.fill([3, 2], NAN), [CLICK, HUBER], [PLAIN, SCALE])
    assert losses.numpy().tolist() == [0, 0]
    assert counts.numpy().tolist() == [0, 0]


def test_natural_units_by_hand() -> None:
    raw = tf.constant([[math.log(3.0), 1.5, 2.0], [0.0, -3.0, -4.0]])
    natural = to_natural(raw, [CLICK, SQUARED, LOG], [PLAIN, SCALE, LOG_SCALE])
    np.testing.assert_allclose(natural, [[0.75, 16.0, math.exp(2.0) - 1], [0.5, -2.0, 0.0]], rtol=1e-6)


def test_the_start_predicts_the_mean() -> None:
    assert start_bias(CLICK, PLAIN) == pytest.approx(math.log(0.25 / 0.75))
    assert start_bias(SQUARED, SCALE) == 0
    assert math.isfinite(start_bias(CLICK, TargetStats(0.0, 1.0, 5)))
    assert math.isfinite(start_bias(CLICK, TargetStats(1.0, 1.0, 5)))
