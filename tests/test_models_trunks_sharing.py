"""The trunks without gates: values by hand, and what equals what."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from network_samples import small_config
from trunk_samples import METADATA, noise, small_trunk

from data.errors import ConfigError
from models.encoder import Split
from models.trunks.cross_stitch import start_weights, stitch
from models.trunks.soft_sharing import apart

X = np.array([[1.0, 2.0], [0.5, -1.0]], np.float32)


def conditioned(by: str, **changes: Any) -> Any:
    return small_trunk(**{"inputs": 2, "kind": "conditioned", "by": by, "layers": [1], "count": 2, **changes})


def put(trunk: Any, **values: Any) -> None:
    for weight in trunk.trainable_variables:
        weight.assign(np.asarray(values[weight.name], np.float32))


def test_film_scales_and_shifts_by_the_objective() -> None:
    trunk = conditioned("film")
    put(trunk, kernel_0=[[1], [1]], bias_0=[1], film_scale_0=[[1], [-0.5]], film_shift_0=[[0], [3]])
    # x1 + x2 + 1 is 4 and 0.5; objective 0: times 2; objective 1: times 0.5, plus 3
    np.testing.assert_allclose(trunk(X).h[:, :, 0], [[8, 1], [5, 3.25]], rtol=1e-6)


def test_gating_multiplies_by_the_objective() -> None:
    trunk = conditioned("gating")
    put(trunk, kernel_0=[[1], [1]], bias_0=[1], gate_0=[[0], [np.log(3)]])  # 2 sigmoid: 1 and 1.5
    np.testing.assert_allclose(trunk(X).h[:, :, 0], [[4, 0.5], [6, 0.75]], rtol=1e-6)


def test_concatenation_puts_the_descriptor_beside_the_input() -> None:
    metadata = {"click": [2.0], "like": [-1.0]}
    trunk = conditioned("concatenation", metadata=metadata)
    put(trunk, kernel_0=[[10], [1], [1]], bias_0=[1])
    np.testing.assert_allclose(trunk(X).h[:, :, 0], [[24, 20.5], [0, 0]], rtol=1e-6)  # 10 z + x1 + x2 + 1


@pytest.mark.parametrize("at", ["input", "every"])
@pytest.mark.parametrize("metadata", [{}, METADATA])
def test_concatenation_and_addition_are_one_function(at: str, metadata: dict[str, list[float]]) -> None:
    """[z, h] [V; W] = z V + h W, layer by layer."""
    given = {"inputs": 4, "count": 3, "layers": [5, 3], "at": at, "metadata": metadata}
    joined, added = conditioned("concatenation", **given), conditioned("addition", **given)
    weights = {weight.name: weight.numpy() for weight in added.trainable_variables}
    for weight in joined.trainable_variables:
        mapped = weights[weight.name]
        if (other := weight.name.replace("kernel", "added")) in weights and "kernel" in weight.name:
            mapped = np.concatenate([weights[other], mapped])
        weight.assign(mapped)
    x = tf.random.stateless_normal([7, 4], [1, 2])
    np.testing.assert_allclose(joined(x).h, added(x).h, rtol=1e-5, atol=1e-6)
    split = Split(tf.ones([1, 1]), tf.random.stateless_normal([7, 3], [3, 4]))
    np.testing.assert_allclose(joined(split).h, added(split).h, rtol=1e-5, atol=1e-6)


def test_metadata_must_fit_the_objectives() -> None:
    for metadata, says in (
        ({"click": [1.0]}, "one entry for each of click, like, watch"),
        ({**METADATA, "like": [1.0]}, "as many numbers"),
    ):
        with pytest.raises(ConfigError, match=says):
            small_config(model={"trunk": {"kind": "conditioned", "metadata": metadata}})


def test_an_unknown_trunk_is_refused_and_none_is_mmoe() -> None:
    with pytest.raises(ConfigError, match="shared_bottom"):
        small_config(model={"trunk": {"kind": "bottom"}})
    with pytest.raises(ConfigError, match="tie"):
        small_config(model={"trunk": {"kind": "mmoe", "tie": 0.5}})
    assert small_config(model={"trunk": {"experts": 2}}).model.trunk.kind == "mmoe"


def test_the_tie_costs_the_squared_distance_to_the_mean() -> None:
    weight = tf.constant([[[1.0, 0.0]], [[3.0, 6.0]]])  # mean [2, 3]: 1 + 9 from either
    assert float(apart(weight)) == 20
    trunk = small_trunk(inputs=2, kind="soft_sharing", tie=0.75, layers=[1], count=2)
    put(trunk, kernel_0=[[[1], [0]], [[3], [6]]], bias_0=[[[0]], [[2]]])  # 0.75 / 0.25 = 3 times (20 + 2)
    assert float(trunk(X, noise=noise()).penalty) == pytest.approx(66)
    assert float(trunk(X).penalty) == 0


def test_the_ends_of_soft_sharing_are_separate_and_shared() -> None:
    given = {"layers": [4, 3], "count": 2, "inputs": 2}
    free, same = (small_trunk(kind="soft_sharing", tie=tie, **given) for tie in (0, 1))
    np.testing.assert_array_equal(free(X).h, small_trunk(kind="separate", own_embeddings=False, **given)(X).h)
    np.testing.assert_array_equal(same(X).h, small_trunk(kind="shared_bottom", **given)(X).h)
    assert float(free(X, noise=noise()).penalty) == 0


def test_a_strong_tie_pulls_networks_together() -> None:
    gaps = {}
    for tie in (0.0, 0.9):
        trunk = small_trunk(inputs=2, kind="soft_sharing", tie=tie, layers=[3], count=2)
        for _ in range(20):
            with tf.GradientTape() as tape:
                h, _, penalty, _ = trunk(X, noise=noise())
                loss = tf.reduce_mean(tf.square(h - [[[1.0]], [[2.0]]])) + penalty
            weights = [weight.value for weight in trunk.trainable_variables]
            for weight, gradient in zip(weights, tape.gradient(loss, weights), strict=True):
                weight.assign_sub(0.02 * gradient)
        gaps[tie] = sum(float(apart(weight)) for weight in weights)
    assert gaps[0.9] < 0.01 * gaps[0.0]


def test_stitches_mix_the_networks() -> None:
    h = np.array([[[1.0, 2.0]], [[10.0, 0.0]]], np.float32)
    weights = np.array([[0.75, 0.25], [-1.0, 2.0]], np.float32)
    assert stitch(weights, h).numpy().tolist() == [[[3.25, 1.5]], [[19.0, -2.0]]]
    np.testing.assert_allclose(start_weights(3, 0.8), [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]], rtol=1e-6)
    assert start_weights(1, 0.8).tolist() == [[1.0]]


def test_cross_stitch_with_identities_is_separate_networks() -> None:
    given = {"layers": [4, 3], "count": 2, "inputs": 2}
    stitched = small_trunk(kind="cross_stitch", own_weight=1.0, **given)
    np.testing.assert_allclose(stitched(X).h, small_trunk(kind="separate", own_embeddings=False, **given)(X).h, rtol=1e-6)
