import numpy as np
import pytest
import tensorflow as tf
from trunk_samples import noise

from models.tower import Towers


def three_towers(layers: tuple[int, ...]) -> Towers:
    """Of six inputs and, together, four outputs, with biases other than zero."""
    towers = Towers(layers, (0.5, 0.25, -0.25, -1.0), 0.0, seed=1, outputs=(1, 2, 1))
    towers.build((3, None, 6))
    for bias in towers.biases:
        bias.assign(np.random.default_rng(1).normal(0, 0.5, bias.shape))
    return towers


def test_towers_are_their_formula() -> None:
    towers = Towers((2,), (0.5, -1.0), 0.0, seed=1)
    towers.build((2, None, 2))
    towers.kernels[0].assign([[[1.0, -1.0], [0.0, 2.0]], [[1.0, 0.0], [0.0, 1.0]]])
    towers.head.assign([[[1.0], [3.0]], [[2.0], [1.0]]])
    h = tf.constant([[[1.0, 2.0]], [[-1.0, 4.0]]])  # [K=2, n=1, H=2]
    # first: relu(1, -1 + 4) = (1, 3) -> 1 + 9 + 0.5; second: relu(-1, 4) = (0, 4) -> 0 + 4 - 1
    assert towers(h).numpy().tolist() == [[10.5, 3.0]]


@pytest.mark.parametrize("layers", [(), (5, 4)])
def test_representations_one_by_one_give_what_they_give_together(layers: tuple[int, ...]) -> None:
    towers, h = three_towers(layers), tf.random.stateless_normal([3, 7, 6], [1, 2])
    np.testing.assert_allclose(towers(tf.unstack(h)), towers(h), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("layers", [(), (5, 4)])
def test_towers_train_as_they_predict(layers: tuple[int, ...]) -> None:
    """Without dropout: the values, and the gradients of every weight and of h."""
    towers = three_towers(layers)
    h, weights = tf.random.stateless_normal([3, 7, 6], [1, 2]), tf.random.stateless_normal([7, 4], [3, 4])

    def found(training: bool) -> list[np.ndarray]:
        given = [weight.value for weight in towers.trainable_variables]
        with tf.GradientTape() as tape:
            tape.watch(h)
            raw = towers(h, noise=noise() if training else None)
            total = tf.reduce_sum(raw * weights)
        return [raw.numpy(), *(gradient.numpy() for gradient in tape.gradient(total, [h, *given]))]

    for mine, theirs in zip(found(True), found(False), strict=True):
        assert np.abs(theirs).max() > 0
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


def test_dropout_of_parts_takes_the_numbers_of_one() -> None:
    parts = tf.random.stateless_normal([3, 50, 4], [1, 2])
    together = noise().dropout(parts, 0.3)
    np.testing.assert_array_equal(tf.stack(noise().dropout_each(tf.unstack(parts), 0.3)), together)
    assert 0.2 < (together.numpy() == 0).mean() < 0.4


def test_towers_drop_hidden_units_in_training_alone() -> None:
    towers = Towers((200,), (0.0, 0.0), 0.5, seed=1)
    towers.build((2, None, 3))
    h = tf.random.stateless_normal([2, 7, 3], [1, 2])
    assert not np.isclose(towers(h, noise=noise()), towers(h)).any()
    np.testing.assert_array_equal(towers(h, noise=noise()), towers(tf.unstack(h), noise=noise()))


def test_towers_start_different() -> None:
    towers = Towers((4,), (0.0, 0.0), 0.0, seed=1)
    towers.build((2, None, 3))
    assert not np.isclose(towers.kernels[0].numpy()[0], towers.kernels[0].numpy()[1]).any()


def test_a_tower_without_layers_is_linear() -> None:
    towers = Towers((), (0.0,), 0.0, seed=1)
    towers.build((1, None, 2))
    towers.head.assign([[[2.0], [-1.0]]])
    assert towers(tf.constant([[[1.0, 5.0]]])).numpy().tolist() == [[-3.0]]


def test_config_round_trips() -> None:
    layer = Towers((2,), (0.5, -1.0), 0.1, seed=1)
    assert Towers.from_config(layer.get_config()).get_config() == layer.get_config()
