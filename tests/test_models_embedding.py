import numpy as np
import pytest
import tensorflow as tf

from data.features.layout import IntField
from models.embedding import SMALL, WIDEST, Embeddings, capacity_for
from models.noise import Noise

ONE = IntField("one", "t", 0, 1, pooled=False)
BAG = IntField("bag", "t", 1, 3, pooled=True)
IDS = tf.constant([[1, 2, 2, -1], [0, -1, -1, -1], [3, 0, 1, 2]], tf.int32)
TABLE = np.array([[1, 10], [2, 20], [4, 40], [8, 80]], np.float32)
EXPECTED_ONE = [[2, 20], [1, 10], [8, 80]]
EXPECTED_BAG = [[4, 40], [0, 0], [7 / 3, 70 / 3]]  # the mean over the places that are not padding


def embeddings() -> Embeddings:
    made = Embeddings({"t": 2}, {"t": 4}, seed=1, spare=False)
    made.variables["t"].assign(TABLE)
    return made


def noise() -> Noise:
    return Noise(tf.constant(1, tf.int64), tf.constant(0, tf.int64))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("sparse", [set(), {"t"}])
def test_fields_by_hand(training: bool, sparse: set[str]) -> None:
    tables = embeddings()
    tables.sparse = sparse
    one, bag = tables.look_up((ONE, BAG), IDS, noise() if training else None)
    np.testing.assert_allclose(one, EXPECTED_ONE)
    np.testing.assert_allclose(bag, EXPECTED_BAG, rtol=1e-6)


