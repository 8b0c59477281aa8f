"""Boundaries that spend what they may, known ones found again, the sample-ratio check, and power against simulation."""

import numpy as np
import pytest
from scipy.stats import chisquare, norm

from training.experiment_analysis import Effect, Plan, measure
from training.experiment_effects import Outcome
from training.experiment_metrics import METRICS, WATCH_TIME
from training.experiment_power import announce
from training.experiment_sample_ratio import LEVEL as CHECK_LEVEL
from training.experiment_sample_ratio import sample_ratio
from training.experiment_sequential import boundaries, crossed, paths, spending

DRAWS = 1 << 16


def independent_steps(looks: int) -> np.ndarray:
    times = (np.arange(looks) + 1) / looks
    return np.minimum.outer(times, times)


def test_what_may_be_spent_ends_at_the_level() -> None:
    assert spending(0.05, np.arange(4), 4).tolist() == pytest.approx([0.003125, 0.0125, 0.028125, 0.05])
    assert spending(0.05, np.array([1, 3]), 4).tolist() == pytest.approx([0.0125, 0.05])  # a look left out is caught up


def test_one_look_has_the_textbooks_bound() -> None:
    bounds = boundaries(np.abs(paths(np.eye(1), 1 << 18)), spending(0.05, np.array([0]), 1))
    assert bounds[0] == pytest.approx(1.96, abs=0.01)


def test_known_bounds_are_found_again() -> None:
    """Five equal steps, alpha t^2, two-sided 5%: solved by numerical integration, look by look, in the test below."""
    bounds = boundaries(np.abs(paths(independent_steps(5), 1 << 18)), spending(0.05, np.arange(5), 5))
    assert bounds == pytest.approx(by_integration(spending(0.05, np.arange(5), 5)), abs=0.02)


def by_integration(spent: np.ndarray) -> list[float]:
    """Armitage, McPherson & Rowe (1969): the density of the sum that has not crossed, convolved step by step."""
    grid = np.linspace(-12, 12, 6001)
    step = grid[1] - grid[0]
    density, bounds = norm.pdf(grid), []
    kernel = norm.pdf(grid) * step
    for k, more in enumerate(np.diff(spent, prepend=0)):
        if k:
            density = np.convolve(density, kernel, mode="same")
        tail = np.cumsum(density[::-1])[::-1] * step  # P(sum > grid), upper side
        edge = np.interp(-more / 2, -tail[3000:], grid[3000:])
        bounds.append(edge / np.sqrt(k + 1))
        density = np.where(np.abs(grid) < edge, density, 0.0)
    return bounds


def test_paths_cross_as_often_as_was_spent() -> None:
    spent = spending(0.05, np.arange(10), 10)
    statistics = np.abs(paths(independent_steps(10), DRAWS))
    bounds = boundaries(statistics, spent)
    for look in range(10):
        assert crossed(statistics[: look + 1], bounds[: look + 1]) == pytest.approx(spent[look], abs=2 / DRAWS)
    fresh = np.cumsum(np.random.default_rng(1).standard_normal((10, 100_000)), axis=0) / np.sqrt(np.arange(1, 11))[:, None]
    assert crossed(np.abs(fresh).astype(np.float32), bounds) == pytest.approx(0.05, abs=0.004)


def test_a_bound_does_not_depend_on_what_comes_later() -> None:
    covariance, spent = independent_steps(8), spending(0.05, np.arange(8), 8)
    whole = boundaries(np.abs(paths(covariance, DRAWS)), spent)
    for looks in (1, 3, 7):
        part = boundaries(np.abs(paths(covariance[:looks, :looks], DRAWS)), spent[:looks])
        assert part == pytest.approx(whole[:looks], abs=1e-4)


def test_correlated_looks_cost_less() -> None:
    """Looks that say almost the same must not be paid for twice."""
    same = np.full((10, 10), 0.999) + 0.001 * np.eye(10)
    spent = spending(0.05, np.arange(10), 10)
    tight = boundaries(np.abs(paths(same, DRAWS)), spent)[-1]
    assert 1.94 < tight < 2.0 < boundaries(np.abs(paths(independent_steps(10), DRAWS)), spent)[-1]


def test_looks_that_are_the_same_do_not_break_it() -> None:
    bounds = boundaries(np.abs(paths(np.ones((3, 3)), DRAWS)), spending(0.05, np.arange(3), 3))
    assert (np.diff(bounds) < 0).all()
    assert bounds[-1] == pytest.approx(1.96, abs=0.03)


