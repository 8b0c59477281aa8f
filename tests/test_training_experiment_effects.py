"""Differences between arms: the delta method and CUPED by hand and against the bootstrap, and intervals that agree."""

import numpy as np
import pytest
from scipy import stats

from training.experiment_effects import Difference, Outcome, difference, levels, relative
from training.experiment_frame import UserDays
from training.experiment_metrics import METRICS, Metric, covariates, metrics_of, outcome


def at_one_look(top: np.ndarray, bottom: np.ndarray, history: np.ndarray | None = None) -> Outcome:
    column = np.asarray(top, np.float64)[:, None]
    none = np.zeros((len(column), 0)) if history is None else history
    return Outcome(column, np.asarray(bottom, np.float64)[:, None], np.ones((len(column), 1), bool), none)


def skewed(seed: int, n: int = 600) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Clicks, impressions, an earlier total that goes with them, and arms."""
    rng = np.random.default_rng(seed)
    activity = np.exp(rng.normal(1.5, 0.8, n))
    shown = 1 + rng.poisson(activity)
    clicked = rng.binomial(shown, rng.beta(2, 6, n))
    return clicked.astype(float), shown.astype(float), rng.poisson(activity).astype(float), rng.integers(0, 2, n)


def test_a_mean_by_user_by_hand() -> None:
    y, arm = np.array([1.0, 3.0, 5.0, 2.0, 4.0]), np.array([0, 0, 0, 1, 1])
    found = levels(at_one_look(y, np.ones(5)), arm, 2)
    assert found.level[:, 0].tolist() == [3.0, 3.0]
    of = difference(found, 1, 0)
    # the variance of a difference of means: 4 / 3 + 2 / 2
    assert of.covariance[0, 0] == pytest.approx(4 / 3 + 1)
    assert of.level_variance[0] == pytest.approx(4 / 3)
    assert of.level_covariance[0] == pytest.approx(-4 / 3)


def test_a_ratio_by_hand() -> None:
    clicked, shown = np.array([1.0, 0.0, 3.0]), np.array([2.0, 4.0, 6.0])
    found = levels(at_one_look(clicked, shown), np.zeros(3, int), 1)
    assert found.level[0, 0] == pytest.approx(1 / 3)
    # residuals 1 - 2/3, 0 - 4/3, 3 - 2; over 12; times n / (n - 1)
    by_hand = ((1 / 3) ** 2 + (4 / 3) ** 2 + 1) / 144 * 3 / 2
    assert (found.moves[0] ** 2).sum() == pytest.approx(by_hand)


def test_the_error_of_a_ratio_is_the_textbooks() -> None:
    clicked, shown, _, _ = skewed(1)
    found = levels(at_one_look(clicked, shown), np.zeros(len(clicked), int), 1)
    n, r = len(clicked), clicked.sum() / shown.sum()
    cov = np.cov(clicked, shown)  # Deng et al. 2018, equation 3
    by_book = (cov[0, 0] - 2 * r * cov[0, 1] + r**2 * cov[1, 1]) / shown.mean() ** 2 / n
    assert (found.moves[0] ** 2).sum() == pytest.approx(by_book)


def test_the_error_of_a_ratio_is_the_bootstraps_and_not_that_of_impressions() -> None:
    clicked, shown, _, arm = skewed(2, 1500)
    of = difference(levels(at_one_look(clicked, shown), arm, 2), 1, 0)
    rng = np.random.default_rng(3)
    drawn = []
    for _ in range(2000):
        sides = []
        for k in (0, 1):
            users = rng.choice(np.flatnonzero(arm == k), (arm == k).sum())
            sides.append(clicked[users].sum() / shown[users].sum())
        drawn.append(sides[1] - sides[0])
    assert of.error[0] == pytest.approx(np.std(drawn), rel=0.06)
    rate = clicked.sum() / shown.sum()
    as_if_independent = np.sqrt(rate * (1 - rate) * sum(1 / shown[arm == k].sum() for k in (0, 1)))
    assert of.error[0] > 1.3 * as_if_independent


def test_cuped_by_hand() -> None:
    y, x = np.array([1.0, 2.0, 6.0, 3.0, 5.0, 10.0]), np.array([0.0, 1.0, 2.0, 1.0, 2.0, 6.0])
    arm = np.array([0, 0, 0, 1, 1, 1])
    found = levels(at_one_look(y, np.ones(6), x[:, None]), arm, 2)
    # within arms: cov 5/2 and 19/2, var of x 1 and 7; equal sizes: theta = 12 / 8
    theta = (5 / 2 + 19 / 2) / (1 + 7)
    assert found.theta[0, 0] == pytest.approx(theta)
    assert found.plain[:, 0].tolist() == [3.0, 6.0]
    assert found.level[:, 0] == pytest.approx([3 - theta * (1 - 2), 6 - theta * (3 - 2)])
    of = difference(found, 1, 0)
    rest = y - theta * x
    assert of.delta[0] == pytest.approx(3 - theta * 2)
    assert of.covariance[0, 0] == pytest.approx(rest[:3].var(ddof=1) / 3 + rest[3:].var(ddof=1) / 3)


def test_theta_is_that_of_all_users_within_their_arms() -> None:
    clicked, _, before, _ = skewed(11)
    arm = (np.arange(600) % 5 == 0).astype(int)
    found = levels(at_one_look(clicked, np.ones(600), before[:, None]), arm, 2)
    centred = [np.concatenate([v[arm == k] - v[arm == k].mean() for k in (0, 1)]) for v in (clicked, before)]
    assert found.theta[0, 0] == pytest.approx(centred[0] @ centred[1] / (centred[1] @ centred[1]), rel=0.01)


def test_cuped_takes_off_what_regression_does() -> None:
    clicked, _, before, arm = skewed(4, 2000)
    plain, adjusted = (
        difference(levels(at_one_look(clicked, np.ones(2000), history), arm, 2), 1, 0) for history in (None, before[:, None])
    )
    correlation = np.corrcoef(clicked, before)[0, 1]
    assert correlation > 0.5
    assert (adjusted.error / plain.error)[0] ** 2 == pytest.approx(1 - correlation**2, abs=0.03)


def test_cuped_of_a_ratio_is_that_of_its_linearised_users() -> None:
    rng = np.random.default_rng(5)
    taste = rng.beta(2, 6, 3000)
    now, then = (1 + rng.poisson(20, 3000) for _ in range(2))
    clicked, before = rng.binomial(now, taste), rng.binomial(then, taste)
    arm = rng.integers(0, 2, 3000)
    history = covariates(before.astype(float), then.astype(float), np.ones(3000))
    found = levels(at_one_look(clicked, now, history), arm, 2)
    plain = levels(at_one_look(clicked, now), arm, 2)
    narrowed = 1 - (difference(found, 1, 0).error / difference(plain, 1, 0).error)[0] ** 2
    linear = [a - a.sum() / b.sum() * b for a, b in ((clicked, now), (before, then))]
    assert narrowed == pytest.approx(np.corrcoef(*linear)[0, 1] ** 2, abs=0.03)
    assert narrowed > 0.3


def test_a_history_that_says_nothing_changes_nothing() -> None:
    clicked, shown, _, arm = skewed(6)
    plain = levels(at_one_look(clicked, shown), arm, 2)
    flat = levels(at_one_look(clicked, shown, np.stack([np.zeros(600), np.ones(600)], axis=1)), arm, 2)
    assert np.array_equal(plain.level, flat.level)
    assert np.array_equal(difference(plain, 1, 0).covariance, difference(flat, 1, 0).covariance)


def test_looks_share_their_users() -> None:
    """The covariance of two looks is that of the users' totals at them."""
    rng = np.random.default_rng(7)
    days = rng.gamma(0.5, 2, (400, 1)) * rng.random((400, 3))
    totals = np.cumsum(days, axis=1)
    arm = rng.integers(0, 2, 400)
    outcome_of = Outcome(totals, np.ones((400, 3)), np.ones((400, 3), bool), np.zeros((400, 0)))
    of = difference(levels(outcome_of, arm, 2), 1, 0)
    by_hand = sum(np.cov(totals[arm == k].T) / (arm == k).sum() for k in (0, 1))
    assert of.covariance == pytest.approx(by_hand)