def test_a_bag_of_a_small_table_is_that_of_a_large_one() -> None:
    """The mean over the places that are not padding has a way of its own for tables that may be copied."""
    random = np.random.default_rng(0)
    values, ids = random.normal(size=(SMALL, 3)).astype(np.float32), random.integers(-1, SMALL, (50, 4)).astype(np.int32)
    ids[:3] = [[-1, -1, -1, -1], [0, -1, -1, SMALL - 1], [5, 5, 5, 5]]
    small, large = (Embeddings({"t": 3}, {"t": SMALL + more}, seed=1, spare=False) for more in (0, 1))
    small.variables["t"].assign(values)
    large.variables["t"].assign(np.concatenate([values, values[:1]]))
    bag = (IntField("bag", "t", 0, 4, pooled=True),)
    found, same = (tables.look_up(bag, tf.constant(ids))[0] for tables in (small, large))
    expected = [values[row[row >= 0]].sum(0) / max((row >= 0).sum(), 1) for row in ids]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(same, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sparse", [set(), {"t"}])
def test_fields_that_share_a_table_get_together_what_each_gets_alone(sparse: set[str]) -> None:
    random, tables = np.random.default_rng(0), embeddings()
    tables.sparse = sparse
    fields = (ONE, BAG, IntField("other", "t", 4, 1, pooled=False), IntField("bag2", "t", 5, 2, pooled=True))
    ids = random.integers(-1, 4, (50, 7)).astype(np.int32)
    ids[:, [0, 4]] = np.maximum(ids[:, [0, 4]], 0)
    weights = tf.constant(random.normal(size=(4, 50, 2)), tf.float32)
    table = tables.variables["t"]
    with tf.GradientTape(persistent=True) as tape:
        together = tf.stack(tables.look_up(fields, tf.constant(ids), noise()))
        alone = tf.stack([tables.look_up((field,), tf.constant(ids), noise())[0] for field in fields])
        totals = [tf.reduce_sum(found * weights) for found in (together, alone)]
    np.testing.assert_array_equal(together, alone)
    one, other = (tf.convert_to_tensor(tape.gradient(total, table)) for total in totals)
    np.testing.assert_allclose(one, other, rtol=1e-5)


@pytest.mark.parametrize("sparse", [set(), {"t"}])
def test_gradients_by_hand(sparse: set[str]) -> None:
    """d/dT of the sum of all: row 0 is seen once alone and as a third of a bag, and so on."""
    tables = embeddings()
    tables.sparse = sparse
    with tf.GradientTape() as tape:
        total = tf.add_n([tf.reduce_sum(part) for part in tables.look_up((ONE, BAG), IDS, noise())])
    gradient = tape.gradient(total, tables.variables["t"])
    assert isinstance(gradient, tf.IndexedSlices) == bool(sparse)
    expected = [1 + 1 / 3, 1 + 1 / 3, 1 + 1 / 3, 1]
    np.testing.assert_allclose(tf.convert_to_tensor(gradient)[:, 0], expected, rtol=1e-6)


@pytest.mark.parametrize("sparse", [set(), {"t"}])
@pytest.mark.parametrize("dim", [WIDEST, WIDEST + 1, 3 * WIDEST])
def test_a_wide_table_is_looked_up_in_pieces(dim: int, sparse: set[str]) -> None:
    """Each column has what it has in a table of its own."""
    random = np.random.default_rng(0)
    values, weights = random.normal(size=(4, dim)).astype(np.float32), random.normal(size=(2, 3, dim)).astype(np.float32)

    def found(columns: slice) -> tuple[np.ndarray, np.ndarray]:
        tables = Embeddings({"t": len(range(dim)[columns])}, {"t": 4}, seed=1, spare=False)
        tables.sparse = sparse
        tables.variables["t"].assign(values[:, columns])
        with tf.GradientTape() as tape:
            parts = tf.stack(tables.look_up((ONE, BAG), IDS, noise()))
            total = tf.reduce_sum(parts * weights[:, :, columns])
        return parts.numpy(), tf.convert_to_tensor(tape.gradient(total, tables.variables["t"])).numpy()

    together = found(slice(None))
    alone = [found(slice(column, column + 1)) for column in range(dim)]
    for i in (0, 1):
        np.testing.assert_array_equal(together[i], np.concatenate([own[i] for own in alone], -1))


@pytest.mark.parametrize("sparse", [set(), {"t"}])
def test_the_gradient_of_a_batch_of_empty_bags_is_zero(sparse: set[str]) -> None:
    """TensorFlow's gradient of a segment mean without entries was whatever memory held before."""
    tables = Embeddings({"t": 8}, {"t": 4}, seed=1)
    tables.sparse = sparse
    bag = IntField("bag", "t", 0, 3, pooled=True)
    for _ in range(20):
        del_me = [tf.fill([256, 8], float("nan")) for _ in range(20)]
        del del_me
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(tables.look_up((bag,), tf.fill([5, 3], -1), noise())[0])
        assert (tf.convert_to_tensor(tape.gradient(total, tables.variables["t"])).numpy() == 0).all()


def test_dropout_shows_the_default_row_in_training_only() -> None:
    tables = embeddings()
    field = IntField("one", "t", 0, 1, pooled=False, dropout=0.25)
    ids = tf.fill([4000, 1], 3)
    assert (tables.look_up((field,), ids)[0].numpy() == TABLE[3]).all()
    seen = tables.look_up((field,), ids, noise())[0].numpy()[:, 0]
    assert set(seen) == {1.0, 8.0}
    assert (seen == 1).mean() == pytest.approx(0.25, abs=0.03)


def test_growth_copies_row_0_and_moves_nothing() -> None:
    tables = Embeddings({"t": 3, "u": 2}, {"t": 5, "u": 2}, seed=1)
    before = {name: variable.numpy().copy() for name, variable in tables.variables.items()}
    assert before["t"].shape == (256, 3)
    assert not tables.grow({"t": 256, "u": 2})  # into the spare rows: the variable stays
    assert tables.grow({"t": 257, "u": 2})
    after = tables.variables["t"].numpy()
    assert after.shape == (512, 3)
    np.testing.assert_array_equal(after[:5], before["t"][:5])
    assert (after[5:257] == before["t"][0]).all()
    np.testing.assert_array_equal(tables.variables["u"].numpy(), before["u"])
    assert tables.sizes == {"t": 257, "u": 2}


def test_growth_copies_row_0_as_it_is_then() -> None:
    tables = Embeddings({"t": 2}, {"t": 5}, seed=1)
    tables.variables["t"].scatter_nd_update([[0]], [[7.0, 9.0]])
    tables.grow({"t": 6})
    assert tables.variables["t"].numpy()[5].tolist() == [7, 9]


def test_a_table_does_not_shrink() -> None:
    with pytest.raises(ValueError, match="'t' has 4 rows and cannot shrink to 3"):
        embeddings().grow({"t": 3})


def test_capacities() -> None:
    assert [capacity_for(rows) for rows in (1, 170, 171, 172, 682, 1024)] == [256, 256, 256, 512, 1024, 1536]


def test_a_row_of_small_neighbours_is_looked_up_at_once() -> None:
    """Dims 2, 1 and 3 one below the other; the bag, and what is too large, apart."""
    sizes = {"t": 4, "narrow": 3, "wide": 5, "large": SMALL + 1}
    tables = Embeddings({"t": 2, "narrow": 1, "wide": 3, "large": 2}, sizes, seed=1, spare=False)
    fields = (
        ONE,
        IntField("narrow", "narrow", 4, 1, pooled=False),
        IntField("wide", "wide", 5, 1, pooled=False),
        IntField("large", "large", 6, 1, pooled=False),
        BAG,
    )
    ints = tf.constant([[3, 1, 2, -1, 2, 4, SMALL]], tf.int32)
    parts = tables.look_up_row(fields, ints)
    assert [part.shape[1] for part in parts] == [2 + 1 + 3, 2, 2]
    np.testing.assert_array_equal(tf.concat(parts, 1), tf.concat(tables.look_up(fields, ints), 1))
