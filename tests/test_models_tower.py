import numpy as np
import tensorflow as tf

from models.noise import Noise
from models.tower import ShallowTower, Towers, missing


def test_towers_are_their_formula() -> None:
    towers = Towers((2,), (0.5, -1.0), 0.0, seed=1)
    towers.build((2, None, 2))
    towers.kernels[0].assign([[[1.0, -1.0], [0.0, 2.0]], [[1.0, 0.0], [0.0, 1.0]]])
    towers.head.assign([[[1.0], [3.0]], [[2.0], [1.0]]])
    h = tf.constant([[[1.0, 2.0]], [[-1.0, 4.0]]])  # [K=2, n=1, H=2]
    # first: relu(1, -1 + 4) = (1, 3) -> 1 + 9 + 0.5; second: relu(-1, 4) = (0, 4) -> 0 + 4 - 1
    assert towers(h).numpy().tolist() == [[10.5, 3.0]]


def test_towers_start_different() -> None:
    towers = Towers((4,), (0.0, 0.0), 0.0, seed=1)
    towers.build((2, None, 3))
    assert not np.isclose(towers.kernels[0].numpy()[0], towers.kernels[0].numpy()[1]).any()


def test_a_tower_without_layers_is_linear() -> None:
    towers = Towers((), (0.0,), 0.0, seed=1)
    towers.build((1, None, 2))
    towers.head.assign([[[2.0], [-1.0]]])
    assert towers(tf.constant([[[1.0, 5.0]]])).numpy().tolist() == [[-3.0]]


def test_the_shallow_tower_is_linear_without_layers() -> None:
    tower = ShallowTower(2, (), seed=1)
    tower.build((None, 2))
    tower.kernels[0].assign([[1.0, 2.0], [3.0, -1.0]])
    assert tower(tf.constant([[1.0, 1.0], [0.0, 0.0]])).numpy().tolist() == [[4.0, 1.0], [0.0, 0.0]]


def test_all_inputs_of_an_example_go_missing_together() -> None:
    block = tf.fill([2000, 3], 5), tf.ones([2000, 2])
    noise = Noise(tf.constant(1, tf.int64), tf.constant(0, tf.int64))
    ints, floats = (part.numpy() for part in missing(block, 0.3, noise))
    gone = ints[:, 0] == 0
    assert 0.27 < gone.mean() < 0.33
    assert (ints[gone] == 0).all()
    assert (floats[gone] == 0).all()
    assert (ints[~gone] == 5).all()
    assert (floats[~gone] == 1).all()


def test_config_round_trips() -> None:
    for layer in (Towers((2,), (0.5, -1.0), 0.1, seed=1), ShallowTower(2, (3,), seed=1)):
        assert type(layer).from_config(layer.get_config()).get_config() == layer.get_config()
