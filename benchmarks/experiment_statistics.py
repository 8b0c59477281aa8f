"""Whether the statistics of experiments keep their word: false alarms, and effects found as often as announced.

    python benchmarks/experiment_statistics.py [--runs 1500] [--unequal-runs 500] [--ratio-runs 10000] [--power-runs 500]

Simulated users over 14 days before and 14 days of an experiment. Their activity is skewed (log-normal, most days empty)
and stays theirs: taste and activity are a user's own, and a slow wave comes on top. A quarter of the users are new, and all
enter on the first day on which they are active. Arms are drawn by the same salted hash as in serving.

1. A/A: both arms are alike; how often does each interval leave out 0, at the end and looked at daily? With equal arms, and
   with fewer runs of unequal ones. The share of the sample-ratio check likewise, at its own level.
2. Power: announced from days before, for a planted effect of 2% in watch time; then how often it is found.
3. Width: what looking daily costs, beside an asymptotic confidence sequence (Waudby-Smith et al. 2021).

Prints a table and writes it to ``$WATCHNEXT_HOME/benchmarks/experiment_statistics.json``.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent.parent))

from data.experiments import Arm, Experiment, assign
from data.home import Home
from training.experiment_analysis import Effect, Plan, analyse
from training.experiment_frame import UserDays
from training.experiment_metrics import WATCH_TIME, outcome
from training.experiment_power import announce
from training.experiment_sample_ratio import LEVEL as CHECK_LEVEL
from training.experiment_sample_ratio import sample_ratio
from training.experiment_sequential import LEVEL

DRAWS = 1 << 15
HISTORY, DAYS = 14, 14
WATCH, LIKE = 20.0, 0.06  # seconds a click, likes a click
COUNTED = ("at the end", "daily", "daily, sequence", "naively daily", "width", "width, sequence")
Floats = NDArray[np.float64]
Figures = dict[str, Any]


@dataclass(frozen=True)
class Simulated:
    """Daily outcomes [users, days]; days before the experiment first."""

    impressions: Floats
    click: Floats
    watch_time: Floats
    like: Floats


def simulate(rng: np.random.Generator, users: int, all_outcomes: bool = True) -> Simulated:
    """People who come when they feel like it, the more active ones watching more; without likes where not asked for."""
    days = HISTORY + DAYS
    taste = rng.standard_normal((users, 4)) @ np.linalg.cholesky(0.6 * np.eye(4) + 0.4).T  # what goes together in a user
    wave = _waves(rng, users, days, 0.97)
    online = 1 / (1 + np.exp(0.9 - 1.2 * taste[:, :1] - 0.7 * wave))
    active = rng.random((users, days)) < online
    signup = np.where(rng.random(users) < 0.25, rng.integers(0, days, users), 0)
    active &= signup[:, None] <= np.arange(days)
    rows = np.nonzero(active)
    level = np.exp(2.0 + 0.6 * taste[rows[0], 1] + 0.3 * wave[rows])
    impressions = np.zeros((users, days))
    impressions[rows] = 1 + rng.poisson(level)
    shown = impressions[rows].astype(np.int64)
    clicks = rng.binomial(shown, 1 / (1 + np.exp(1.2 - 0.4 * taste[rows[0], 2])))
    seconds = WATCH * np.exp(0.3 * taste[rows[0], 3]) * rng.standard_gamma(np.maximum(1.5 * clicks, 1e-9)) / 1.5
    likes = rng.binomial(clicks, LIKE * np.exp(0.3 * taste[rows[0], 3])) if all_outcomes else clicks
    dense = [np.zeros((users, days)) for _ in range(3)]
    for whole, part in zip(dense, (clicks, seconds * (clicks > 0), likes), strict=True):
        whole[rows] = part
    return Simulated(impressions, *dense)


def _waves(rng: np.random.Generator, users: int, days: int, persistence: float) -> Floats:
    """Moods [users, days] that last: autoregressive, of variance 1."""
    result = rng.standard_normal((users, days))
    fresh = np.sqrt(1 - persistence**2)
    for day in range(1, days):
        result[:, day] = persistence * result[:, day - 1] + fresh * result[:, day]
    return result


def to_frame(simulated: Simulated, experiment: Experiment) -> UserDays:
    """The users whom the experiment has, with their days before it and since they entered."""
    seen = simulated.impressions[:, HISTORY:] > 0
    arm = places_of(experiment, len(seen))
    kept = seen.any(axis=1) & (arm >= 0)
    return frame_of(Simulated(**{name: values[kept] for name, values in vars(simulated).items()}), arm[kept])


def places_of(experiment: Experiment, users: int) -> NDArray[np.int64]:
    """The arm of each of so many users, -1 for none."""
    places = {arm.name: place for place, arm in enumerate(experiment.arms)}
    drawn = (assign(experiment, f"user-{i}") for i in range(users))
    return np.array([-1 if found is None else places[found.name] for found in drawn], np.int64)


def frame_of(simulated: Simulated, arm: NDArray[np.int64]) -> UserDays:
    user, day = np.nonzero(simulated.impressions)
    columns = {name: values[user, day] for name, values in vars(simulated).items()}
    columns |= {"active_days": np.ones(len(user)), "click_seen": columns["impressions"], "like_seen": columns["impressions"]}
    entry = (simulated.impressions[:, HISTORY:] > 0).argmax(axis=1)
    return UserDays(arm, entry, DAYS, user, day - HISTORY, columns)


def experiment_of(salt: str, shares: Sequence[float]) -> Experiment:
    arms = [Arm(name=f"arm_{i}", share=share, control=i == 0) for i, share in enumerate(shares)]
    return Experiment(name="simulated", serves="feed", salt=salt, start="2026-11-01", end="2026-11-14", arms=tuple(arms))


def false_alarms(runs: int, users: int, shares: Sequence[float], seed: int) -> Figures:
    """Shares of A/A experiments in which something was found that isn't there, and how wide the last intervals are."""
    counts: dict[str, dict[str, float]] = {}
    ratio = {"at the end": 0, "daily": 0}
    for run in range(runs):
        simulated = simulate(np.random.default_rng([seed, run]), users)
        frame = to_frame(simulated, experiment_of(f"aa-{seed}-{run}", shares))
        check = sample_ratio(frame.entered, frame.arm, shares, DAYS, draws=DRAWS)
        ratio["at the end"] += bool(check.p_value[-1] < CHECK_LEVEL)
        ratio["daily"] += check.failed
        for adjust in (False, True):
            for result in analyse(frame, Plan(shares, 0, DAYS, draws=DRAWS), adjust):
                name = f"{result.metric.name}{', CUPED' if adjust else ''}"
                _count(result.effects[0], counts.setdefault(name, dict.fromkeys(COUNTED, 0.0)))
    metrics = {name: {key: total / runs for key, total in values.items()} for name, values in counts.items()}
    check_shares = {when: count / runs for when, count in ratio.items()}
    return {"runs": runs, "users": users, "shares": list(shares), "metrics": metrics, "sample_ratio": check_shares}