def test_nothing_may_be_spent_yet() -> None:
    assert boundaries(np.abs(paths(np.eye(2), 100)), np.array([1e-6, 0.05]))[0] == np.inf


# --- the sample-ratio check ---------------------------------------------------------------------------------------


def everybody(counts: list[int], looks: int = 1) -> tuple[np.ndarray, np.ndarray]:
    arm = np.repeat(np.arange(len(counts)), counts)
    return np.ones((len(arm), looks), bool), arm


@pytest.mark.parametrize(
    ("counts", "shares"), [([5000, 5200], [0.5, 0.5]), ([800, 190], [0.4, 0.1]), ([300, 310, 620], [0.25, 0.25, 0.5])]
)
def test_the_sample_ratio_is_scipys(counts: list[int], shares: list[float]) -> None:
    ratio = sample_ratio(*everybody(counts), shares, 1)
    scipys = chisquare(counts, np.array(shares) / sum(shares) * sum(counts))
    assert ratio.statistic[0] == pytest.approx(scipys.statistic)
    assert ratio.p_value[0] == pytest.approx(scipys.pvalue)
    assert ratio.failed == (scipys.pvalue < CHECK_LEVEL)


def test_a_missing_hundredth_is_noticed_among_many() -> None:
    assert not sample_ratio(*everybody([50_000, 50_200]), [0.5, 0.5], 1).failed
    assert sample_ratio(*everybody([50_000, 49_000]), [0.5, 0.5], 1).failed


def test_once_failed_stays_failed() -> None:
    """Users who come later can't wash out what went wrong."""
    entry = np.concatenate([np.zeros(1300, int), np.ones(100_000, int)])
    arm = np.concatenate([np.arange(1300) < 800, np.arange(100_000) % 2]).astype(int)
    ratio = sample_ratio(entry[:, None] <= np.arange(2), arm, [0.5, 0.5], 2)
    assert ratio.p_value[1] > CHECK_LEVEL
    assert ratio.failed_at == 0


@pytest.mark.parametrize("shares", [[0.5, 0.5], [0.1, 0.3, 0.2]])
def test_daily_looks_keep_the_checks_level(shares: list[float]) -> None:
    rng = np.random.default_rng(2)
    part, runs, days = np.array(shares) / sum(shares), 1500, 7
    daily = naive = 0
    for _ in range(runs):
        entry = np.minimum(rng.geometric(0.4, 2000) - 1, days - 1)
        arm = rng.choice(len(shares), 2000, p=part)
        ratio = sample_ratio(entry[:, None] <= np.arange(days), arm, shares, days, level=0.05, draws=1 << 13)
        daily += ratio.failed
        naive += bool((ratio.p_value < 0.05).any())
    assert 0.03 < daily / runs < 0.07
    assert naive / runs > 0.08


# --- power ----------------------------------------------------------------------------------------------------------


def users(rng: np.random.Generator, n: int, effect: float = 0.0, days: int = 5) -> tuple[Outcome, np.ndarray]:
    """Skewed totals of users who enter over some days, with a past that goes with them."""
    level = np.exp(rng.normal(0, 0.8, (n, 1)))
    entered = rng.integers(0, 3, (n, 1)) <= np.arange(days)
    arm = rng.integers(0, 2, n)
    top = np.cumsum(rng.gamma(0.7, level, (n, days)) * entered, axis=1) * (1 + effect * arm[:, None])
    past = rng.gamma(3.0, level[:, 0])
    return Outcome(top, entered.astype(float), entered, np.stack([past, np.ones(n)], axis=1)), arm


PLAN = Plan((0.5, 0.5), 0, 5, draws=1 << 14)


def test_power_is_what_simulation_finds() -> None:
    before, _ = users(np.random.default_rng(3), 40_000)
    power = announce(WATCH_TIME, before, np.array([1000.0, 1000.0]), PLAN, 1)
    assert power is not None
    effect, runs = 0.11, 300
    found = {"daily": 0, "end": 0}
    for run in range(runs):
        of_users, arm = users(np.random.default_rng([4, run]), 2000, effect)
        found_in = measure(WATCH_TIME, of_users, arm, PLAN).effects[0]
        found["daily"] += found_in.found_at is not None
        found["end"] += found_in.found_fixed
    assert 0.6 < power.at_end(effect) < 0.95
    assert found["end"] / runs == pytest.approx(power.at_end(effect), abs=0.07)
    assert found["daily"] / runs == pytest.approx(power.daily(effect), abs=0.07)


