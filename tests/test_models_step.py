import gc
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from network_samples import (
    CLICK,
    CONTEXT,
    LIKE,
    MODEL,
    TRUNK,
    USER,
    VIDEO,
    WATCH,
    random_blocks,
    random_targets,
    small_config,
    small_network,
    small_trainer,
    table_sizes,
)

from data.errors import BundleError
from models import step
from models.balancing.gradients import gradients_of
from models.step import Trainer

ROWS = 40
ALL_DROPOUT = {**MODEL, "dropout": 0.2, "input_dropout": 0.1, "bias_dropout": 0.3, "bias_layers": [3]}
EXACT = {"average": 0.9, "weight_decay": 0.01, "gradient_clip": 1.0, "sparse_rows": 15}  # the users' table is large


def run(trainer: Trainer, seed: int = 1, epochs: int = 1) -> np.ndarray:
    config = trainer.network.config
    blocks = random_blocks(trainer.network.layout, ROWS)
    targets = random_targets(config, ROWS)
    for epoch in range(epochs):
        losses = trainer.train_epoch(blocks, targets, np.random.default_rng(seed + epoch).permutation(ROWS), seed)
    return losses


def state(trainer: Trainer) -> list[np.ndarray]:
    slots = trainer.optimizers.slots()
    averages = trainer.average.values.values() if trainer.average else []
    return [*(v.numpy() for v in trainer.optimizers.variables), *slots.values(), *(a.numpy() for a in averages)]


