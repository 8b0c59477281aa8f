"""Each method against values worked out by hand, on vectors that are split over two variables."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from network_samples import (
    CLICK,
    CONTEXT,
    LIKE,
    USER,
    VIDEO,
    WATCH,
    random_blocks,
    random_targets,
    small_config,
    small_trainer,
)

from data.config import Objective
from data.errors import BundleError
from models.balancing.adam import AdamVector
from models.balancing.base import Balancing, Losses
from models.balancing.cagrad import ConflictAverse, averse
from models.balancing.dwa import DynamicWeightAverage
from models.balancing.famo import FastAdaptive
from models.balancing.gradients import ObjectiveGradients, added
from models.balancing.gradnorm import GradNorm
from models.balancing.pcgrad import ProjectingConflicts, project
from models.balancing.uncertainty import UncertaintyWeighting
from models.noise import Noise
from models.step import Trainer

NOISE = Noise(tf.constant(1, tf.int64), tf.constant(1, tf.int64))
KINDS = ("uncertainty", "gradnorm", "dwa", "pcgrad", "cagrad", "famo")


def losses(values: list[float], counts: list[float] | None = None, prior: list[float] | None = None) -> Losses:
    given = (values, counts or [1.0] * len(values), prior or [1.0] * len(values))
    return Losses(*(tf.constant(each, tf.float32) for each in given))


def never() -> tf.Tensor:
    raise AssertionError("only FAMO looks at the losses again")


def split(*vectors: list[float]) -> ObjectiveGradients:
    """Gradients of a vector whose last number is a variable of its own."""
    whole = tf.constant(vectors, tf.float32)
    return ObjectiveGradients([[vector[:-1], vector[-1:]] for vector in tf.unstack(whole)])


def mixed(method: Balancing, seen: Losses, *vectors: list[float]) -> list[float]:
    gradients = split(*vectors)
    return np.concatenate(gradients.mix(method.mix(gradients.products(), seen, NOISE))).tolist()


def test_fixed_weights_are_the_prior_and_take_no_gradients() -> None:
    fixed = Balancing()
    assert fixed.weights(losses([1, 2], prior=[1, 3])).numpy().tolist() == [1, 3]
    with pytest.raises(NotImplementedError, match="fixed"):
        fixed.mix(tf.eye(2), losses([1, 2]), NOISE)


def test_products_are_of_the_whole_vector_and_absent_parts_are_zero() -> None:
    products = split([1.0, 2.0, 3.0], [-1.0, 0.0, 2.0]).products()
    assert products.numpy().tolist() == [[14, 5], [5, 5]]
    part = ObjectiveGradients([[tf.constant([3.0]), None, None], [None, tf.constant([4.0, 0.0]), None]])
    assert part.products().numpy().tolist() == [[9, 0], [0, 16]]
    one, other, nothing = part.mix(tf.constant([2.0, 0.5]))
    assert (one.numpy().tolist(), other.numpy().tolist(), nothing) == ([6], [2, 0], None)


def slices(rows: list[int], values: list[list[float]]) -> tf.IndexedSlices:
    return tf.IndexedSlices(tf.constant(values, tf.float32), tf.constant(rows), tf.constant([5, 2], tf.int64))


def test_sparse_tables_are_compared_row_by_row_repeated_rows_summed() -> None:
    one = slices([3, 0, 3], [[1, 0], [5, 0], [1, 2]])  # row 0: (5, 0); row 3: (2, 2)
    other = slices([3, 4], [[-3, 1], [7, 7]])  # row 3: (-3, 1); row 4: (7, 7)
    gradients = ObjectiveGradients([[one], [other], [None]])
    assert gradients.products().numpy().tolist() == [[33, -4, 0], [-4, 108, 0], [0, 0, 0]]
    (mix,) = gradients.mix(tf.constant([1.0, 10.0, 3.0]))
    assert isinstance(mix, tf.IndexedSlices)
    assert sorted(mix.indices.numpy().tolist()) == [0, 3, 4]
    assert tf.convert_to_tensor(mix).numpy().tolist() == [[5, 0], [0, 0], [0, 0], [-28, 12], [70, 70]]
    (total,) = added([mix], [slices([4], [[1, 1]])])
    assert isinstance(total, tf.IndexedSlices)
    assert tf.convert_to_tensor(total).numpy()[4].tolist() == [71, 71]


def test_a_table_that_is_sparse_for_one_and_dense_for_another() -> None:
    gradients = ObjectiveGradients([[slices([3, 3], [[1, 0], [1, 0]])], [tf.ones([5, 2])], [None]])
    assert gradients.products().numpy().tolist() == [[4, 2, 0], [2, 10, 0], [0, 0, 0]]


# --- weights by losses ----------------------------------------------------------------------------------------------


def test_adam_is_keras_s_and_leaves_the_absent_alone() -> None:
    vector, theirs = AdamVector([0.0, 1.0, 5.0], 0.1), tf.Variable([0.0, 1.0])
    optimizer = keras.optimizers.Adam(0.1, epsilon=1e-8)
    for gradient in ([3.0, -1.0], [-1.0, -2.0], [0.5, 0.0]):
        vector.step(tf.constant([*gradient, 9.0]), tf.constant([True, True, False]))
        optimizer.apply([tf.constant(gradient)], [theirs])
    np.testing.assert_allclose(vector.value[:2], theirs, rtol=1e-4)
    assert [variable.numpy()[2] for variable in vector.variables.values()] == [5, 0, 0, 0]


def objectives() -> list[Objective]:
    default, odds = ({**WATCH, "loss": None, "head": head} for head in ("value", "weighted_logistic"))
    return [Objective.model_validate(each) for each in (CLICK, default, WATCH, odds)]


def test_uncertainty_by_hand() -> None:
    method = UncertaintyWeighting(objectives(), rate=0.1)
    seen = losses([2.0, 0.5, 0.5, 0.5], prior=[1, 4, 1, 1])
    assert method.weights(seen).numpy().tolist() == [1, 2, 1, 1]  # a squared error has its half
    method.learn(seen, never)  # ds = 1/2 - 2, 4 (1/2 - 1/4), 1/2 - 1/2: Adam's first step is the rate against the sign
    np.testing.assert_allclose(method.log_variances.value, [0.1, -0.1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(method.weights(seen), [math.exp(-0.1), 2 * math.exp(0.1), 1, 1], rtol=1e-6)


def test_uncertainty_settles_where_the_variance_is_twice_the_loss() -> None:
    method = UncertaintyWeighting(objectives()[:2], rate=0.1)
    method.log_variances.value.assign([math.log(2 * 3.1), math.log(2.9)])  # above log 2L, and below log L of the half
    method.learn(losses([3.0, 3.0]), never)
    np.testing.assert_allclose(method.log_variances.value, [math.log(2 * 3.1) - 0.1, math.log(2.9) + 0.1], rtol=1e-5)


def test_dwa_by_hand() -> None:
    method = DynamicWeightAverage(2, temperature=2.0, period=2)
    for values, counts in (([4.0, 1.0], [1, 5]), ([2.0, 1.0], [3, 5])):  # means over rows: 2.5 and 1
        assert method.weights(losses(values)).numpy().tolist() == [1, 1]
        method.learn(losses(values, counts), never)
    for values in ([5.0, 0.5], [5.0, 0.5]):
        assert method.weights(losses(values)).numpy().tolist() == [1, 1]
        method.learn(losses(values), never)
    share = math.exp(1.0) / (math.exp(1.0) + math.exp(0.25))  # of ratios 2 and 1/2 at temperature 2
    np.testing.assert_allclose(method.weights(losses([1, 1], prior=[1, 3])), [2 * share, 6 * (1 - share)], rtol=1e-6)


def test_dwa_keeps_the_averages_of_an_objective_without_rows() -> None:
    method = DynamicWeightAverage(2, temperature=2.0, period=1)
    for values in ([2.0, 2.0], [1.0, 4.0]):
        method.learn(losses(values), never)
    method.learn(losses([3.0, 0.0], [1, 0]), never)
    assert method.variables["last"].numpy().tolist() == [3, 4]
    assert method.variables["before"].numpy().tolist() == [1, 2]
    assert method.weights(losses([1.0, 0.0], [1, 0])).numpy()[0] == 1  # alone in its batch


def test_famo_by_hand() -> None:
    method = FastAdaptive(3, rate=0.1, decay=0.0)
    seen = losses([1.0, 4.0, 0.0], [1, 1, 0], [1, 2, 1])
    weights = method.weights(seen)
    np.testing.assert_allclose(weights[:2], [1.6, 2 * 0.4], rtol=1e-6)  # z / L = 1/2, 1/8, to a mean of 1
    assert weights[2] == 0
    # The first log loss falls by log 2: J^T fall = (1/4, -1/4) log 2, and Adam's first step is the rate.
    method.learn(seen, lambda: tf.constant([0.5, 4.0, 0.0]))
    np.testing.assert_allclose(method.logits.value, [-0.1, 0.1, 0], atol=1e-6)
    z = 1 / (1 + math.exp(0.2))
    one, other = z / 1.0, (1 - z) / 4
    np.testing.assert_allclose(method.weights(seen)[:2], [2 * one / (one + other), 4 * other / (one + other)], rtol=1e-6)


def test_famo_s_decay_draws_to_equal_weights() -> None:
    method = FastAdaptive(2, rate=0.1, decay=0.5)
    method.logits.value.assign([1.0, -1.0])
    method.learn(losses([1.0, 1.0]), lambda: tf.constant([1.0, 1.0]))
    np.testing.assert_allclose(method.logits.value, [0.9, -0.9], rtol=1e-5)


# --- gradients ------------------------------------------------------------------------------------------------------


def test_pcgrad_asks_whether_the_whole_vectors_conflict() -> None:
    # The first variable's parts conflict (-1), the whole does not (+1): nothing is projected.
    assert mixed(ProjectingConflicts(), losses([1, 1]), [1.0, 1.0, 2.0], [-1.0, 0.0, 1.0]) == [0, 1, 3]


def test_pcgrad_projects_the_whole_vectors() -> None:
    # g1.g2 = -3, |g1|^2 = 5, |g2|^2 = 6: g1 + g2/2 = (1.5, 0.5, -1), g2 + 3/5 g1 = (1.6, 1, 0.8). By variable: (2, 1, 0).
    result = mixed(ProjectingConflicts(), losses([1, 1]), [1.0, 0.0, -2.0], [1.0, 1.0, 2.0])
    np.testing.assert_allclose(result, [3.1, 1.5, -0.2], rtol=1e-6)


def test_pcgrad_takes_the_prior_in_and_passes_over_who_is_absent() -> None:
    # 2 g1 = (2, 0, -4), g2, and a third without rows: dot -6; 2 g1 + g2 = (3, 1, -2); g2 + 6/20 (2, 0, -4) = (1.6, 1, 0.8).
    seen = losses([1, 1, 0], [5, 5, 0], [2, 1, 1])
    result = mixed(ProjectingConflicts(), seen, [1.0, 0.0, -2.0], [1.0, 1.0, 2.0], [0.0, 0.0, 0.0])
    np.testing.assert_allclose(result, [4.6, 2, -1.2], rtol=1e-6)


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ([[0, 1, 2], [0, 1, 2], [0, 1, 2]], [[0.5, 0], [0, 0], [-0.5, -0.5]]),
        ([[2, 1, 0], [2, 1, 0], [2, 1, 0]], [[0.5, 0.5], [0, 0], [0, -0.5]]),
    ],
)
def test_pcgrad_of_three_depends_on_the_order(order: list[list[int]], expected: list[list[float]]) -> None:
    """g1 = (1, 0), g2 = (-1, 1), g3 = (0, -1): g1.g2 = g2.g3 = -1, g1.g3 = 0."""
    vectors = np.array([[1, 0], [-1, 1], [0, -1]], np.float32)
    coefficients = project(tf.constant(vectors @ vectors.T), tf.constant(order))
    np.testing.assert_allclose(coefficients.numpy() @ vectors, expected, atol=1e-6)


def test_pcgrad_draws_its_order_from_the_step_s_noise() -> None:
    products, seen = tf.constant([[1.0, -1, 0], [-1, 2, -1], [0, -1, 1]]), losses([1, 1, 1])
    found = set()
    for step in range(12):
        noise = [Noise(tf.constant(1, tf.int64), tf.constant(step, tf.int64)) for _ in range(2)]
        one, other = (ProjectingConflicts().mix(products, seen, each).numpy().tolist() for each in noise)
        assert one == other
        found.add(tuple(one))
    assert len(found) > 1


def test_cagrad_of_orthogonal_gradients_of_one_length_goes_further_along_their_sum() -> None:
    # Each is zero where the other is not: variable by variable there would be nothing to avoid, and the sum is (2, 0, 2).
    result = mixed(ConflictAverse(0.5), losses([1, 1]), [2.0, 0.0, 0.0], [0.0, 0.0, 2.0])
    np.testing.assert_allclose(result, [3, 0, 3], rtol=1e-6)


def test_cagrad_of_opposite_gradients_steps_back_as_far_as_it_may() -> None:
    # Of lengths 5 and 1 along u = (0.6, 0, 0.8): g0 = 2u, radius 1, and the second is hurt least at d = 1u. Twice that.
    result = mixed(ConflictAverse(0.5), losses([1, 1]), [3.0, 0.0, 4.0], [-0.6, 0.0, -0.8])
    np.testing.assert_allclose(result, [1.2, 0, 1.6], rtol=1e-5)


def test_cagrad_takes_the_prior_in_and_leaves_the_absent_out() -> None:
    seen = losses([1, 1, 0], [5, 5, 0], [1, 5, 1])
    result = mixed(ConflictAverse(0.5), seen, [3.0, 0.0, 4.0], [-0.12, 0.0, -0.16], [0.0, 0.0, 0.0])
    np.testing.assert_allclose(result, [1.2, 0, 1.6], rtol=1e-5)


def test_cagrad_without_room_is_the_sum() -> None:
    result = mixed(ConflictAverse(0.0), losses([1, 1, 0], [1, 1, 0]), [1.0, 0.0, -2.0], [1.0, 1.0, 2.0], [0.0, 0.0, 0.0])
    np.testing.assert_allclose(result, [2, 1, 0], atol=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_cagrad_s_direction_is_the_best_in_its_ball(seed: int) -> None:
    """Of many directions within ||d - g0|| <= c ||g0||, none does more for the objective it does least for."""
    random, c = np.random.default_rng(seed), 0.6
    vectors = random.normal(size=(5, 6)) * random.uniform(0.1, 3, (5, 1))
    there = np.array([True, True, False, True, True])
    vectors[~there] = 0
    direction = averse(tf.constant(vectors @ vectors.T), tf.constant(there), c).numpy() @ vectors / 4
    mean = vectors[there].mean(0)
    radius = c * np.linalg.norm(mean)
    assert np.linalg.norm(direction - mean) == pytest.approx(radius)
    around = random.normal(size=(20_000, 6))
    around *= radius / np.linalg.norm(around, axis=1, keepdims=True)
    close = direction - mean + 0.05 * around
    close *= radius / np.linalg.norm(close, axis=1, keepdims=True)
    rivals = mean + np.concatenate([around, close])
    assert (rivals @ vectors[there].T).min(1).max() <= (vectors[there] @ direction).min() + 1e-5


def gradnorm(alpha: float, first: list[float]) -> GradNorm:
    method = GradNorm(len(first), alpha, rate=0.1)
    method.variables["first"].assign(first)
    return method


def test_gradnorm_draws_the_lengths_of_the_whole_vectors_together() -> None:
    method = gradnorm(1.0, [math.nan, math.nan])
    gradients = split([3.0, 0.0, 4.0], [0.0, 4.0, 0.0])  # 5 and 4; of the first variable alone 3 and 4
    used = method.mix(gradients.products(), losses([4.0, 1.0], prior=[1, 2]), NOISE)
    assert used.numpy().tolist() == [1, 2]
    assert method.variables["first"].numpy().tolist() == [4, 1]
    np.testing.assert_allclose(method.factors.value, [0.9, 1.1], rtol=1e-6)  # lengths without the prior


def test_gradnorm_gives_more_to_who_is_behind() -> None:
    for alpha, expected in ((1.0, [0.9, 1.1]), (0.0, [1.0, 1.0])):  # losses at 1/2 and 1 of the first: r = 2/3, 4/3
        method = gradnorm(alpha, [4.0, 1.0])
        method.mix(split([2.0, 0.0, 0.0], [0.0, 0.0, 2.0]).products(), losses([2.0, 1.0]), NOISE)
        np.testing.assert_allclose(method.factors.value, expected, rtol=1e-6)


def test_gradnorm_leaves_the_absent_alone() -> None:
    method = gradnorm(1.0, [4.0, math.nan, 1.0])
    method.factors.value.assign([1.0, 0.5, 1.5])
    method.mix(split([9.0, 0, 0], [0.0, 0, 0], [0, 0, 2.0]).products(), losses([4, 0, 1], [1, 0, 1]), NOISE)
    np.testing.assert_allclose(method.factors.value, [0.9, 0.5, 1.6], rtol=1e-6)
    assert np.isnan(method.variables["first"].numpy()).tolist() == [False, True, False]


# --- in the step ----------------------------------------------------------------------------------------------------

FEATURES = [USER[0], *CONTEXT, *VIDEO[:2]]
RIVAL = {**LIKE, "loss_weight": 3.0}
MODEL = {"trunk": {"experts": 2, "layers": [4], "expert_dropout": 0.2}, "tower": [3], "dropout": 0.1}


def trainer(balancing: dict[str, object], *more: dict[str, object]) -> Trainer:
    """Of two objectives whose targets are opposites, and ``more``; the users' table is updated sparsely."""
    training = {"balancing": balancing, "sparse_rows": 15}
    return small_trainer(small_config(FEATURES, (CLICK, RIVAL, *more), MODEL, training))


