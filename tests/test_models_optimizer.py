import numpy as np
import pytest
import tensorflow as tf
from network_samples import small_config, small_network

from models.average import Average
from models.optimizer import Adam, Optimizers, adagrad_rows, pad_rows

START = np.array([[1, 2], [3, 4], [5, 6], [7, 8]], np.float32)
RATE = 0.5


def slices(values: list[list[float]], rows: list[int]) -> tf.IndexedSlices:
    return tf.IndexedSlices(tf.constant(values), tf.constant(rows, tf.int32), tf.constant([4, 2]))


def test_adagrad_by_hand_on_the_rows_touched() -> None:
    table, accumulator = tf.Variable(START), tf.Variable(tf.zeros([4, 2]))
    gradients = [slices([[3.0, 0.0], [1.0, 2.0], [1.0, 2.0]], [2, 0, 0]), slices([[0.0, 3.0]], [0])]
    for gradient in gradients:
        adagrad_rows(table, accumulator, gradient, RATE)
    # row 0: g = (2, 4), a = (4, 16), step (1/2, 1/2); then g = (0, 3), a = (4, 25), step (0, 0.5 * 3 / 5)
    np.testing.assert_allclose(table[0], [1 - 0.5, 2 - 0.5 - 0.3], rtol=1e-6)
    np.testing.assert_allclose(table[2], [5 - 0.5, 6], rtol=1e-6)
    np.testing.assert_allclose(accumulator, [[4, 25], [0, 0], [9, 0], [0, 0]])
    for untouched in (1, 3):
        np.testing.assert_array_equal(table[untouched], START[untouched])


def test_the_sparse_step_is_the_dense_one_on_the_rows_touched() -> None:
    random = np.random.default_rng(0)
    table, accumulator = tf.Variable(START), tf.Variable(tf.zeros([4, 2]))
    dense, squares = START.astype(np.float64), np.zeros((4, 2))
    for _ in range(5):
        rows = random.choice([0, 1, 3], 6)
        values = random.normal(size=(6, 2)).astype(np.float32)
        adagrad_rows(table, accumulator, slices(values.tolist(), rows.tolist()), RATE)
        gradient = np.zeros((4, 2))
        np.add.at(gradient, rows, values)
        squares += gradient**2
        dense -= RATE * gradient / (np.sqrt(squares) + 1e-7)
    np.testing.assert_allclose(table, dense, rtol=1e-5)
    np.testing.assert_array_equal(table[2], START[2])


def test_adam_is_the_paper_s_and_leaves_what_has_no_gradient() -> None:
    moved, left = tf.Variable(START), tf.Variable(START)
    adam = Adam([moved, left], 0.1)
    random, w, m, v = np.random.default_rng(0), START.astype(np.float64), 0.0, 0.0
    for t in range(1, 6):
        g = random.normal(size=START.shape)
        adam.apply([tf.constant(g, tf.float32), None])
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        w -= 0.1 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (np.sqrt(v) + 1e-7)
    np.testing.assert_allclose(moved, w, rtol=1e-4)
    np.testing.assert_array_equal(left, START)
    assert int(adam.iterations) == 5
    adam.apply([None, None])
    assert int(adam.iterations) == 5


def optimizers(**training: object) -> Optimizers:
    config = small_config(training=training)
    return Optimizers(small_network(config), config.training)


def zeros(which: Optimizers) -> list[tf.Tensor]:
    return [tf.zeros_like(variable) for variable in which.variables]


def test_tables_are_grouped_by_their_rows() -> None:
    assert set(optimizers(sparse_rows=9).large) == {"user_id", "video_id", "device", "tags", "device_author"}
    assert set(optimizers(sparse_rows=10).large) == {"user_id"}
    assert not optimizers(sparse_rows=20).large


def test_weight_decay_is_decoupled_and_spares_biases() -> None:
    which = optimizers(learning_rate=0.1, weight_decay=0.5)
    which.weights[1].assign_add(tf.ones_like(which.weights[1]))
    before = [variable.numpy() for variable in which.variables]
    which.apply(zeros(which))
    for variable, old in zip(which.variables, before, strict=True):
        decays = "bias" not in variable.name and "table" not in variable.name
        np.testing.assert_allclose(variable, old * 0.95 if decays else old, rtol=1e-6)


def test_the_gradient_is_clipped_by_its_global_norm() -> None:
    """Adam divides by the gradient's size, so the first step tells nothing; its first moment does."""
    which = optimizers(gradient_clip=1.0)
    gradients = [tf.zeros_like(variable) for variable in which.variables]
    gradients[0] = gradients[0] + 10.0
    which.apply(gradients)
    size = np.sqrt(gradients[0].shape.num_elements())
    moment = which.slots()["weights/momentums/0"]
    np.testing.assert_allclose(moment, 0.1 * np.ones_like(moment) / size, rtol=1e-4)


def test_grown_slots_are_zero_in_the_new_rows() -> None:
    assert pad_rows(np.ones((2, 3)), (4, 3)).tolist() == [[1, 1, 1], [1, 1, 1], [0, 0, 0], [0, 0, 0]]


def test_the_average_by_hand() -> None:
    """Decays (1 + t) / (10 + t) at first: 1/10, 2/11; then 0.15 at most."""
    live = tf.Variable([1.0])
    average = Average({"w": live}, 0.15)
    live.assign([11.0])
    average.update(tf.constant(0))
    assert average.values["w"].numpy() == pytest.approx([0.1 * 1 + 0.9 * 11])
    average.update(tf.constant(1))
    assert average.values["w"].numpy() == pytest.approx([0.15 * 10 + 0.85 * 11])
    average.swap()
    assert live.numpy() == pytest.approx([10.85])
    assert average.values["w"].numpy() == pytest.approx([11.0])


def test_a_lower_ramp_averages_over_more_steps() -> None:
    """(1 + t) / (2 + t), with w = t + 1 after step t: the plain mean of the start and all of them."""
    live = tf.Variable([0.0])
    average = Average({"w": live}, 0.99, ramp=2.0)
    for t in range(6):
        live.assign([t + 1.0])
        average.update(tf.constant(t))
    assert average.values["w"].numpy() == pytest.approx([sum(range(7)) / 7])
