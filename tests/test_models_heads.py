import math

import numpy as np
import pytest
import tensorflow as tf

from data.config import Objective
from data.features.layout import Layout, SideLayout
from data.features.targets import TargetStats
from models.heads.columns import Heads, head_of

NAN = math.nan
CLICK = Objective(name="click", family="engagement", label="click", kind="binary")
SQUARED = Objective(name="watch", family="engagement", label="watch", kind="regression", transform="none")
HUBER = SQUARED.model_copy(update={"loss": "huber"})
LOG = SQUARED.model_copy(update={"transform": "log"})
PLAIN = TargetStats(0.25, 0.5, 8)
SCALE = TargetStats(10.0, 4.0, 8)
LOG_SCALE = TargetStats(1.0, 0.5, 8)
ODDS = SQUARED.model_copy(update={"head": "weighted_logistic"})
NO_SIDES = Layout({"video": SideLayout()})


def row_losses(raw: list[float], target: list[float], objective: Objective, stats: TargetStats) -> tf.Tensor:
    return head_of(objective, stats).row_losses(tf.constant(raw)[:, None], tf.constant(target), None)


def heads(*pairs: tuple[Objective, TargetStats]) -> Heads:
    return Heads([o for o, _ in pairs], [s for _, s in pairs], NO_SIDES)


def test_cross_entropy_by_hand() -> None:
    losses = row_losses([0.0, math.log(3.0), math.log(3.0)], [1.0, 1.0, 0.0], CLICK, PLAIN)  # p = 1/2, 3/4, 3/4
    np.testing.assert_allclose(losses, [math.log(2), -math.log(0.75), -math.log(0.25)], rtol=1e-6)


def test_squared_error_by_hand() -> None:
    losses = row_losses([0.0, 1.0], [16.0, 8.0], SQUARED, SCALE)  # z = 1.5, -0.5
    np.testing.assert_allclose(losses, [2.25, 2.25])


def test_huber_by_hand() -> None:
    losses = row_losses([0.5, 1.0, -2.0], [10.0, 10.0, 14.0], HUBER, SCALE)  # d = 0.5, 1, -3
    np.testing.assert_allclose(losses, [0.125, 0.5, 2.5])


def test_logarithmic_scale_by_hand() -> None:
    losses = row_losses([1.0, 1.0, 1.0], [math.e - 1, 0.0, -5.0], LOG, LOG_SCALE)  # log1p: 1, 0, 0; so z: 0, -2, -2
    np.testing.assert_allclose(losses, [1.0, 9.0, 9.0], atol=1e-5)


def test_means_are_over_the_defined_rows_alone() -> None:
    raw = tf.constant([[0.0, 0.0], [math.log(3.0), 1.0], [9.0, 5.0]])
    targets = tf.constant([[1.0, NAN], [0.0, 10.0], [NAN, NAN]])
    losses, counts = heads((CLICK, PLAIN), (SQUARED, SCALE)).losses(raw, targets, {})
    np.testing.assert_allclose(losses, [(math.log(2) - math.log(0.25)) / 2, 1.0], rtol=1e-6)
    assert counts.numpy().tolist() == [2, 1]


def test_masked_rows_have_no_gradient() -> None:
    raw = tf.Variable([[0.5, 0.5], [0.5, 0.5]])
    targets = tf.constant([[1.0, NAN], [NAN, NAN]])
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(heads((CLICK, PLAIN), (LOG, LOG_SCALE)).losses(raw, targets, {})[0])
    gradient = tape.gradient(total, raw).numpy()
    assert gradient[0, 0] == pytest.approx(1 / (1 + math.exp(-0.5)) - 1)
    assert gradient.ravel()[1:].tolist() == [0, 0, 0]


def test_all_masked_is_zero() -> None:
    both = heads((CLICK, PLAIN), (HUBER, SCALE))
    losses, counts = both.losses(tf.ones([3, 2]), tf.fill([3, 2], NAN), {})
    assert losses.numpy().tolist() == [0, 0]
    assert counts.numpy().tolist() == [0, 0]


def test_natural_units_by_hand() -> None:
    raw = tf.constant([[math.log(3.0), 1.5, 2.0], [0.0, -3.0, -4.0]])
    natural = heads((CLICK, PLAIN), (SQUARED, SCALE), (LOG, LOG_SCALE)).to_natural(raw, {})
    np.testing.assert_allclose(natural, [[0.75, 16.0, math.exp(2.0) - 1], [0.5, -2.0, 0.0]], rtol=1e-6)


def test_the_start_predicts_the_mean() -> None:
    assert heads((CLICK, PLAIN), (SQUARED, SCALE)).start == pytest.approx((math.log(0.25 / 0.75), 0))
    assert math.isfinite(head_of(CLICK, TargetStats(0.0, 1.0, 5)).start[0])
    assert math.isfinite(head_of(CLICK, TargetStats(1.0, 1.0, 5)).start[0])