def test_who_has_not_entered_does_not_count() -> None:
    totals = np.array([[1.0, 2.0], [0.0, 4.0], [3.0, 3.0], [5.0, 6.0]])
    entered = np.array([[True, True], [False, True], [True, True], [True, True]])
    outcome_of = Outcome(totals, entered.astype(float), entered, np.zeros((4, 0)))
    found = levels(outcome_of, np.array([0, 0, 1, 1]), 2)
    assert found.users.tolist() == [[1, 2], [2, 2]]
    assert found.level.tolist() == [[1.0, 3.0], [4.0, 4.5]]
    assert np.isnan(difference(found, 1, 0).error[0])  # one user has no variance


def test_the_relative_interval_agrees_with_the_absolute_one_about_0() -> None:
    for delta in (-0.5, -0.2, 0.19, 0.2, 0.5):
        of = Difference(*(np.array(v) for v in ([delta], [[0.01]], [2.0], [0.006], [-0.006])))
        low, high = relative(of, 0, 1.96) or (0.0, 0.0)
        assert low < delta / 2 < high
        assert (low > 0 or high < 0) == (abs(delta) > 1.96 * 0.1)


def test_the_relative_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(8)
    covered = 0
    for _ in range(2000):
        control, treated = rng.exponential(1.0, 80), rng.exponential(1.3, 80)
        arm = np.repeat([0, 1], 80)
        of = difference(levels(at_one_look(np.concatenate([control, treated]), np.ones(160)), arm, 2), 1, 0)
        low, high = relative(of, 0, 1.96) or (0.0, 0.0)
        covered += low <= 0.3 <= high
    assert 0.93 < covered / 2000 < 0.965