def ratio_alarms(runs: int, users: int, shares: Sequence[float], seed: int) -> Figures:
    """The sample-ratio check alone, with the real assignment: its level is small, so it takes many runs to tell."""
    found = {"at the end": 0, "daily": 0, "naively daily": 0}
    for run in range(runs):
        entry = np.minimum(np.random.default_rng([seed, run]).geometric(0.25, users) - 1, DAYS - 1)
        arm = places_of(experiment_of(f"ratio-{seed}-{run}", shares), users)
        check = sample_ratio(entry[:, None] <= np.arange(DAYS), arm, shares, DAYS, draws=DRAWS // 4)
        found["at the end"] += bool(check.p_value[-1] < CHECK_LEVEL)
        found["daily"] += check.failed
        found["naively daily"] += bool((check.p_value < CHECK_LEVEL).any())
    return {"runs": runs, "users": users, "shares": list(shares), **{when: count / runs for when, count in found.items()}}


def _count(effect: Effect, into: dict[str, float]) -> None:
    sequence = confidence_sequence(effect)
    into["at the end"] += effect.found_fixed
    into["daily"] += effect.found_at is not None
    into["daily, sequence"] += bool((np.abs(effect.statistics) >= sequence).any())
    into["naively daily"] += bool((np.abs(effect.statistics) >= effect.fixed).any())
    into["width"] += effect.bounds[-1] / effect.fixed
    into["width, sequence"] += sequence[-1] / effect.fixed


def confidence_sequence(effect: Effect) -> Floats:
    """Bounds [S], in standard errors, of an asymptotic confidence sequence that is tightest at the last look.

    sqrt((1 + 1/v) log((1 + v) / level^2)) with v the information so far times a constant (Waudby-Smith, Arbour, Sinha,
    Kennedy & Ramdas, Annals of Statistics 2024, theorem 2.2).
    """
    grid = np.linspace(1, 30, 581)
    best = grid[np.argmin((1 + 1 / grid) * np.log((1 + grid) / LEVEL**2))]
    v = best * (effect.of.error[-1] / effect.of.error) ** 2
    return np.asarray(np.sqrt((1 + 1 / v) * np.log((1 + v) / LEVEL**2)))


def found_as_announced(runs: int, users: int, effect: float, seed: int) -> Figures:
    """The power announced from another log of as many people, and how often a planted effect is then found."""
    shares = (0.5, 0.5)
    plan = Plan(shares, 0, DAYS, draws=DRAWS)
    before = to_frame(simulate(np.random.default_rng([seed, 0]), users, False), experiment_of("before", shares))
    power = announce(WATCH_TIME, outcome(before, WATCH_TIME, True), np.full(2, len(before) / 2), plan, 1)
    assert power is not None
    found = {"daily": 0, "at the end": 0}
    days, estimates, covered = [], [], 0
    for run in range(runs):
        rng = np.random.default_rng([seed, 1, run])
        simulated = simulate(rng, users, False)
        arm = np.where((simulated.impressions[:, HISTORY:] > 0).any(axis=1), rng.integers(0, 2, users), -1)
        simulated = Simulated(**{name: values[arm >= 0] for name, values in vars(simulated).items()})
        arm = arm[arm >= 0]
        simulated.watch_time[arm == 1, HISTORY:] *= 1 + effect
        result = analyse(frame_of(simulated, arm), plan, True, [WATCH_TIME])[0].effects[0]
        found["daily"] += result.found_at is not None
        found["at the end"] += result.found_fixed
        days.append(DAYS if result.found_at is None else result.found_at + 1)
        estimates.append(float(result.of.delta[-1] / result.of.level[-1]))
        low, high = result.relative_interval(-1) or (np.nan, np.nan)
        covered += low <= effect <= high
    return {
        "runs": runs,
        "users": users,
        "effect": effect,
        "announced": {"daily": power.daily(effect), "at the end": power.at_end(effect)},
        "found": {when: count / runs for when, count in found.items()},
        "least_effect": power.least_effect(),
        "mean_estimate": float(np.mean(estimates)),
        "covered": covered / runs,
        "mean_day_of_finding": float(np.mean(days)),
    }


def main() -> None:
    settings = _settings()
    started = time.perf_counter()
    figures: Figures = {"settings": vars(settings), "machine": platform.machine(), "cores": os.cpu_count()}
    figures["history_days"], figures["days"], figures["level"], figures["check_level"] = HISTORY, DAYS, LEVEL, CHECK_LEVEL
    if settings.runs:
        figures["false_alarms"] = false_alarms(settings.runs, settings.users, (0.5, 0.5), settings.seed)
    if settings.unequal_runs:
        figures["unequal"] = false_alarms(settings.unequal_runs, settings.users, (0.8, 0.2), settings.seed + 1)
    if settings.ratio_runs:
        figures["sample_ratio"] = ratio_alarms(settings.ratio_runs, 1000, (0.5, 0.5), settings.seed + 3)
    if settings.power_runs:
        figures["power"] = found_as_announced(settings.power_runs, settings.power_users, 0.02, settings.seed + 2)
    figures["seconds"] = time.perf_counter() - started
    _report(figures)


def _settings() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    defaults = {
        "runs": 1500,
        "users": 4000,
        "unequal_runs": 500,
        "ratio_runs": 10_000,
        "power_runs": 500,
        "power_users": 100_000,
        "seed": 1,
    }
    for name, value in defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value, help=f"default: {value}")
    return parser.parse_args()


