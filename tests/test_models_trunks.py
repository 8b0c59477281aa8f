"""What every trunk must do, in the network: learn, serve what it learnt, and start from its seed."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from network_samples import (
    CONTEXT,
    MODEL,
    TRAINING_ONLY,
    USER,
    VIDEO,
    one_request,
    random_blocks,
    random_targets,
    repeated,
    small_config,
    small_network,
)
from trunk_samples import ONE_EACH, SETTINGS, noise, small_trunk

from data.config import Config
from data.features.layout import Block
from models.network import Network
from models.noise import Noise

FEATURES = [USER[0], *CONTEXT, VIDEO[0], VIDEO[2], TRAINING_ONLY[0]]
N = 24
MOST = [name for name in SETTINGS if name not in ("separate, shared embeddings", "addition", "gating", "cgc", "home, bare")]


def config(name: str, **model: Any) -> Config:
    return small_config(FEATURES, model={**MODEL, "trunk": SETTINGS[name], "dropout": 0.1, **model})


def tensors(blocks: dict[str, Block]) -> dict[str, tuple[tf.Tensor, tf.Tensor]]:
    return {side: (tf.constant(block.ints), tf.constant(block.floats)) for side, block in blocks.items()}


def loss(network: Network, step: Noise | None) -> tf.Tensor:
    """The training loss of 64 rows."""
    blocks, targets = random_blocks(network.layout, 64), random_targets(network.config, 64)
    outputs = network.forward(tensors(blocks), step)
    losses, _ = network.heads.losses(outputs.raw, targets, tensors(blocks))
    return tf.reduce_sum(losses) + outputs.penalty + network.embedding_penalty(outputs.x, tf.ones(64))


def stir(network: Network) -> None:
    """Move the weights off their start, where biases are 0 and scales 1."""
    random = np.random.default_rng(1)
    for weight in network.weights.values():
        weight.assign_add(random.normal(0, 0.1, weight.shape).astype(np.float32))


@pytest.mark.parametrize("name", MOST)
def test_gradients_reach_every_weight_and_training_lowers_a_finite_loss(name: str) -> None:
    network = small_network(config(name))
    variables = [*network.weights.values(), *network.embeddings.variables.values()]
    first = float(loss(network, None))
    for step in range(2):
        with tf.GradientTape() as tape:
            value = loss(network, noise(step))
        gradients = tape.gradient(value, variables)
        for variable, gradient in zip(variables, gradients, strict=True):
            assert gradient is not None, variable.name
            if step == 0:
                assert np.abs(gradient).max() > 0, variable.name
            variable.assign_sub(0.1 * gradient)
    assert np.isfinite(float(value))
    assert float(loss(network, None)) < first


@pytest.mark.parametrize("name", SETTINGS)
def test_a_request_is_scored_as_its_rows_are(name: str) -> None:
    network = small_network(config(name))
    stir(network)
    request = one_request(random_blocks(network.layout, N, seed=4), np.arange(N))
    rows, together = network.forward(tensors(repeated(request))), network.forward_request(tensors(request))
    experts, count = network.trunk.experts, len(network.config.objectives)
    assert rows.gates.shape == together.gates.shape == (N, count, experts)
    np.testing.assert_allclose(together.raw, rows.raw, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(together.gates, rows.gates, rtol=1e-4, atol=1e-5)
    if experts:
        np.testing.assert_allclose(tf.reduce_sum(rows.gates, 2), 1, rtol=1e-5)
    one = network.forward(tensors({side: block.take(np.arange(1)) for side, block in repeated(request).items()}))
    np.testing.assert_allclose(one.raw[0], rows.raw[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ONE_EACH)
def test_the_same_seed_gives_the_same_bits(name: str) -> None:
    network, twin, other = small_network(config(name)), small_network(config(name)), small_network(config(name, tower=[3]))
    for key, weight in network.weights.items():
        np.testing.assert_array_equal(weight, twin.weights[key])
        if key.startswith("trunk/"):
            np.testing.assert_array_equal(weight, other.weights[key])  # a part's start is its own
    assert float(loss(network, noise())) == float(loss(twin, noise()))


@pytest.mark.parametrize("name", ["separate", "mmoe", "ple", "stem", "home"])
def test_parallel_parts_start_different(name: str) -> None:
    """Equal experts would get equal gradients, and stay equal."""
    network = small_network(config(name))
    for key, weight in network.weights.items():
        if key.startswith("trunk/") and "bias" not in key and weight.shape.rank == 3:
            for a in range(weight.shape[0]):
                assert not any(np.isclose(weight[a], weight[b]).all() for b in range(a)), key


@pytest.mark.parametrize("name", ["separate", "stem"])
def test_own_embeddings_grow_with_their_vocabulary_and_are_not_shared(name: str) -> None:
    network = small_network(config(name))
    tables = network.embeddings.variables
    own = {table for table in tables if table.endswith(".task_like")}
    assert own == {"user_id.task_like", "device.task_like", "video_id.task_like"}
    assert ("user_id" in tables) == (name == "stem")
    assert not any(variable is tables[table] for variable in network.shared for table in own)
    assert sum(variable is table for variable in network.shared for table in tables.values()) == len(tables) - 3 * len(own)
    blocks = tensors(random_blocks(network.layout, 5))
    before = network.forward(blocks).raw
    network.embeddings.grow({"user_id": 400, "device": 400, "video_id": 400})
    assert set(network.table_sizes.values()) == {400}
    np.testing.assert_array_equal(network.forward(blocks).raw, before)


@pytest.mark.parametrize("name", [*ONE_EACH, "concatenation"])
def test_shared_is_what_the_gradients_of_two_objectives_meet_in(name: str) -> None:
    trunk = small_trunk(seed=3, **SETTINGS[name])
    views = len(type(trunk).roles(trunk.settings, trunk.names))
    x = tf.random.stateless_normal([views, 50, 3] if views else [50, 3], [1, 2])
    with tf.GradientTape(persistent=True) as tape:
        representations = tf.unstack(tf.reduce_sum(trunk(x).h * [1.0, -2.0, 0.5, 3.0, -1.0], [1, 2]))
    weights = [weight.value for weight in trunk.trainable_variables]
    by_objective = [tape.gradient(h, weights) for h in representations]
    met = []
    for weight, gradients in zip(trunk.trainable_variables, zip(*by_objective, strict=True), strict=True):
        touched = sum((np.abs(g) > 0).astype(int) for g in gradients if g is not None)
        met += [weight.name] if touched.max() > 1 else []
    assert sorted(met) == sorted(w.name for w in trunk.trainable_variables if any(w.value is s for s in trunk.shared))
