import math

import numpy as np
import pytest
import tensorflow as tf
from network_samples import (
    CLICK,
    EVERYTHING,
    LIKE,
    MODEL,
    TRUNK,
    WATCH,
    random_blocks,
    random_targets,
    small_config,
    small_trainer,
)

from data.errors import ConfigError
from data.features.layout import Block
from models.ordering import Slates, ordering_losses, slate_order


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def losses(logits, targets, slate, neighbours=31):
    found = ordering_losses(
        tf.constant(logits, tf.float32), tf.constant(targets, tf.float32), tf.constant(slate, tf.int32), neighbours
    )
    return found.numpy()


def test_by_hand():
    # Slate 7 has the pairs (0, 1) and (2, 1), slate 3 has (4, 3), slate 9 none: 3, 2 and 1 of 6 rows.
    logits = [[0.5], [1.0], [2.0], [0.0], [3.0], [9.0]]
    targets = [[1], [0], [1], [0], [1], [1]]
    expected = (3 * (softplus(0.5) + softplus(-1.0)) / 2 + 2 * softplus(-3.0)) / 6
    assert losses(logits, targets, [7, 7, 7, 3, 3, 9]) == pytest.approx([expected], rel=1e-6)


def test_masked_rows_are_in_no_pair_of_their_objective():
    logits, targets = [[0.5, 0.5], [1.0, 1.0]], [[1, np.nan], [0, 0]]
    assert losses(logits, targets, [1, 1]) == pytest.approx([softplus(0.5), 0.0], rel=1e-6)


def test_masked_rows_give_no_nan_gradient():
    logits = tf.Variable([[0.5], [1.0], [2.0]])
    with tf.GradientTape() as tape:
        loss = ordering_losses(logits, tf.constant([[1.0], [0.0], [np.nan]]), tf.constant([1, 1, 1]), 4)[0]
    gradient = tape.gradient(loss, logits).numpy()
    assert np.isfinite(gradient).all()
    assert gradient[2, 0] == 0
    assert gradient[0, 0] == pytest.approx(-1 / (1 + math.exp(-0.5)), rel=1e-5)
    assert gradient[1, 0] == pytest.approx(-gradient[0, 0])


def test_what_a_slate_has_in_common_cancels():
    rng = np.random.default_rng(1)
    slate, targets = np.repeat([1, 2, 3], 4), rng.integers(0, 2, [12, 2])
    logits = rng.normal(size=[12, 2])
    shift = np.array([0.0, 5.0, -2.0]).repeat(4)[:, None]
    assert losses(logits + shift, targets, slate) == pytest.approx(losses(logits, targets, slate), rel=1e-5)


def test_far_rows_are_not_compared():
    logits, targets = [[0.0], [0.0], [4.0]], [[0], [0], [1]]
    assert losses(logits, targets, [1, 1, 1], neighbours=1) == pytest.approx([softplus(-4.0)], rel=1e-6)


@pytest.mark.parametrize("rows", [0, 1])
def test_no_pairs_no_loss(rows):
    assert losses(np.zeros([rows, 2]), np.ones([rows, 2]), np.zeros(rows)) == pytest.approx([0.0, 0.0])


def test_rows_of_a_slate_come_together_in_a_new_order():
    slate = np.array([5, 9, 5, 1, 9, 5, 1, 4])
    rows = np.array([0, 1, 2, 3, 4, 5, 6])
    order = slate_order(rows, slate, np.random.default_rng(3))
    assert sorted(order) == list(rows)
    changes = np.count_nonzero(np.diff(slate[order]))
    assert changes == 2
    assert any((slate_order(rows, slate, np.random.default_rng(seed)) != order).any() for seed in range(3))
    assert len(slate_order(rows[:0], slate, np.random.default_rng(3))) == 0


def trained(weight, slates, steps=3, own_weights=None):
    """The weights of a small network without dropout after some passes over 40 rows, with ``slates`` of them."""
    features = [{**feature, "dropout": 0.0} if feature["kind"] == "category" else feature for feature in EVERYTHING]
    model = {**MODEL, "trunk": {**TRUNK, "expert_dropout": 0.0}, "bias_dropout": 0.0}
    objectives = [{**o, "ordering_weight": (own_weights or {}).get(o["name"], 1.0)} for o in (CLICK, LIKE, WATCH)]
    trainer = small_trainer(small_config(features, objectives, model, {"ordering": {"weight": weight}}))
    blocks, targets = random_blocks(trainer.network.layout, 40), random_targets(trainer.network.config, 40)
    for _ in range(steps):
        trainer.train_epoch(blocks, targets, np.arange(40), 1, slates=slates)
    return np.concatenate([variable.numpy().ravel() for variable in trainer.optimizers.variables])


def test_the_order_is_trained_on_where_it_is_configured_and_as_of_the_slates():
    number = np.repeat(np.arange(10), 4)
    blocks = random_blocks(small_trainer(small_config()).network.layout, 40)
    without = trained(0.0, None)
    np.testing.assert_array_equal(trained(0.0, Slates(number)), without)
    ordered = trained(1.0, Slates(number))
    assert np.abs(ordered - without).max() > 1e-4
    np.testing.assert_allclose(trained(1.0, Slates(number, blocks)), ordered, atol=1e-6)
    later = {side: Block(block.ints, block.floats + 1) for side, block in blocks.items()}
    assert np.abs(trained(1.0, Slates(number, later)) - ordered).max() > 1e-4


def test_an_objective_may_leave_its_order_out():
    slates = Slates(np.repeat(np.arange(10), 4))
    binary = ["click", "like"]
    np.testing.assert_array_equal(trained(1.0, slates, own_weights=dict.fromkeys(binary, 0.0)), trained(0.0, slates))
    half = trained(1.0, slates, own_weights={binary[0]: 0.0})
    assert all(np.abs(half - trained(weight, slates)).max() > 1e-4 for weight in (0.0, 1.0))
    np.testing.assert_array_equal(trained(0.5, slates, own_weights=dict.fromkeys(binary, 2.0)), trained(1.0, slates))


def test_a_batch_of_tasks_has_no_whole_slates():
    with pytest.raises(ConfigError, match=r"expected sampling\.kind = 'joint'"):
        small_config(training={"ordering": {"weight": 1.0}, "sampling": {"kind": "tasks"}})
