"""The ranking score, against values worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.config import Objective, RankingConfig
from data.errors import ConfigError
from models.ranking import Ranking, combine, expected, order

CLICK = Objective(name="click", family="engagement", label="click", kind="binary")
HATE = Objective(name="hate", family="satisfaction", label="hate", kind="binary")
WATCH = Objective(name="watch", family="engagement", label="watch", kind="regression", given="click")
OBJECTIVES = (CLICK, HATE, WATCH)
MEANS = {"click": 0.5, "hate": 0.1, "watch": 20.0}


def ranking(**config: object) -> Ranking:
    return Ranking.of(RankingConfig.model_validate(config), OBJECTIVES, MEANS)


def rows(*predictions: tuple[float, float, float]) -> np.ndarray:
    return np.array(predictions, np.float32)


def test_given_multiplies() -> None:
    # E[watch] = p(click) * E[watch | click] = 0.25 * 40
    np.testing.assert_array_equal(expected(rows((0.25, 0.5, 40.0)), (None, None, 0)), [[0.25, 0.5, 10.0]])


def test_weighted_sum() -> None:
    weights = {"click": 1.0, "hate": -2.0, "watch": 3.0}
    # means: click 0.5, hate 0.1, watch 20 * 0.5 = 10:  1 * 0.25/0.5 - 2 * 0.5/0.1 + 3 * 10/10 = 0.5 - 10 + 3
    combined = combine(rows((0.25, 0.5, 40.0)), ranking(combine="weighted_sum", weights=weights))
    np.testing.assert_allclose(combined.contributions, [[0.5, -10.0, 3.0]])
    np.testing.assert_allclose(combined.scores, [-6.5])
    np.testing.assert_array_equal(combined.keys, combined.scores)


def test_weighted_product() -> None:
    weights = {"click": 1.0, "hate": -2.0, "watch": 3.0}
    # (1 + 0.25/0.5)^1 * (1 + 0.5/0.1)^-2 * (1 + 10/10)^3 = 1.5 / 36 * 8
    combined = combine(rows((0.25, 0.5, 40.0)), ranking(weights=weights))
    np.testing.assert_allclose(combined.scores, [1.5 / 36 * 8])
    np.testing.assert_allclose(combined.keys, [math.log(1.5 / 36 * 8)])
    np.testing.assert_allclose(combined.contributions.sum(axis=1), combined.keys)


def test_product_is_bounded_as_a_rare_dismissal_vanishes() -> None:
    combined = combine(rows((0.5, 0.0, 0.0), (0.5, 1e-30, 0.0)), ranking(weights={"hate": -5.0}))
    np.testing.assert_allclose(combined.scores, [1.0, 1.0])


def test_product_beyond_a_double_still_orders() -> None:
    combined = combine(rows((0.5, 0, 0), (1.0, 0, 0)), ranking(weights={"click": 1000.0}))
    # 2^1000 fits a double, 3^1000 doesn't
    assert np.isfinite(combined.scores).all()
    np.testing.assert_allclose(combined.keys, [1000 * math.log(2), 1000 * math.log(3)])
    assert order(combined.keys, ["a", "b"]).tolist() == [1, 0]


def test_pinned_mean_is_taken_as_it_is() -> None:
    pinned = ranking(combine="weighted_sum", weights={"watch": 1.0}, reference_means={"watch": 5.0})
    np.testing.assert_allclose(combine(rows((0.25, 0.5, 40.0)), pinned).scores, [2.0])


@pytest.mark.parametrize("mean", [0.0, None, math.nan, -1.0])
def test_a_mean_that_is_no_scale_counts_as_one(mean: float | None) -> None:
    unscaled = Ranking.of(RankingConfig(combine="weighted_sum", weights={"click": 2.0}), (CLICK,), {"click": mean})
    np.testing.assert_allclose(combine(np.array([[0.25]], np.float32), unscaled).scores, [0.5])


def test_unknown_objective_is_refused() -> None:
    with pytest.raises(ConfigError, match="weights: unknown objective 'likes': the bundle has click, hate, watch"):
        ranking(weights={"likes": 1.0})
    with pytest.raises(KeyError, match="likes"):
        ranking().reweighted({"likes": 1.0})


@pytest.mark.parametrize("config", [{"weights": {"click": math.inf}}, {"reference_means": {"click": 0.0}}])
def test_unusable_numbers_are_refused(config: dict[str, dict[str, float]]) -> None:
    with pytest.raises(ConfigError, match="click: expected a"):
        ranking(**config)


def test_overrides_replace_key_by_key() -> None:
    changed = ranking(weights={"click": 1.0, "hate": -1.0}).reweighted({"hate": 0.0, "watch": 2.0})
    assert changed.weights.tolist() == [1.0, 0.0, 2.0]
    assert changed.unweighted == ("hate",)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("combination", ["weighted_sum", "weighted_product"])
def test_not_finite_sinks_even_where_its_weight_is_zero(bad: float, combination: str) -> None:
    predictions = rows((0.9, bad, 1.0), (0.1, 0.1, 1.0))
    combined = combine(predictions, ranking(combine=combination, weights={"click": 1.0}))
    assert combined.not_finite.tolist() == [True, False]
    assert math.isnan(combined.scores[0])
    assert order(combined.keys, ["a", "b"]).tolist() == [1, 0]


def test_ties_break_by_id_and_the_sunken_come_last() -> None:
    keys = np.array([1.0, -np.inf, 2.0, 1.0, -np.inf, -0.0, 0.0])
    assert order(keys, ["b", "z", "c", "a", "y", "e", "d"]).tolist() == [2, 3, 0, 6, 5, 4, 1]


def test_nothing_to_order() -> None:
    combined = combine(np.zeros((0, 3), np.float32), ranking())
    assert order(combined.keys, []).tolist() == []


FINITE = st.floats(0, 1e6, width=32)
PREDICTIONS = st.lists(st.tuples(st.floats(0, 1, width=32), st.floats(0, 1, width=32), FINITE), min_size=1, max_size=30)
WEIGHTS = st.fixed_dictionaries({name: st.floats(-1e3, 1e3) for name in MEANS})
COMBINE = st.sampled_from(["weighted_sum", "weighted_product"])


@settings(deadline=None)
@given(PREDICTIONS, WEIGHTS, COMBINE)
def test_a_score_does_not_depend_on_the_other_candidates(
    predictions: list[tuple[float, float, float]], weights: dict[str, float], combination: str
) -> None:
    table, how = rows(*predictions), ranking(combine=combination, weights=weights)
    together = combine(table, how)
    alone = np.concatenate([combine(table[i : i + 1], how).keys for i in range(len(table))])
    np.testing.assert_array_equal(together.keys, alone)


@settings(deadline=None)
@given(PREDICTIONS, WEIGHTS, COMBINE, st.randoms(use_true_random=False))
def test_the_order_does_not_depend_on_the_order_of_the_request(
    predictions: list[tuple[float, float, float]], weights: dict[str, float], combination: str, random: object
) -> None:
    table, how = rows(*predictions), ranking(combine=combination, weights=weights)
    ids = [f"v{i}" for i in range(len(table))]
    shuffled = list(range(len(table)))
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    first = [ids[i] for i in order(combine(table, how).keys, ids)]
    names = [ids[i] for i in shuffled]
    second = [names[i] for i in order(combine(table[shuffled], how).keys, names)]
    assert first == second


@settings(deadline=None)
@given(PREDICTIONS, WEIGHTS, COMBINE)
def test_finite_predictions_give_finite_scores_in_falling_order(
    predictions: list[tuple[float, float, float]], weights: dict[str, float], combination: str
) -> None:
    table, how = rows(*predictions), ranking(combine=combination, weights=weights)
    combined = combine(table, how)
    assert np.isfinite(combined.scores).all()
    ordered = combined.scores[order(combined.keys, [f"v{i}" for i in range(len(table))])]
    assert (np.diff(ordered) <= 0).all()


@settings(deadline=None)
@given(st.floats(0, 1, width=32), st.floats(0, 1, width=32), st.floats(-1e3, 1e3), COMBINE)
def test_more_of_an_objective_moves_the_score_with_the_sign_of_its_weight(
    one: float, other: float, weight: float, combination: str
) -> None:
    low, high = sorted((one, other))
    keys = combine(rows((low, 0, 0), (high, 0, 0)), ranking(combine=combination, weights={"click": weight})).keys
    assert (keys[1] - keys[0]) * weight >= 0