def _report(figures: Figures) -> None:
    for part in ("false_alarms", "unequal"):
        if part in figures:
            _print_alarms(figures[part])
    if ratio := figures.get("sample_ratio"):
        shares = ", ".join(f"{when} {ratio[when]:.2%}" for when in ("at the end", "daily", "naively daily"))
        print(f"\n{ratio['runs']} sample-ratio checks of {ratio['users']:,} users at level {CHECK_LEVEL:.0%}: {shares}")
    if power := figures.get("power"):
        print(
            f"\n{power['runs']} experiments on {power['users']:,} people with {power['effect']:.0%} more watch time (CUPED)"
        )
        for when in ("daily", "at the end"):
            print(f"  {when:12} announced {power['announced'][when]:.1%}, found {power['found'][when]:.1%}")
        print(f"  found on day {power['mean_day_of_finding']:.1f} on average, estimate {power['mean_estimate']:.2%}")
        print(f"  the last daily interval holds the effect in {power['covered']:.1%}")
    path = Home.from_environment().benchmarks / "experiment_statistics.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=1) + "\n")
    print(f"{figures['seconds']:.0f} s; written to {path}")


def _print_alarms(figures: Figures) -> None:
    shares = " : ".join(f"{share:.0%}" for share in figures["shares"])
    print(f"\n{figures['runs']} A/A experiments of {figures['users']:,} people, {shares}: share of false alarms")
    print(f"{'':34} at the end   daily   sequence   naive |  width   sequence")
    for name, rates in figures["metrics"].items():
        alarms = f"{rates['at the end']:10.1%} {rates['daily']:7.1%} {rates['daily, sequence']:10.1%}"
        widths = f"{rates['width']:6.3f} {rates['width, sequence']:10.3f}"
        print(f"{name:34} {alarms} {rates['naively daily']:7.1%} | {widths}")
    ratio = figures["sample_ratio"]
    print(f"{f'sample ratio, level {CHECK_LEVEL:.0%}':34} {ratio['at the end']:10.1%} {ratio['daily']:7.1%}")


if __name__ == "__main__":
    main()
