import numpy as np
import pytest
import tensorflow as tf
from network_samples import CONTEXT, EVERYTHING, USER, random_blocks, small_config, small_network

from data.errors import ConfigError
from models.encoder import Split, linear, side_slices, side_width


def tensors(blocks):  # type: ignore[no-untyped-def]
    return {side: (tf.constant(block.ints), tf.constant(block.floats)) for side, block in blocks.items()}


def test_sides_stand_in_the_documented_order() -> None:
    network = small_network(small_config())
    layout = network.layout
    slices = side_slices(layout)
    # user: 4 + 6, recent: 2 labels x 2 lengths x (mean, null); context 3; video: 6 + 3, 2; cross: 2, 2
    assert {side: (part.start, part.stop) for side, part in slices.items()} == {
        "user": (0, 18),
        "context": (18, 21),
        "video": (21, 32),
        "cross": (32, 36),
    }
    assert network.encoder.width == 36
    blocks = random_blocks(layout, 5)
    x = network.encoder(tensors(blocks)).numpy()
    for side, part in slices.items():
        np.testing.assert_array_equal(x[:, part], network.embed(side, blocks[side]))
    np.testing.assert_array_equal(x[:, 10:18], blocks["user"].floats)
    np.testing.assert_array_equal(x[:, :4], network.embeddings.variables["user_id"].numpy()[blocks["user"].ints[:, 0]])


def test_a_side_without_features_has_no_width() -> None:
    network = small_network(small_config([*USER]))
    assert side_width(network.layout, "cross") == 0
    assert network.encoder(tensors(random_blocks(network.layout, 3))).shape == (3, 18)


def test_only_training_features_are_no_network() -> None:
    with pytest.raises(ConfigError, match="no input"):
        small_network(small_config([{"kind": "number", "name": "position", "column": "position"}]))


def test_linear_of_a_split_by_hand() -> None:
    kernel = tf.constant([[[1.0], [10.0], [100.0]], [[2.0], [0.0], [1.0]]])  # [2, 3, 1]
    split = Split(tf.constant([[1.0, 2.0]]), tf.constant([[3.0], [4.0]]))
    assert linear(split, kernel).numpy().tolist() == [[[321.0], [421.0]], [[5.0], [6.0]]]
    nothing_fixed = Split(tf.zeros([1, 0]), tf.constant([[1.0, 2.0, 3.0]]))
    assert linear(nothing_fixed, kernel).numpy().tolist() == [[[321.0]], [[5.0]]]


def test_penalty_by_hand() -> None:
    """l2 = 0.01 on the user's embedding alone, over the rows that count."""
    network = small_network(small_config())
    x = tf.reshape(tf.range(3 * 36, dtype=tf.float32), [3, 36])
    rows = tf.constant([1.0, 0.0, 1.0])
    squares = [float((x.numpy()[i, :4] ** 2).sum()) for i in (0, 2)]
    assert float(network.encoder.penalty(x, rows)) == pytest.approx(0.01 * sum(squares) / 2)
    without = small_network(small_config([*CONTEXT]))
    assert float(without.encoder.penalty(x, rows)) == 0


def test_features_of_one_table_share_it() -> None:
    network = small_network(small_config(EVERYTHING))
    assert set(network.embeddings.variables) == {"user_id", "video_id", "device", "tags", "device_author"}


PRODUCTS = [["watched", "video"], ["user_again", "author"]]
AGAIN = [
    {"kind": "category", "name": "user_again", "column": "user_id", "table": "again", "dim": 3},
    {"kind": "category", "name": "author", "column": "author", "dim": 3},
]


def test_products_stand_behind_the_sides_and_split_like_them() -> None:
    network = small_network(small_config([*EVERYTHING, *AGAIN], model={"products": PRODUCTS}))
    blocks = random_blocks(network.layout, 5)
    x = network.encoder(tensors(blocks)).numpy()
    stop = side_slices(network.layout)["cross"].stop
    assert network.encoder.width == x.shape[1] == stop + 6 + 3
    one = {
        side: block.take(np.zeros(5, np.int64)) if side in ("user", "context") else block for side, block in blocks.items()
    }
    user, video = network.embed("user", one["user"]), network.embed("video", one["video"])
    video_table = network.embeddings.variables["video_id"].numpy()
    np.testing.assert_array_equal(video[:, :6], video_table[blocks["video"].ints[:, 0]])
    joined = network.encoder(tensors(one)).numpy()
    np.testing.assert_allclose(joined[:, stop : stop + 6], user[:, 4:10] * video[:, :6], rtol=1e-6)
    request = {
        side: block.take(np.zeros(1, np.int64)) if side in ("user", "context") else block for side, block in blocks.items()
    }
    split = network.encoder.split(tensors(request))
    np.testing.assert_allclose(np.concatenate([np.repeat(split.fixed, 5, 0), split.moving], 1), joined, rtol=1e-6)


@pytest.mark.parametrize(
    ("products", "says"),
    [
        ([["watched", "nobody"]], "'nobody' is not a feature with an embedding"),
        ([["video", "watched"]], "one of the video"),
        ([["device", "video"]], "dims of .* are 3 and 6"),
        ([["device_shown", "video"]], "known in serving"),
    ],
)
def test_products_that_cannot_be(products: list[list[str]], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        small_config(model={"products": products})
