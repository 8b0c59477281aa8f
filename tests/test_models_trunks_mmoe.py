"""MMoE, and the gates that all trunks with experts have."""

import numpy as np
import pytest
import tensorflow as tf
from trunk_samples import noise, small_trunk

from data.errors import ConfigError
from models.encoder import Split
from models.trunks import Trunk
from models.trunks.gates import Choice, combine, combine_each, gate, gate_penalty, row_entropy
from models.trunks.parallel import normalise

HALF_QUARTERS = np.log([[[2.0, 1.0, 1.0]]]).astype(np.float32)  # softmax: 1/2, 1/4, 1/4


def trunk(**changes: object) -> Trunk:
    settings = {"count": 2, "experts": 3, "layers": [4, 2], "expert_dropout": 0.0}
    return small_trunk(**{**settings, **changes})


def test_the_combination_is_the_gates_weighted_sum() -> None:
    gates = np.array([[[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]]], np.float32)  # one row, two objectives
    experts = np.array([[[4.0, 0.0]], [[8.0, 2.0]], [[0.0, 6.0]]], np.float32)
    assert combine(gates, experts).numpy().tolist() == [[[4.0, 2.0]], [[8.0, 2.0]]]


def test_experts_one_by_one_are_combined_as_together() -> None:
    """Values, and the gradients of gates and experts."""
    random = np.random.default_rng(1)
    gates, experts = (tf.constant(random.normal(size=shape).astype(np.float32)) for shape in ((7, 2, 3), (3, 7, 4)))
    weights = tf.constant(random.normal(size=(2, 7, 4)).astype(np.float32))

    def found(each: bool) -> list[np.ndarray]:
        with tf.GradientTape() as tape:
            tape.watch([gates, experts])
            h = tf.stack(combine_each(gates, tf.unstack(experts))) if each else combine(gates, experts)
            total = tf.reduce_sum(h * weights)
        return [h.numpy(), *(gradient.numpy() for gradient in tape.gradient(total, [gates, experts]))]

    for mine, theirs in zip(found(True), found(False), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


def test_gates_renormalise_over_the_survivors() -> None:
    logits = np.repeat(HALF_QUARTERS, 3, axis=0)
    alive = np.array([[True, True, True], [True, False, True], [False, True, True]])
    expected = [[[1 / 2, 1 / 4, 1 / 4]], [[2 / 3, 0, 1 / 3]], [[0, 1 / 2, 1 / 2]]]
    np.testing.assert_allclose(gate(logits, tf.constant(alive)), expected, rtol=1e-6)


def test_where_no_expert_survives_none_is_dropped() -> None:
    gates = gate(HALF_QUARTERS, tf.constant([[False, False, False]]))
    np.testing.assert_allclose(gates, [[[1 / 2, 1 / 4, 1 / 4]]], rtol=1e-6)


def test_a_lone_survivor_takes_all_and_gradients_stay_finite() -> None:
    logits = tf.Variable(HALF_QUARTERS)
    with tf.GradientTape() as tape:
        gates = gate(logits, tf.constant([[False, True, False]]))
        total = tf.reduce_sum(gates * [1.0, 2.0, 3.0]) + gate_penalty(gates, 1.0, 1.0)
    assert gates.numpy().tolist() == [[[0, 1, 0]]]
    assert np.isfinite(tape.gradient(total, logits)).all()


def test_gates_that_choose_from_some_experts() -> None:
    choice = Choice([(0, 3), (2, 3)], 4)
    alive = tf.constant([[False, True, True, True], [False, True, True, False]])
    gates = gate(tf.zeros([2, 2, 2]), choice.of(alive))
    np.testing.assert_allclose(gates, [[[0, 1], [0.5, 0.5]], [[0.5, 0.5], [1, 0]]])  # row 1, gate 0: nobody survived
    np.testing.assert_allclose(choice.spread(gates)[0], [[0, 0, 0, 1], [0, 0, 0.5, 0.5]])


def test_the_penalties() -> None:
    gates = tf.constant([[[1.0, 0.0]], [[0.0, 1.0]], [[1.0, 0.0]], [[1.0, 0.0]]])  # used 3/4 and 1/4, every row decided
    assert float(gate_penalty(gates, 2.0, 0.0)) == pytest.approx(2 * (2 * (9 / 16 + 1 / 16) - 1))
    assert float(gate_penalty(gates, 0.0, 3.0)) == pytest.approx(3 * np.log(2))
    assert float(gate_penalty(tf.fill([4, 1, 2], 0.5), 2.0, 3.0)) == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(row_entropy(tf.constant([[[0.5, 0.25, 0.25]]])), [[1.5 * np.log(2)]], rtol=1e-6)


def test_normalisation_is_of_a_row_alone() -> None:
    values = normalise(tf.constant([[1.0, 3.0], [5.0, 5.0]]))
    np.testing.assert_allclose(values, [[-1, 1], [0, 0]], rtol=1e-4)


def test_an_expert_is_dropped_for_the_whole_example() -> None:
    gates = trunk(expert_dropout=0.5)(tf.random.stateless_normal([200, 3], [1, 2]), noise=noise()).gates
    dropped = gates.numpy() == 0
    assert (dropped[:, 0] == dropped[:, 1]).all()
    share = dropped[:, 0].mean()
    assert 0.3 < share < 0.5  # 0.5 less the examples of which none would have survived (an eighth)
    np.testing.assert_allclose(gates.numpy().sum(2), 1, rtol=1e-6)


def test_nothing_is_dropped_without_noise() -> None:
    layer, x = trunk(expert_dropout=0.5, dropout=0.5), tf.random.stateless_normal([50, 3], [1, 2])
    first = layer(x)
    assert (first.gates.numpy() > 0).all()
    np.testing.assert_array_equal(first.h, layer(x).h)


def test_the_layer_is_its_formula() -> None:
    layer = trunk()
    x = np.array([[1.0, -2.0, 0.5]], np.float32)
    h, gates, _, units = layer(tf.constant(x))
    relu = lambda a: np.maximum(a, 0)  # noqa: E731
    kernels, biases = layer.networks.kernels, layer.networks.biases
    experts = []
    for e in range(3):
        hidden = relu(x @ kernels[0].numpy()[e] + biases[0].numpy()[e])
        experts.append(relu(hidden @ kernels[1].numpy()[e] + biases[1].numpy()[e]))
    np.testing.assert_allclose(units, experts, rtol=1e-4, atol=1e-6)
    for k in range(2):
        weights = np.exp(x @ layer.gates.numpy()[k])
        weights /= weights.sum()
        np.testing.assert_allclose(gates[0, k], weights[0], rtol=1e-5)
        np.testing.assert_allclose(h[k], sum(weights[0, e] * experts[e] for e in range(3)), rtol=1e-4, atol=1e-6)


def test_a_split_input_gives_the_same() -> None:
    layer = trunk()
    fixed, moving = tf.random.stateless_normal([1, 2], [1, 2]), tf.random.stateless_normal([6, 1], [3, 4])
    plain = tf.concat([tf.repeat(fixed, 6, 0), moving], 1)
    for one, other in zip(layer(Split(fixed, moving)), layer(plain), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_an_expert_without_layers_is_refused() -> None:
    with pytest.raises(ConfigError, match="layers"):
        trunk(layers=())


def test_noise_is_a_function_of_seed_step_and_draw() -> None:
    first, again, later = noise(), noise(), noise(1)
    a, b = first.survive([64], 0.5).numpy(), first.survive([64], 0.5).numpy()
    np.testing.assert_array_equal(a, again.survive([64], 0.5).numpy())
    np.testing.assert_array_equal(b, again.survive([64], 0.5).numpy())
    assert (a != b).any()
    assert (a != later.survive([64], 0.5).numpy()).any()


def test_experts_one_by_one_as_in_training_are_those_side_by_side() -> None:
    """Without any dropout; and the combination of them listed is that of them stacked."""
    made, x = trunk(), tf.constant(np.random.default_rng(0).normal(size=(6, 3)), tf.float32)
    plain = made(x)
    parts = made.networks.each(x, noise())
    np.testing.assert_allclose(tf.stack(parts), plain.units, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(tf.stack(combine_each(plain.gates, parts)), plain.h, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(made(x, noise=noise()).h, plain.h, rtol=1e-5, atol=1e-6)
