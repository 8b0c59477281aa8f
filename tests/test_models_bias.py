import tensorflow as tf

from models.bias import ShallowTower, missing
from models.noise import Noise


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
    layer = ShallowTower(2, (3,), seed=1)
    assert ShallowTower.from_config(layer.get_config()).get_config() == layer.get_config()
