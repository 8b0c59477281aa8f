from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from network_samples import MODEL, random_blocks, random_targets, small_config, small_network, small_trainer, table_sizes

from data.errors import ConfigError

TASTE = {"objectives": ["click"], "request": ["user", "watched"], "video": ["video"], "dim": 2, "l2": 0.5}
LIKING = {"objectives": ["like", "watch"], "request": ["device"], "video": ["video", "tags"], "dim": 3}
FACTORS = {**MODEL, "factors": [TASTE, LIKING]}


def tensors(blocks):  # type: ignore[no-untyped-def]
    return {side: (tf.constant(block.ints), tf.constant(block.floats)) for side, block in blocks.items()}


def test_every_role_has_a_table_of_its_own_with_the_rows_of_its_vocabulary() -> None:
    network = small_network(small_config(model=FACTORS))
    tables = {name: network.table_sizes[name] for name in network.table_sizes if "." in name}
    assert tables == {
        "user_id.request_0": 20,
        "video_id.request_0": 10,  # watched
        "video_id.video_0": 10,  # offered
        "device.request_1": 10,
        "video_id.video_1": 10,
        "tags.video_1": 10,
    }


def test_product_and_penalty_by_hand() -> None:
    network = small_network(small_config(model=FACTORS))
    tables = network.embeddings.variables
    tables["user_id.request_0"][3].assign([1.0, 2.0])
    tables["video_id.request_0"][4].assign([4.0, 0.0])
    tables["video_id.request_0"][5].assign([0.0, 2.0])
    tables["video_id.video_0"][6].assign([3.0, -1.0])
    blocks = random_blocks(network.layout, 1)
    blocks["user"].ints[0] = [3, 4, 5, -1, -1, -1]  # user 3, who watched 4 and 5: mean (2, 1)
    blocks["video"].ints[0, 0] = 6
    product, penalty = network.factors[0](tensors(blocks), None)
    assert product.numpy().tolist() == [[(1 + 2) * 3 - (2 + 1) * 1]]
    assert float(penalty) == 0.5 * ((1 + 4) + (4 + 1) + (9 + 1))


def test_they_move_the_objectives_that_they_serve_and_no_other() -> None:
    network = small_network(small_config(model=FACTORS))
    blocks = tensors(random_blocks(network.layout, 8))
    before = network.forward(blocks).raw.numpy()
    table = network.embeddings.variables["user_id.request_0"]
    table.assign(table + 1)
    after = network.forward(blocks).raw.numpy()
    assert (after[:, 0] != before[:, 0]).all()
    np.testing.assert_array_equal(after[:, 1:], before[:, 1:])


def test_a_product_of_ids_is_learnt() -> None:
    """Whether the user's number plus the video's is even: no id says anything by itself."""
    model = {**MODEL, "factors": [{**TASTE, "request": ["user"], "dim": 4, "l2": 1e-4}]}
    config = small_config(model=model, training={"deterministic": False, "embedding_learning_rate": 0.05})
    trainer = small_trainer(config)
    blocks, targets = random_blocks(trainer.network.layout, 400), random_targets(config, 400)
    even = (blocks["user"].ints[:, 0] + blocks["video"].ints[:, 0]) % 2 == 0
    targets[:, 0] = even
    for _ in range(10):
        trainer.train_epoch(blocks, targets, np.arange(400), 1)
    p, _ = trainer.network.factors[0](tensors(blocks), None)
    assert (p.numpy()[even] > 0).mean() > 0.95
    assert (p.numpy()[~even] < 0).mean() > 0.95


def test_a_saved_state_goes_on_to_the_bit_and_grows(tmp_path: Path) -> None:
    config = small_config(model=FACTORS, training={"average": 0.9})
    trainer, loaded = small_trainer(config), small_trainer(config, rows=300)
    blocks, targets = random_blocks(trainer.network.layout, 40), random_targets(config, 40)
    trainer.train_epoch(blocks, targets, np.arange(40), 1)
    trainer.save(tmp_path)
    before, _ = trainer.predict(blocks)
    trainer.grow(table_sizes(trainer.network.layout, 300))
    np.testing.assert_array_equal(trainer.predict(blocks)[0], before)
    assert trainer.network.table_sizes["user_id.request_0"] == 600
    loaded.load(tmp_path)
    assert loaded.network.table_sizes == trainer.network.table_sizes
    for each in (trainer, loaded):
        each.train_epoch(blocks, targets, np.arange(40), 2)
    np.testing.assert_array_equal(trainer.predict(blocks)[0], loaded.predict(blocks)[0])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"objectives": ["clicks"]}, r"model.factors\[0\].objectives: unknown objective 'clicks'"),
        ({"request": ["recent"]}, r"model.factors\[0\].request: 'recent' is not a feature with an embedding"),
        ({"request": ["video"]}, r"'video' is of the video side, expected user or context"),
        ({"video": ["device_author"]}, r"'device_author' is of the cross side, expected video"),
        ({"video": ["device_shown"]}, r"'device_shown' is of the training_only side, expected video"),
        ({"rank": 3}, "rank: unknown key"),
    ],
)
def test_factors_that_cannot_be(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        small_config(model={"factors": [{**TASTE, **changes}]})
