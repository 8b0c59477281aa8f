import numpy as np
import pytest
import tensorflow as tf
from network_samples import MODEL, TRUNK, random_blocks, random_targets, small_config, small_network, small_trainer
from trunk_samples import noise, small_trunk

from models.learnt import Columns, across, rectified

LEARNT = [True, False, False, True, False]


def test_columns_are_taken_in_order_and_their_gradient_goes_back_to_them() -> None:
    columns, x = Columns(LEARNT), tf.constant([[1.0, 2, 3, 4, 5], [6, 7, 8, 9, 10]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        taken = columns.of(x)
        total = tf.reduce_sum(taken * tf.constant([[10.0, 20], [30, 40]]))
    np.testing.assert_array_equal(taken, [[1, 4], [6, 9]])
    np.testing.assert_array_equal(tape.gradient(total, x), [[10, 0, 0, 20, 0], [30, 0, 0, 40, 0]])
    np.testing.assert_array_equal(columns.rows_of(tf.transpose(x)), [[1, 6], [4, 9]])


def test_where_no_column_is_learnt_none_has_a_gradient() -> None:
    columns, x = Columns([False, False]), tf.constant([[1.0, 2], [3, 4]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        taken = columns.of(x)
        total = tf.reduce_sum(taken)
    assert taken.shape == (2, 0)
    assert tape.gradient(total, x).numpy().tolist() == [[0, 0], [0, 0]]


def test_a_rectified_layer_by_hand() -> None:
    """x W + b = [1 1 + 2 1 - 4, 1 2 + 2 3 - 5] = [-1, 3]: the first unit is off."""
    x, kernel, bias = tf.constant([[1.0, 2]]), tf.constant([[1.0, 2], [1, 3]]), tf.constant([-4.0, -5])
    columns = Columns([True, False])
    with tf.GradientTape() as tape:
        tape.watch([x, kernel, bias])
        found = rectified(x, across(x), columns.of(x), tf.concat([kernel, bias[None]], 0), columns)
        total = tf.reduce_sum(found * tf.constant([[5.0, 7]]))
    of_x, of_kernel, of_bias = tape.gradient(total, [x, kernel, bias])
    np.testing.assert_array_equal(found, [[0, 3]])
    np.testing.assert_array_equal(of_x, [[7 * 2, 0]])  # the second column would have had 7 3
    np.testing.assert_array_equal(of_kernel, [[0, 7], [0, 14]])
    np.testing.assert_array_equal(of_bias, [0, 7])


@pytest.mark.parametrize("kind", ["mmoe", "separate", "shared_bottom", "soft_sharing", "ple"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_trunk_has_the_gradients_that_it_has_by_all_columns(kind: str, dropout: float) -> None:
    """Of its weights, and of the columns that are learnt; only gates, which are narrow, have one of the others too."""
    settings = {"kind": kind, "layers": [6, 5], **({"own_embeddings": False} if kind == "separate" else {})}
    x = tf.constant(np.random.default_rng(1).normal(size=(7, 5)).astype(np.float32))

    def gradients(columns: Columns | None) -> list[np.ndarray]:
        trunk = small_trunk(5, dropout=dropout, columns=columns, **settings)
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(tf.square(trunk(x, noise=noise()).h))
        weights = [weight.value for weight in trunk.trainable_variables]
        of_x, *of_weights = tape.gradient(total, [x, *weights])
        return [of_x.numpy()[:, LEARNT], *(gradient.numpy() for gradient in of_weights)]

    for mine, theirs in zip(gradients(Columns(LEARNT)), gradients(None), strict=True):
        assert np.abs(theirs).max() > 0
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


def test_a_network_of_numbers_and_embeddings_learns_both() -> None:
    """With the columns of x that come from embeddings, of every side and of products, and with all: the same step."""
    config = small_config(model={**MODEL, "trunk": {**TRUNK, "layers": [8, 4]}}, training={"deterministic": False})
    one, other = small_trainer(config), small_trainer(config)
    columns = one.network.trunk.columns
    assert 0 < len(columns.places) < columns.width == one.network.encoder.width
    other.network.trunk.networks.columns = None
    blocks, targets = random_blocks(one.network.layout, 40), random_targets(config, 40)
    start = {name: table.numpy() for name, table in one.network.embeddings.variables.items()}
    for trainer in (one, other):
        trainer.train_epoch(blocks, targets, np.arange(40), 1)
    for mine, theirs in zip(one.optimizers.variables, other.optimizers.variables, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-5)
    for name, table in one.network.embeddings.variables.items():
        assert not np.array_equal(table, start[name])


def test_the_encoder_says_which_columns_are_numbers() -> None:
    network = small_network(small_config())
    blocks = random_blocks(network.layout, 3)
    given = {side: (tf.constant(block.ints), tf.constant(block.floats)) for side, block in blocks.items()}
    moved = {side: (ints, floats + 1) for side, (ints, floats) in given.items()}
    changed = np.any(network.encoder(given).numpy() != network.encoder(moved).numpy(), axis=0)
    np.testing.assert_array_equal(changed, np.logical_not(network.encoder.learnt))
