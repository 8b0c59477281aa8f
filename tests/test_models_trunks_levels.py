"""PLE, STEM and HoME: values by hand, and where gradients stop."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from trunk_samples import noise, small_trunk

X = np.array([[1.0, 2.0]], np.float32)


def put(trunk: Any, **values: Any) -> None:
    """Set the named weights; biases not named are 0, gates not named are even."""
    for weight in trunk.trainable_variables:
        value = values.pop(weight.name, None)
        if value is None:
            assert "bias" in weight.name or "gate" in weight.name, weight.name
            value = np.zeros(weight.shape)
        weight.assign(np.asarray(value, np.float32).reshape(weight.shape))
    assert not values


def ple(**changes: Any) -> Any:
    given = {"inputs": 2, "kind": "ple", "levels": 1, "layers": [1], "count": 2, "shared_experts": 1, "expert_dropout": 0}
    return small_trunk(**{**given, **changes})


def test_cgc_mixes_an_objectives_own_experts_with_the_shared_ones() -> None:
    trunk = ple()
    gates = np.zeros((2, 2, 2))
    gates[0, 0] = [np.log(3), 0]  # x1 = 1: objective 0 has 3/4 of its own and 1/4 of the shared expert
    put(trunk, own_0_kernel_0=[[[4], [0]], [[0], [5]]], shared_0_kernel_0=[[[8], [2]]], gates_0=gates)
    h, reported, _, units = trunk(X)  # experts: 4 and 10, shared 12
    np.testing.assert_allclose(h[:, 0, 0], [0.75 * 4 + 0.25 * 12, 0.5 * 10 + 0.5 * 12], rtol=1e-6)
    np.testing.assert_allclose(reported[0], [[0.75, 0, 0.25], [0, 0.5, 0.5]], rtol=1e-6)
    np.testing.assert_allclose(units[:, 0, 0], [4, 10, 12])


def test_a_second_level_of_ple_is_built_on_the_first() -> None:
    trunk = ple(levels=2)
    put(
        trunk,
        own_0_kernel_0=[[[4], [0]], [[0], [5]]],
        shared_0_kernel_0=[[[8], [2]]],
        own_1_kernel_0=[[[1]], [[2]]],
        shared_1_kernel_0=[[[3]]],
    )
    # even gates: h = (4 + 12) / 2 = 8 and (10 + 12) / 2 = 11, s = (4 + 10 + 12) / 3 = 26/3; then own 8 and 22, shared 26
    np.testing.assert_allclose(trunk(X).h[:, 0, 0], [(8 + 26) / 2, (22 + 26) / 2], rtol=1e-6)


def test_a_dropped_expert_of_ple_leaves_its_own_gate_alone() -> None:
    gates = ple(expert_dropout=0.5, task_experts=2)(tf.ones([300, 2]), noise=noise()).gates.numpy()
    np.testing.assert_allclose(gates.sum(2), 1, rtol=1e-6)
    assert not gates[:, 0, 2:4].any()
    assert not gates[:, 1, :2].any()
    usable = gates[:, 0, [0, 1, 4]]
    assert ((usable == 0).sum(1) < 3).all()
    assert 0.3 < (usable == 0).mean() < 0.5
    whole = (usable > 0).all(1).mean()  # none dropped, or all: an eighth each
    assert 0.15 < whole < 0.35


def test_stem_hears_all_experts_and_teaches_its_own() -> None:
    trunk = small_trunk(inputs=2, kind="stem", layers=[1], count=2, shared_experts=1, expert_dropout=0)
    put(trunk, own_kernel_0=[[[1], [0]], [[0], [1]]], shared_kernel_0=[[[3], [0]]])
    x = tf.Variable([[[1.0, 1.0]], [[2.0, 0.0]], [[0.0, 6.0]]])  # shared, objective 0's, objective 1's
    with tf.GradientTape(persistent=True) as tape:
        h = trunk(x).h
        parts = tf.unstack(h[:, 0, 0])
    np.testing.assert_allclose(h[:, 0, 0], [(2 + 6 + 3) / 3] * 2, rtol=1e-6)
    for k, hit in ((0, [True, True, False]), (1, [True, False, True])):
        gradient = tape.gradient(parts[k], x).numpy()
        # gates are even with all-zero kernels, so that only the experts pass a gradient on to x
        assert (np.abs(gradient).sum((1, 2)) > 0).tolist() == hit
        own = tape.gradient(parts[k], trunk.own.kernels[0].value).numpy()
        assert (np.abs(own).sum((1, 2)) > 0).tolist() == hit[1:]


def home(**changes: Any) -> Any:
    given = {"inputs": 2, "kind": "home", "layers": [1], "count": 2, "meta_experts": 1, "shared_experts": 1,
             "expert_dropout": 0, "feature_gate_rank": 0, "expert_norm": False, "self_gates": False}  # fmt: skip
    return small_trunk(**{**given, **changes})


def swish(a: float) -> float:
    return a / (1 + np.exp(-a))


KERNELS = {
    "meta_kernel_0": [[[1], [0]], [[0], [1]], [[1], [1]]],
    "own_kernel_0": [[[1]], [[1]]],
    "common_kernel_0": [[[2]], [[2]], [[3]]],
}


def test_home_goes_up_through_the_families() -> None:
    """click is engagement, like satisfaction: each family has one meta expert, one of its own and a shared one."""
    trunk = home()
    put(trunk, **KERNELS)
    f, g, s = swish(1), swish(2), swish(3)
    z = ((f + s) / 2, (g + s) / 2, (f + g + s) / 3)
    expected = [(swish(z[k]) + swish(2 * z[k]) + swish(3 * z[2])) / 3 for k in (0, 1)]
    h, gates, _, units = trunk(X)
    np.testing.assert_allclose(h[:, 0, 0], expected, rtol=1e-5)
    np.testing.assert_allclose(gates[0], np.array([[1, 0, 1, 0, 1], [0, 1, 0, 1, 1]]) / 3, rtol=1e-6)
    assert units is None


def test_home_adds_its_own_experts_by_self_gates() -> None:
    trunk = home(self_gates=True)
    put(trunk, **KERNELS)  # gates of 0: sigmoid gives 1/2
    f, g, s = swish(1), swish(2), swish(3)
    z = ((f + s) / 2 + f / 2, (g + s) / 2 + g / 2, (f + g + s) / 3 + s / 2)
    expected = [(swish(z[k]) + swish(2 * z[k]) + swish(3 * z[2])) / 3 + swish(z[k]) / 2 for k in (0, 1)]
    np.testing.assert_allclose(trunk(X).h[:, 0, 0], expected, rtol=1e-5)


def test_feature_gates_of_home_weigh_each_experts_input() -> None:
    trunk = home(feature_gate_rank=1)
    down, up = np.zeros((3, 2, 1)), np.zeros((3, 1, 2))
    down[0], up[0] = [[1], [0]], [[np.log(3), 0]]  # expert 0: x1 = 1 makes 2 sigmoid(log 3) = 1.5 on x1
    put(trunk, **KERNELS, feature_gates_down=down, feature_gates_up=up)
    f, g, s = swish(1.5), swish(2), swish(3)
    z = ((f + s) / 2, (g + s) / 2, (f + g + s) / 3)
    expected = [(swish(z[k]) + swish(2 * z[k]) + swish(3 * z[2])) / 3 for k in (0, 1)]
    np.testing.assert_allclose(trunk(X).h[:, 0, 0], expected, rtol=1e-5)


@pytest.mark.parametrize("kind", ["ple", "home"])
def test_the_configuration_knows_which_experts_a_gate_can_choose(kind: str) -> None:
    trunk = small_trunk(kind=kind, layers=[2], task_experts=2)
    gates = trunk(np.ones((1, 3), np.float32)).gates[0].numpy()
    for row, places in zip(gates, trunk.settings.places(trunk.families), strict=True):
        assert np.flatnonzero(row).tolist() == list(places)