def test_power_at_the_end_is_the_textbooks() -> None:
    """Two means of n users each with variance 1 around 10: the difference e * 10 in errors of sqrt(2 / n)."""
    y = 10 + np.random.default_rng(5).standard_normal((20_000, 1))
    every = np.ones((20_000, 1), bool)
    of_users = Outcome(y, every.astype(float), every, np.zeros((20_000, 0)))
    power = announce(METRICS[0], of_users, np.array([500.0, 500.0]), Plan((0.5, 0.5), 0, 1), 1)
    assert power is not None
    shift = 0.02 * 10 / np.sqrt(2 / 500)
    assert power.at_end(0.02) == pytest.approx(norm.sf(1.96 - shift), abs=0.01)
    assert power.daily(0.02) == pytest.approx(power.at_end(0.02), abs=0.01)
    assert power.daily(0.0) == pytest.approx(0.05, abs=0.001)


def test_the_least_effect_has_the_power_it_should() -> None:
    before, _ = users(np.random.default_rng(6), 5000)
    power = announce(WATCH_TIME, before, np.array([1000.0, 1000.0]), PLAN, 1)
    twice = announce(WATCH_TIME, before, np.array([4000.0, 4000.0]), PLAN, 1)
    assert power is not None
    assert twice is not None
    assert power.daily(power.least_effect()) == pytest.approx(0.8, abs=0.002)
    assert power.least_effect(0.9) > power.least_effect(0.8)
    assert twice.least_effect() == pytest.approx(power.least_effect() / 2, rel=0.01)


def test_history_buys_power() -> None:
    before, _ = users(np.random.default_rng(7), 5000)
    blind = Outcome(before.top, before.bottom, before.entered, np.zeros((5000, 0)))
    sizes = np.array([1000.0, 1000.0])
    with_history, without = (announce(WATCH_TIME, of, sizes, PLAN, 1) for of in (before, blind))
    assert with_history is not None
    assert without is not None
    assert with_history.at_end(0.08) > without.at_end(0.08) + 0.1


def test_too_few_users_have_no_power() -> None:
    before, _ = users(np.random.default_rng(8), 500)
    assert announce(WATCH_TIME, before, np.array([10.0, 10.0]), PLAN, 1) is None


# --- one effect -----------------------------------------------------------------------------------------------------


def one_effect(effect: float, n: int = 3000, shares: tuple[float, ...] = (0.5, 0.5)) -> Effect:
    of_users, arm = users(np.random.default_rng(9), n, effect)
    return measure(WATCH_TIME, of_users, arm, Plan(shares, 0, 5, draws=DRAWS)).effects[0]


def test_a_large_effect_is_found_early_and_stays_in_its_intervals() -> None:
    effect = one_effect(0.5)
    assert effect.found_at is not None
    assert effect.found_at < 3
    for look in range(len(effect.looks)):
        low, high = effect.relative_interval(look) or (0, 0)
        assert low < 0.5 < high
    assert effect.narrowed is not None
    assert 0.2 < effect.narrowed < 0.9


def test_daily_intervals_hold_the_interval_of_one_look() -> None:
    effect = one_effect(0.0)
    daily, fixed = effect.interval(-1), effect.interval(-1, daily=False)
    assert daily is not None
    assert fixed is not None
    assert daily[0] <= fixed[0] < fixed[1] <= daily[1]
    assert (daily[1] - daily[0]) < 1.15 * (fixed[1] - fixed[0])
    assert effect.found_fixed == (effect.p_value < 0.05)


def test_days_with_too_few_users_are_no_looks() -> None:
    of_users, arm = users(np.random.default_rng(10), 200)
    found = measure(WATCH_TIME, of_users, arm, PLAN)
    assert found.effects[0].looks.tolist() == [1, 2, 3, 4]
    of_users, arm = users(np.random.default_rng(10), 80)
    assert measure(WATCH_TIME, of_users, arm, PLAN).effects == []


def test_more_treatments_share_the_level() -> None:
    assert one_effect(0.0).fixed == pytest.approx(1.96, abs=0.01)
    assert Plan((0.4, 0.3, 0.3), 0, 5).level_each == 0.025
    assert Plan((0.4, 0.3, 0.3), 1, 5).treatments == [0, 2]