def test_with_history_the_relative_interval_knows_that_both_sides_move_together() -> None:
    """The variance of the adjusted control's level, by simulation: x_all is common to both arms."""
    rng = np.random.default_rng(9)
    seen = []
    for _ in range(3000):
        x = rng.exponential(1.0, 60)
        y = 3 * x + rng.normal(0, 1, 60)
        of = difference(levels(at_one_look(y, np.ones(60), x[:, None]), np.repeat([0, 1], 30), 2), 1, 0)
        seen.append((of.delta[0], of.level[0], of.level_variance[0], of.level_covariance[0], of.covariance[0, 0]))
    delta, level, variance, covariance, error2 = np.array(seen).T
    assert variance.mean() == pytest.approx(level.var(), rel=0.12)
    assert error2.mean() == pytest.approx(delta.var(), rel=0.12)
    assert covariance.mean() == pytest.approx(np.cov(delta, level)[0, 1], abs=0.15 * delta.var())


def test_no_relative_interval_where_the_control_may_be_0() -> None:
    of = Difference(*(np.array(v) for v in ([0.1], [[0.01]], [0.1], [0.01], [-0.01])))
    assert relative(of, 0, 1.96) is None
    assert relative(of, 0, np.inf) is None


def test_a_difference_of_means_is_welchs() -> None:
    clicked, _, _, arm = skewed(10)
    of = difference(levels(at_one_look(clicked, np.ones(600)), arm, 2), 1, 0)
    welch = stats.ttest_ind(clicked[arm == 1], clicked[arm == 0], equal_var=False)
    assert of.delta[0] / of.error[0] == pytest.approx(welch.statistic)


FRAME = UserDays(
    arm=np.array([0, 1, 1]),
    entry=np.array([0, 1, 2]),
    looks=3,
    user=np.array([0, 0, 0, 1, 1, 2]),
    day=np.array([-2, 0, 2, -1, 1, 2]),
    columns={
        "impressions": np.array([4.0, 2.0, 3.0, 5.0, 1.0, 0.0]),
        "watch_time": np.array([40.0, 20.0, 30.0, 50.0, 10.0, 0.0]),
        "active_days": np.array([1.0, 1.0, 1.0, 1.0, 1.0, 0.0]),
    },
)


def test_a_frame_adds_up_by_user_and_day() -> None:
    assert FRAME.entered.tolist() == [[True, True, True], [False, True, True], [False, False, True]]
    assert FRAME.cumulative("impressions").tolist() == [[2, 2, 5], [0, 1, 1], [0, 0, 0]]
    assert FRAME.before("watch_time").tolist() == [40, 50, 0]


def test_the_metrics_are_those_whose_labels_are_there() -> None:
    assert [metric.name for metric in metrics_of(FRAME)] == [METRICS[i].name for i in (0, 1, 2, 4)]


def test_a_ratio_is_adjusted_by_its_own_past() -> None:
    of = outcome(FRAME, Metric("m", "watch_time", "impressions"), adjust=True)
    assert of.history == pytest.approx(np.array([[0.0, 1.0], [0.0, 1.0], [0.0, 0.0]]))  # all watched 10 an impression
    assert outcome(FRAME, METRICS[0], adjust=False).history.shape == (3, 0)
    assert outcome(FRAME, METRICS[0], adjust=True).history.tolist() == [[40, 1], [50, 1], [0, 0]]