def batch(made: Trainer, n: int = 16, seed: int = 0) -> tuple[dict[object, tuple[tf.Tensor, tf.Tensor]], tf.Tensor]:
    blocks = random_blocks(made.network.layout, n, seed)
    targets = random_targets(made.network.config, n, seed, masked=0.0)
    targets[:, 1] = 1 - targets[:, 0]
    tensors = {side: (tf.constant(block.ints), tf.constant(block.floats)) for side, block in blocks.items()}
    return tensors, tf.constant(targets)


def traced(compute: Callable[..., Any]) -> Callable[..., Any]:
    """As a TensorFlow function: elsewhere nothing of the graph takes gradients."""
    return tf.function(compute, autograph=False)  # type: ignore[no-any-return]


def gradients_of(made: Trainer, monkeypatch: pytest.MonkeyPatch) -> dict[int, np.ndarray]:
    """By variable, the dense gradient that a step applies."""
    given: list[object] = []
    monkeypatch.setattr(made.optimizers, "apply", lambda gradients: given.extend(gradients))

    def dense() -> dict[int, tf.Tensor]:
        made.graph.step(*batch(made), tf.constant(1, tf.int64))
        found = zip(made.optimizers.variables, given, strict=True)
        return {id(variable): tf.convert_to_tensor(gradient) for variable, gradient in found if gradient is not None}

    return {place: gradient.numpy() for place, gradient in traced(dense)().items()}


