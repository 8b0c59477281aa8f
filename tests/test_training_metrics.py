"""Each metric against values worked out by hand, and against scikit-learn on random rows with ties and weights."""

import math

import numpy as np
import pytest
from sklearn import metrics as sklearn

from training import metrics
from training.gates import effective_experts, gate_figures, gate_health, row_figures
from training.pairs import order_accuracy, row_pairs, slate_order


def _random(seed: int, n: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    scores = rng.integers(1, 20, n) / 20  # many ties
    targets = (rng.random(n) < scores).astype(np.float32)
    return targets, scores.astype(np.float32), rng.integers(0, 4, n).astype(float)


def test_auc_by_hand() -> None:
    # positives 0.8 and 0.4, negatives 0.4 and 0.1: 0.8 beats both, 0.4 ties one and beats one: 3.5 of 4
    assert metrics.auc(np.array([1, 1, 0, 0]), np.array([0.8, 0.4, 0.4, 0.1])) == 3.5 / 4


def test_auc_weighs_pairs_by_hand() -> None:
    # the positive (weight 2) beats the negative of weight 3 and loses to that of weight 1: 6 of 8
    assert metrics.auc(np.array([1, 0, 0]), np.array([0.5, 0.2, 0.9]), np.array([2, 3, 1])) == 6 / 8


@pytest.mark.parametrize("targets", [[], [0, 0], [1, 1]])
def test_auc_of_one_class_is_undefined(targets: list[int]) -> None:
    assert metrics.auc(np.array(targets), np.arange(len(targets)) / 2) is None


def test_auc_of_a_class_with_no_weight_is_undefined() -> None:
    assert metrics.auc(np.array([1, 0]), np.array([0.2, 0.1]), np.array([1, 0])) is None


@pytest.mark.parametrize("seed", range(5))
def test_against_scikit_learn(seed: int) -> None:
    y, p, w = _random(seed)
    assert metrics.auc(y, p) == pytest.approx(sklearn.roc_auc_score(y, p), abs=1e-12)
    assert metrics.auc(y, p, w) == pytest.approx(sklearn.roc_auc_score(y, p, sample_weight=w), abs=1e-12)
    assert metrics.log_loss(y, p, w) == pytest.approx(sklearn.log_loss(y, p.astype(float), sample_weight=w))
    target = np.random.default_rng(seed).exponential(10, len(p))
    assert metrics.mse(target, p, w) == pytest.approx(sklearn.mean_squared_error(target, p, sample_weight=w))
    assert metrics.mae(target, p, w) == pytest.approx(sklearn.mean_absolute_error(target, p, sample_weight=w))


def test_a_weight_is_a_repetition() -> None:
    y, p, w = _random(7)
    again = np.repeat(np.arange(len(y)), w.astype(int))
    slate = np.random.default_rng(1).integers(0, 30, len(y))
    for metric in (metrics.auc, metrics.log_loss, metrics.mse, metrics.mae, metrics.predicted_over_actual, metrics.ece):
        assert metric(y, p, w) == pytest.approx(metric(y[again], p[again])), metric.__name__
    assert metrics.gauc(y, p, slate, w) == pytest.approx(metrics.gauc(y[again], p[again], slate[again]))
    assert order_accuracy(y, p, w) == pytest.approx(order_accuracy(y[again], p[again]))


def test_log_loss_by_hand_and_at_certainty() -> None:
    assert metrics.log_loss(np.array([1, 0]), np.array([0.5, 0.75])) == pytest.approx((math.log(2) + math.log(4)) / 2)
    assert metrics.log_loss(np.array([1]), np.array([0.0])) == pytest.approx(-math.log(1e-7))
    assert metrics.log_loss(np.array([0.0]), np.array([1.0], np.float32)) == pytest.approx(-math.log(1e-7), rel=1e-6)


def test_gauc_by_hand_leaves_out_slates_of_one_class() -> None:
    slate = np.array([5, 5, 9, 9, 9, 9, 2, 2, 7])
    y = np.array([1, 0, 1, 0, 0, 0, 1, 1, 0])
    p = np.array([0.9, 0.1, 0.5, 0.5, 0.6, 0.1, 0.3, 0.2, 0.4])
    # slate 5: 1 (2 impressions); slate 9: wins one, ties one, loses one of three: 0.5 (4); slates 2 and 7 have one class
    assert metrics.gauc(y, p, slate) == pytest.approx((1 * 2 + 0.5 * 4) / 6)
    slates = metrics.slate_aucs(y, p, slate)
    np.testing.assert_allclose(slates.auc, [1, 0.5])
    np.testing.assert_allclose(slates.weight, [2, 4])
    assert slates.share == pytest.approx(6 / 9)
    assert set(slate[slates.row]) == {5, 9}


def test_gauc_equals_scikit_learn_slate_by_slate() -> None:
    y, p, _ = _random(3, 600)
    slate = np.random.default_rng(4).integers(-40, 40, len(y))
    values = []
    for one in np.unique(slate):
        rows = slate == one
        if 0 < y[rows].sum() < rows.sum():
            values.append((sklearn.roc_auc_score(y[rows], p[rows]), rows.sum()))
    expected = np.average([v for v, _ in values], weights=[n for _, n in values])
    assert metrics.gauc(y, p, slate) == pytest.approx(expected, abs=1e-12)


def test_gauc_of_slates_of_one_class_is_undefined() -> None:
    assert metrics.gauc(np.array([1, 1, 0]), np.array([0.1, 0.2, 0.3]), np.array([0, 0, 1])) is None
    assert metrics.gauc(np.zeros(0), np.zeros(0), np.zeros(0, np.int64)) is None


def test_predicted_over_actual() -> None:
    assert metrics.predicted_over_actual(np.array([1, 0, 0, 1]), np.array([0.5, 0.25, 0.25, 0.5])) == 0.75
    assert metrics.predicted_over_actual(np.array([0, 0]), np.array([0.5, 0.5])) is None


def test_calibration_bins_have_equal_mass_and_keep_equal_predictions_together() -> None:
    assert metrics.calibration_bins(np.arange(10)[::-1], bins=5).tolist() == [4, 4, 3, 3, 2, 2, 1, 1, 0, 0]
    assert metrics.calibration_bins(np.array([0.1, 0.2, 0.2, 0.2, 0.2, 0.9]), bins=3).tolist() == [0, 1, 1, 1, 1, 2]
    assert metrics.calibration_bins(np.full(7, 0.3)).tolist() == [0] * 7


def test_ece_by_hand() -> None:
    # two bins of two: |0.15 - 0.5| and |0.85 - 0.5|, half the rows each
    assert metrics.ece(np.array([0, 1, 1, 0]), np.array([0.1, 0.2, 0.8, 0.9]), bins=2) == pytest.approx(0.35)
    assert metrics.ece(np.array([0, 1]), np.array([0.5, 0.5])) == 0  # a constant has one bin
    assert metrics.ece(np.zeros(0), np.zeros(0)) is None


def test_order_accuracy_by_hand() -> None:
    # targets 1 < 2 = 2 < 3; five comparable pairs: 1-2a right, 1-2b a tie, 1-3 right, 2a-3 wrong, 2b-3 right
    y, p = np.array([1, 2, 2, 3]), np.array([0.3, 0.9, 0.3, 0.5])
    assert order_accuracy(y, p) == pytest.approx(3.5 / 5)
    pairs = row_pairs(y, p, np.zeros(4, np.int64), np.ones(4))
    assert pairs.comparable.tolist() == [3, 2, 2, 3]
    assert pairs.right.tolist() == [2.5, 1, 1.5, 2]
    assert order_accuracy(np.full(3, 2.0), np.arange(3)) is None
    assert order_accuracy(np.zeros(0), np.zeros(0)) is None


@pytest.mark.parametrize("seed", range(4))
def test_order_accuracy_against_all_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    y, p, w = rng.integers(0, 9, 150), rng.integers(0, 7, 150) / 7, rng.integers(0, 3, 150).astype(float)
    right = total = 0.0
    for i in range(150):
        for j in range(150):
            if y[i] < y[j]:
                total += w[i] * w[j]
                right += w[i] * w[j] * (1 if p[i] < p[j] else 0.5 if p[i] == p[j] else 0)
    assert order_accuracy(y, p, w) == pytest.approx(right / total, abs=1e-12)


def test_order_accuracy_of_a_binary_target_is_its_auc() -> None:
    y, p, w = _random(11)
    assert order_accuracy(y, p, w) == pytest.approx(metrics.auc(y, p, w), abs=1e-12)


def test_slate_order_is_order_accuracy_of_each_slate() -> None:
    rng = np.random.default_rng(5)
    y, p, slate = rng.integers(0, 5, 200), rng.integers(0, 6, 200), rng.integers(0, 40, 200)
    slates = slate_order(y, p, slate)
    names = slate[slates.row]
    for name in np.unique(slate):
        rows = slate == name
        expected = order_accuracy(y[rows], p[rows])
        if expected is None:
            assert name not in names
        else:
            place = np.flatnonzero(names == name)[0]
            assert slates.accuracy[place] == pytest.approx(expected)
            assert slates.weight[place] == rows.sum()


def test_effective_experts_by_hand() -> None:
    use = np.array([[0.25] * 4, [1, 0, 0, 0], [0.5, 0.5, 0, 0], [2, 2, 0, 0]])
    np.testing.assert_allclose(effective_experts(use), [4, 1, 2, 2])
    assert np.isnan(effective_experts(np.array([[0.0, 0.0], [np.nan, 1.0]]))).all()


def test_an_expert_is_dead_when_no_objective_uses_it() -> None:
    use = np.array([[0.6, 0.395, 0.005], [0.5, 0.48, 0.02]])
    assert gate_health(use, 0.01, 1.5).dead == ()
    assert not gate_health(use, 0.01, 1.5).polarized
    use[1] = [0.5, 0.491, 0.009]
    assert gate_health(use, 0.01, 1.5).dead == (2,)
    assert gate_health(use, 0.01, 1.5).polarized
    assert not gate_health(use, 0.001, 1.5).polarized  # the threshold is the configuration's


def test_a_gate_collapses_below_one_and_a_half_effective_experts() -> None:
    use = np.array([[0.9, 0.1], [0.5, 0.5]])  # exp(0.325) = 1.38
    health = gate_health(use, 0.01, 1.5)
    assert health.collapsed == (0,)
    assert health.polarized
    assert not gate_health(use, 0.01, 1.3).polarized
    figures = gate_figures(use, ("click", "like"), 0.01, 1.5)
    assert figures["collapsed_gates"] == ["click"]
    assert figures["polarized"] is True
    assert figures["effective_experts"]["like"] == pytest.approx(2)


def test_a_gate_with_experts_of_its_own_is_judged_by_what_it_can_choose() -> None:
    """Expert 0 is the first objective's own, 1 the second's, 2 is shared."""
    use = np.array([[0.9, 0, 0.1], [0, 1, 0]])
    assert gate_health(use, 0.01, 1.5, ((0, 2), (1,))).collapsed == (0,)  # the second has no choice
    assert gate_health(use, 0.01, 1.5, ((0, 2), (1, 2))).collapsed == (0, 1)
    assert gate_health(np.array([[0.4, 0, 0.6], [0, 0.001, 0.999]]), 0.01, 1.5, ((0, 2), (1, 2))).dead == (1,)
    lone = gate_figures(np.eye(2), ("a", "b"), 0.01, 1.5, ((0,), (1,)))
    assert lone["polarized"] is None
    assert "no choice" in lone["undefined"]["polarized"]


def test_entropy_and_dead_units_of_the_rows_by_hand() -> None:
    units = {"d1": (30, np.array([[True, False], [True, True]])), "d2": (10, np.array([[False, False], [True, False]]))}
    figures = row_figures(np.array([0.5, 1.0]), units, ("a", "b"), 2)
    assert figures["gate_entropy"] == {"a": 0.5, "b": 1.0}
    assert figures["dead_unit_share_by_day"] == {"d1": 0.25, "d2": 0.75}
    assert figures["dead_unit_share"] == pytest.approx((30 * 0.25 + 10 * 0.75) / 40)
    assert figures["undefined"] == {}
    swish = row_figures(np.array([0.5, 1.0]), {"d1": (30, np.zeros((0, 0), bool))}, ("a", "b"), 2)
    assert (swish["dead_unit_share"], swish["gate_entropy"]["a"]) == (None, 0.5)
    assert "no ReLU" in swish["undefined"]["dead_unit_share"]
    for experts, reason in ((0, "no experts"), (2, "no rows")):
        nothing = row_figures(None, {}, ("a", "b"), experts)
        assert [nothing[key] for key in ("gate_entropy", "dead_unit_share")] == [None, None]
        assert all(reason in text for text in nothing["undefined"].values())


@pytest.mark.parametrize(
    ("use", "reason"),
    [(np.zeros((2, 0)), "no experts"), (np.full((2, 3), np.nan), "no rows"), (np.ones((2, 1)), "one expert")],
)
def test_gates_that_cannot_be_judged_say_why(use: np.ndarray, reason: str) -> None:
    figures = gate_figures(use, ("a", "b"), 0.01, 1.5)
    assert figures["polarized"] is None
    assert reason in figures["undefined"]["polarized"]
