"""The small version of benchmarks/experiment_statistics.py: few runs, wide margins, fixed seeds."""

from collections.abc import Iterator

import numpy as np
import pytest

from benchmarks import experiment_statistics as benchmark
from training.experiment_analysis import Plan, analyse
from training.experiment_metrics import METRICS


@pytest.fixture(scope="module", autouse=True)
def few_draws() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark, "DRAWS", 1 << 12)
        yield


@pytest.fixture(scope="module")
def alarms(few_draws: None) -> dict[str, dict[str, float]]:
    figures = benchmark.false_alarms(runs=80, users=800, shares=(0.5, 0.5), seed=11)
    assert figures["sample_ratio"]["daily"] <= 0.05
    metrics: dict[str, dict[str, float]] = figures["metrics"]
    return metrics


def test_false_alarms_are_as_rare_as_they_should_be(alarms: dict[str, dict[str, float]]) -> None:
    assert {"watch time by user", "watch time by user, CUPED", "click rate", "click rate, CUPED"} <= alarms.keys()
    for name, rates in alarms.items():
        assert rates["at the end"] <= 0.15, name
        assert rates["daily"] <= 0.15, name
    for when in ("at the end", "daily"):
        assert 0.015 <= np.mean([rates[when] for rates in alarms.values()]) <= 0.09


def test_the_simulation_would_show_a_wrong_method(alarms: dict[str, dict[str, float]]) -> None:
    assert np.mean([rates["naively daily"] for rates in alarms.values()]) > 0.11


def test_looking_daily_costs_little_width(alarms: dict[str, dict[str, float]]) -> None:
    for name, rates in alarms.items():
        assert 0.97 < rates["width"] < 1.15 < rates["width, sequence"], name


def test_a_planted_effect_is_found_as_often_as_announced() -> None:
    figures = benchmark.found_as_announced(runs=50, users=2000, effect=0.14, seed=12)
    assert 0.5 < figures["announced"]["daily"] < 0.99
    for when in ("daily", "at the end"):
        assert figures["found"][when] == pytest.approx(figures["announced"][when], abs=0.17)
    assert figures["mean_estimate"] == pytest.approx(0.14, abs=0.03)
    assert figures["covered"] > 0.85


def test_the_world_is_skewed_and_users_keep_their_habits() -> None:
    simulated = benchmark.simulate(np.random.default_rng(13), 20_000)
    before, after = (simulated.watch_time[:, days].sum(axis=1) for days in (slice(0, 14), slice(14, 28)))
    assert after.std() > 1.5 * after.mean()
    assert (simulated.impressions == 0).mean() > 0.5
    assert np.corrcoef(before, after)[0, 1] > 0.7


def test_impressions_as_if_independent_would_alarm_far_too_often() -> None:
    """Why the user is the unit: click rates of impressions taken one by one."""
    wrong = right = 0
    for run in range(60):
        simulated = benchmark.simulate(np.random.default_rng([14, run]), 1000)
        frame = benchmark.to_frame(simulated, benchmark.experiment_of(f"one-by-one-{run}", (0.5, 0.5)))
        click, shown = (frame.cumulative(column)[:, -1] for column in ("click", "impressions"))
        clicks, shows = (np.bincount(frame.arm, values, 2) for values in (click, shown))
        rate = clicks.sum() / shows.sum()
        error = np.sqrt(rate * (1 - rate) * (1 / shows).sum())
        wrong += abs(clicks[1] / shows[1] - clicks[0] / shows[0]) > 1.96 * error
        result = analyse(frame, Plan((0.5, 0.5), 0, benchmark.DAYS, draws=1 << 10), False, [METRICS[3]])[0]
        right += result.effects[0].found_fixed
    assert wrong > 15
    assert right <= 10