def assert_same(one: Trainer, other: Trainer) -> None:
    for mine, theirs in zip(state(one), state(other), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_the_loss_goes_down_and_an_absent_objective_has_none() -> None:
    trainer = small_trainer(small_config(training={"deterministic": False}))
    blocks, targets = random_blocks(trainer.network.layout, ROWS), random_targets(trainer.network.config, ROWS)
    targets[:, 1] = np.nan
    seen = []
    first = trainer.train_epoch(blocks, targets, np.arange(ROWS), 1, lambda rows, losses: seen.append((rows, losses)))
    assert [rows for rows, _ in seen] == [16, 16, 8]
    assert np.isnan(first).tolist() == [False, True, False]
    for _ in range(30):
        last = trainer.train_epoch(blocks, targets, np.arange(ROWS), 1)
    assert (last[[0, 2]] < first[[0, 2]]).all()


def test_many_batches_in_one_call_are_steps_one_by_one() -> None:
    """Over batches of 16, 16 and 8 rows, with dropout, decay, clipping, an average and a sparsely updated table."""
    config = small_config(model=ALL_DROPOUT, training={**EXACT, "deterministic": False})
    together, apart = small_trainer(config), small_trainer(config)
    mean = run(together)
    blocks, targets = random_blocks(apart.network.layout, ROWS), random_targets(config, ROWS)
    order, found = np.random.default_rng(1).permutation(ROWS), []
    one_step = tf.function(apart.graph.step, autograph=False, reduce_retracing=True)
    for start in range(0, ROWS, 16):
        rows = order[start : start + 16]
        given = {side: (block.ints[rows], block.floats[rows]) for side, block in blocks.items()}
        found.append([part.numpy() for part in one_step(given, targets[rows], tf.constant(1, tf.int64))])
    assert int(together.steps) == int(apart.steps) == 3
    for mine, theirs in zip(state(together), state(apart), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=2e-5, atol=1e-6)
    losses, counts = (np.array(values, np.float64) for values in zip(*found, strict=True))
    np.testing.assert_allclose(mean, (losses * counts).sum(0) / counts.sum(0), rtol=1e-5)


def test_where_a_call_ends_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    config = small_config(model=ALL_DROPOUT, training=EXACT)
    one, other = small_trainer(config), small_trainer(config)
    losses = run(one)
    monkeypatch.setattr(step, "CALL_ROWS", 1)
    np.testing.assert_array_equal(run(other), losses)
    assert_same(one, other)


def test_same_seed_same_bits_and_another_seed_others() -> None:
    config = small_config(model=ALL_DROPOUT, training=EXACT)
    one, other, third = (small_trainer(config) for _ in range(3))
    np.testing.assert_array_equal(run(one), run(other))
    assert_same(one, other)
    run(third, seed=2)
    assert not np.array_equal(third.network.weights["trunk/kernel_0"], one.network.weights["trunk/kernel_0"])


def test_the_configuration_s_seed_sets_the_start() -> None:
    one, other = small_network(small_config()), small_network(small_config(seed=8))
    assert not np.isclose(one.weights["trunk/kernel_0"], other.weights["trunk/kernel_0"]).any()
    assert not np.isclose(one.embeddings.variables["tags"], other.embeddings.variables["tags"]).any()


def test_a_loaded_trainer_goes_on_to_the_bit(tmp_path: Path) -> None:
    config = small_config(model=ALL_DROPOUT, training=EXACT)
    trainer, fresh = small_trainer(config), small_trainer(config)
    run(trainer)
    trainer.save(tmp_path / "state")
    fresh.load(tmp_path / "state")
    assert_same(trainer, fresh)
    assert int(fresh.steps) == 3
    np.testing.assert_array_equal(run(trainer, seed=5, epochs=2), run(fresh, seed=5, epochs=2))
    assert_same(trainer, fresh)
    assert {path.suffix for path in (tmp_path / "state").iterdir()} == {".npy", ".json"}


@pytest.mark.parametrize("rows", [11, 16, 300])
def test_loading_into_grown_tables_is_growing_after_loading(tmp_path: Path, rows: int) -> None:
    """From 10 rows in room for 256: into the spare rows (11, and across ``sparse_rows`` 16), and beyond them (300)."""
    config = small_config(training=EXACT)
    trainer, grown = small_trainer(config), small_trainer(config, rows)
    trainer.network.weights["towers/head_bias"].assign_add([1.0, 2.0, 3.0])
    trainer.network.embeddings.variables["tags"].assign_add(np.full((256, 3), 0.5, np.float32))
    trainer.optimizers.restore({name: values + 1 for name, values in trainer.optimizers.slots().items()})
    before = trainer.network.embeddings.variables["tags"].numpy()
    averaged = trainer.average.values["table/tags"].numpy()
    trainer.save(tmp_path)
    trainer.grow(table_sizes(trainer.network.layout, rows))
    grown.load(tmp_path)
    assert_same(trainer, grown)
    assert grown.network.table_sizes == table_sizes(trainer.network.layout, rows)
    table = grown.network.embeddings.variables["tags"].numpy()
    np.testing.assert_array_equal(table[:10], before[:10])
    assert (table[10:rows] == before[0]).all()
    if rows <= 15:
        np.testing.assert_array_equal(grown.average.values["table/tags"].numpy()[10:rows], averaged[[0] * (rows - 10)])
        moments = grown.optimizers.slots()["tables/momentums/tags"]
        assert (moments[:10] == 1).all()
    else:
        assert set(grown.optimizers.large) == {"user_id", "video_id", "device", "tags", "device_author"}


def test_a_grown_trainer_goes_on_to_the_bit(tmp_path: Path) -> None:
    config = small_config(training=EXACT)
    trainer, loaded = small_trainer(config), small_trainer(config, rows=300)
    trainer.save(tmp_path)
    trainer.grow(table_sizes(trainer.network.layout, 300))
    loaded.load(tmp_path)
    np.testing.assert_array_equal(run(trainer), run(loaded))
    assert_same(trainer, loaded)


def test_growth_does_not_change_predictions_of_old_rows() -> None:
    trainer = small_trainer(small_config(training={"average": 0.9}))
    blocks = random_blocks(trainer.network.layout, ROWS)
    before, _ = trainer.predict(blocks)
    trainer.grow(table_sizes(trainer.network.layout, 300))
    np.testing.assert_array_equal(trainer.predict(blocks)[0], before)


def test_position_has_no_effect_on_predictions_but_on_training() -> None:
    config = small_config(training={"deterministic": False})
    trainer, other = small_trainer(config), small_trainer(config)
    blocks, targets = random_blocks(trainer.network.layout, ROWS), random_targets(config, ROWS)
    moved = {**blocks, "training_only": random_blocks(trainer.network.layout, ROWS, seed=9)["training_only"]}
    np.testing.assert_array_equal(trainer.predict(blocks)[0], trainer.predict(moved)[0])
    assert (
        trainer.train_epoch(blocks, targets, np.arange(16), 1) != other.train_epoch(moved, targets, np.arange(16), 1)
    ).any()


def test_training_without_noise_of_the_shallow_tower_adds_what_it_says() -> None:
    """With the position's weight at 1 for the first objective, 100 more is 100 more in training, 0 in prediction."""
    model = {**MODEL, "trunk": {**TRUNK, "expert_dropout": 0.0}, "bias_dropout": 0.0}
    features = [*VIDEO, {"kind": "number", "name": "position", "column": "position"}]
    trainer = small_trainer(small_config(features, (CLICK,), model, {"deterministic": False, "learning_rate": 1e-9}))
    kernel = trainer.network.weights["shallow_tower/kernel_0"]
    kernel.assign([[1.0], [0.0]])
    blocks = random_blocks(trainer.network.layout, 8)
    far = replace(blocks["training_only"], floats=np.tile(np.float32([100, 0]), (8, 1)))
    targets = np.zeros((8, 1), np.float32)
    loss = trainer.train_epoch({**blocks, "training_only": far}, targets, np.arange(8), 1)
    predictions, _ = trainer.predict({**blocks, "training_only": far})
    logits = np.log(predictions / (1 - predictions))
    assert loss[0] == pytest.approx(100 + logits.mean(), rel=1e-4)


def test_predictions_are_repeatable_and_utilisation_sums_to_one() -> None:
    trainer = small_trainer(small_config(model={**ALL_DROPOUT, "dropout": 0.5}))
    blocks = random_blocks(trainer.network.layout, 5000)
    one, gates = trainer.predict(blocks)
    np.testing.assert_array_equal(one, trainer.predict(blocks)[0])
    assert one.shape == (5000, 3)
    assert one.dtype == np.float32
    np.testing.assert_allclose(gates.sum(1), 1, rtol=1e-6)
    empty, unknown = trainer.predict(random_blocks(trainer.network.layout, 0))
    assert empty.shape == (0, 3)
    assert np.isnan(unknown).all()


def test_averaged_weights_predict_and_training_goes_on_with_its_own() -> None:
    trainer = small_trainer(small_config(training={"average": 0.9}))
    bias = trainer.network.weights["towers/head_bias"]
    start = bias.numpy()
    bias.assign_add([1.0, 1.0, 1.0])
    with trainer.averaged() as network:
        np.testing.assert_array_equal(network.weights["towers/head_bias"], start)
    np.testing.assert_array_equal(bias, start + 1)
    blocks = random_blocks(trainer.network.layout, 20)
    predictions, _ = trainer.predict(blocks)
    bias.assign(start)
    np.testing.assert_array_equal(trainer.predict(blocks)[0], predictions)


def test_the_untrained_network_predicts_about_the_mean() -> None:
    predictions, _ = small_trainer(small_config()).predict(random_blocks(small_network(small_config()).layout, 500))
    assert abs(predictions[:, 0].mean() - 0.3) < 0.15


@pytest.mark.parametrize("features", [[*CONTEXT, *VIDEO], [*USER, *VIDEO]])
def test_sides_without_features_train(features: list[dict]) -> None:
    trainer = small_trainer(small_config(features, (WATCH, LIKE), training={"deterministic": False}))
    assert np.isfinite(run(trainer)).all()


def test_a_state_of_another_network_is_refused(tmp_path: Path) -> None:
    small_trainer(small_config()).save(tmp_path)
    other = small_trainer(small_config(model={**MODEL, "trunk": {**TRUNK, "experts": 4}}))
    with pytest.raises(BundleError, match=r"trunk/kernel_0 should have shape \(4, 36, 8\), got \(3, 36, 8\)"):
        other.load(tmp_path)


def test_a_damaged_state_is_refused_by_name(tmp_path: Path) -> None:
    trainer = small_trainer(small_config())
    trainer.save(tmp_path)
    (tmp_path / "0002.npy").write_bytes(b"no array")
    with pytest.raises(BundleError, match=r"0002\.npy"):
        trainer.load(tmp_path)
    (tmp_path / "index.json").write_text("{")
    with pytest.raises(BundleError, match=r"index\.json"):
        trainer.load(tmp_path)


def test_products_in_bfloat16_leave_weights_in_float32_and_end_with_the_next_trainer() -> None:
    trainer = small_trainer(small_config(training={"bfloat16": True}))
    first, last = run(trainer), run(trainer, seed=2, epochs=5)
    assert (last < first).all()
    assert {variable.dtype for variable in trainer.optimizers.variables} == {tf.float32}
    assert tf.config.optimizer.get_experimental_options()[step.BFLOAT16]
    assert_same(*(small_trainer(small_config()) for _ in range(2)))
    assert not tf.config.optimizer.get_experimental_options()[step.BFLOAT16]


def test_gradients_of_biases_are_not_added_up_in_bfloat16() -> None:
    """There a sum of ones ends at 256, since 257 is 256 again."""
    small_trainer(small_config(training={"bfloat16": True}))
    x, kernel, bias = tf.ones([4096, 8]), tf.Variable(tf.ones([8, 8])), tf.Variable(tf.ones([8]))

    @tf.function
    def gradients() -> list[tf.Tensor]:
        units = tf.nn.relu(tf.nn.bias_add(tf.matmul(x, kernel), bias))
        return gradients_of(tf.reduce_sum(tf.matmul(units, tf.eye(8))), [kernel, bias])

    try:
        for found in gradients():
            np.testing.assert_array_equal(found, np.full(found.shape, 4096.0))
    finally:
        small_trainer(small_config())


def test_nothing_of_before_stays_when_tables_are_replaced() -> None:
    trainer = small_trainer(small_config(training=EXACT))
    run(trainer)
    trainer.predict(random_blocks(trainer.network.layout, ROWS))
    before = [weakref.ref(variable.handle) for variable in trainer.optimizers._slots().values()]
    before += [weakref.ref(variable.handle) for variable in trainer.network.embeddings.variables.values()]
    trainer.grow({name: rows + 1000 for name, rows in trainer.network.table_sizes.items()})
    gc.collect()
    assert [handle for handle in before if handle() is not None] == []
    run(trainer)