def by_objective(made: Trainer, variables: list[tf.Variable]) -> tuple[np.ndarray, np.ndarray]:
    """[K, P] gradients of the losses, and [P] of the penalty, over the variables as one dense vector."""
    with tf.GradientTape(persistent=True) as tape:
        seen, penalty = made.graph.losses(*batch(made), Noise(tf.constant(1, tf.int64), made.steps))
        parts = [*tf.unstack(seen.values), penalty]
    flat = [tape.gradient(part, variables, unconnected_gradients="zero") for part in parts]
    dense = np.stack([np.concatenate([np.ravel(tf.convert_to_tensor(g)) for g in each]) for each in flat])
    return dense[:-1], dense[-1]


def test_a_pcgrad_step_is_the_paper_s_over_all_that_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    made = trainer({"kind": "pcgrad"})
    shared = made.network.shared
    (one, other), penalty = by_objective(made, shared)
    other *= 3  # its loss weight
    assert one @ other < 0
    found = gradients_of(made, monkeypatch)
    expected = one - one @ other / (other @ other) * other + other - one @ other / (one @ one) * one + penalty
    np.testing.assert_allclose(np.concatenate([np.ravel(found[id(v)]) for v in shared]), expected, atol=1e-6)


def test_without_room_a_cagrad_step_is_that_of_fixed_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    fixed, averse_ = (
        gradients_of(trainer(b, WATCH), monkeypatch) for b in ({"kind": "fixed"}, {"kind": "cagrad", "c": 0.0})
    )
    assert len(fixed) == len(averse_) > 8
    for one, other in zip(fixed.values(), averse_.values(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_towers_have_the_gradient_of_their_own_objective(monkeypatch: pytest.MonkeyPatch) -> None:
    made = trainer({"kind": "cagrad", "c": 0.9}, WATCH)
    towers = [made.network.weights[name] for name in made.network.weights if name.startswith(("towers", "trunk/gates"))]
    each, penalty = by_objective(made, towers)
    found = gradients_of(made, monkeypatch)
    expected = each[0] + 3 * each[1] + each[2] + penalty
    np.testing.assert_allclose(np.concatenate([np.ravel(found[id(v)]) for v in towers]), expected, atol=1e-6)


def test_cosines_by_hand() -> None:
    made = trainer({"kind": "fixed"}, WATCH)
    blocks, targets = random_blocks(made.network.layout, 16), random_targets(made.network.config, 16, masked=0.0)
    targets[:, 1] = 1 - targets[:, 0]
    targets[:, 2] = np.nan
    cosines = made.gradient_cosines(blocks, targets)
    with tf.GradientTape(persistent=True) as tape:
        raw = made.network.forward(batch(made)[0]).raw
        parts = tf.unstack(made.network.heads.losses(raw, tf.constant(targets), blocks)[0])[:2]
    each = [tape.gradient(part, made.network.shared, unconnected_gradients="zero") for part in parts]
    one, other = (np.concatenate([np.ravel(tf.convert_to_tensor(g)) for g in gradients]) for gradients in each)
    assert cosines.dtype == np.float64
    assert cosines[0, 1] == pytest.approx(one @ other / np.linalg.norm(one) / np.linalg.norm(other), abs=1e-5)
    assert cosines[0, 1] < 0
    np.testing.assert_allclose(np.diag(cosines)[:2], 1)
    assert np.isnan(cosines[2]).all()
    assert np.isnan(cosines[:, 2]).all()
    np.testing.assert_array_equal(made.gradient_cosines(blocks, targets), cosines)


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_run_goes_on_to_the_bit_and_bears_an_absent_objective(kind: str, tmp_path: Path) -> None:
    settings = {"kind": kind, "period": 1} if kind == "dwa" else {"kind": kind}
    made, resumed = trainer(settings, WATCH), trainer(settings, WATCH)
    before = {name: variable.numpy() for name, variable in made.balancing.variables.items()}
    blocks, targets = batch(made)
    absent = tf.where([[False, True, False]], math.nan, targets)
    seed = tf.constant(1, tf.int64)
    step = traced(made.graph.step)
    assert step(blocks, absent, seed)[1].numpy().tolist() == [16, 0, 16]
    for name, variable in made.balancing.variables.items():
        assert variable.shape == () or np.array_equal(variable[1], before[name][1], equal_nan=True), name
    made.save(tmp_path)
    resumed.load(tmp_path)
    step(blocks, targets, seed)
    traced(resumed.graph.step)(blocks, targets, seed)
    for mine, theirs in zip(made.optimizers.variables, resumed.optimizers.variables, strict=True):
        assert np.isfinite(mine.numpy()).all()
        np.testing.assert_array_equal(mine.numpy(), theirs.numpy())
    for name, variable in made.balancing.variables.items():
        np.testing.assert_array_equal(variable.numpy(), resumed.balancing.variables[name].numpy())
    moved = [
        not np.array_equal(variable, before[name], equal_nan=True) for name, variable in made.balancing.variables.items()
    ]
    assert any(moved) or kind in ("pcgrad", "cagrad")


@pytest.mark.parametrize("kind", ["cagrad", "famo"])
def test_the_graph_of_a_step_learns(kind: str) -> None:
    made = trainer({"kind": kind})
    blocks, targets = random_blocks(made.network.layout, 40), random_targets(made.network.config, 40)
    losses_ = [made.train_epoch(blocks, targets, np.arange(40), 1) for _ in range(20)]
    assert (losses_[-1] < losses_[0]).all()


def test_a_state_of_another_balance_is_refused(tmp_path: Path) -> None:
    trainer({"kind": "fixed"}).save(tmp_path)
    with pytest.raises(BundleError, match=r"balanced by 'fixed', the configuration has 'famo'"):
        trainer({"kind": "famo"}).load(tmp_path)
