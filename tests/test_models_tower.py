import numpy as np
import pytest
import tensorflow as tf

from models.tower import Towers


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
    towers = Towers(layers, (0.5, 0.25, -0.25, -1.0), 0.0, seed=1, outputs=(1, 2, 1))
    towers.build((3, None, 6))
    for bias in towers.biases:
        bias.assign(np.random.default_rng(1).normal(0, 0.5, bias.shape))
    h = tf.random.stateless_normal([3, 7, 6], [1, 2])
    np.testing.assert_allclose(towers(tf.unstack(h)), towers(h), rtol=1e-6, atol=1e-6)


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
