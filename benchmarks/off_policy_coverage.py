"""Whether the intervals of off-policy estimates hold the truth as often as they say.

    python benchmarks/off_policy_coverage.py [--logs 200] [--only PART-OF-A-WORLD'S-NAME]

A world with known probabilities: users of lasting taste, some of whom ask far more often than others, leave as they like
and tire of a topic shown twice in a row (so a slot's outcome depends on the slots above); clicks, watch time and likes,
of which clickbait raises the first and lowers the rest; predictions that are wrong in level, slope and detail. Every log
is of new users. The truth of a setting is its value served to forty times as many users.

Prints a table and writes it to ``$WATCHNEXT_HOME/benchmarks/off_policy_coverage.json``.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent.parent))

from data.home import Home
from data.simulator.exploration import fill_slots
from models.ranking import Ranking
from training.off_policy import Estimate, Judge, target_of
from training.off_policy_intervals import LeftOut
from training.off_policy_weights import Given, Slates, Target

Floats = NDArray[np.float64]
OBJECTIVES = ("click", "watch_time", "like")
GIVEN = (None, 0, 0)
MEANS = np.array([0.3, 6.0, 0.06])
LOGGED = (1.0, 0.5, 0.0)
SETTINGS: Mapping[str, tuple[float, float, float]] = {
    "as logged": LOGGED,
    "nearest: a touch of like": (1.0, 0.55, 0.05),
    "near: some weight on like": (1.0, 0.7, 0.3),
    "equal weights": (1.0, 1.0, 1.0),
    "watch time alone": (0.0, 1.0, 0.0),
    "like alone": (0.0, 0.0, 1.0),
    "like, against clicks": (-1.0, 0.0, 1.5),
    "the reverse of the logged": (-1.0, -0.5, 0.0),
}
TOPICS = 4


@dataclass(frozen=True)
class World:
    """How large a log is, how much of it explored, and how a slot depends on those above."""

    users: int = 1_500
    candidates: int = 8
    slots: int = 3
    explore: float = 0.5
    repeats: float = 0.8  # what the same topic just above takes off the logit of a click; 0: nothing
    leaves: float = 0.4  # chance to leave after a click, beside that of a tenth; 0: not for that


@dataclass(frozen=True)
class Requests:
    """Requests [R] with candidates [R, C]: logits if looked at, and what was predicted."""

    user: NDArray[np.int64]
    click: Floats
    like: Floats  # probability given a click
    watch: Floats  # mean seconds given a click
    topic: NDArray[np.int64]
    there: NDArray[np.bool_]
    predictions: NDArray[np.float32]  # [R, C, K]; NaN where there is none


def draw_requests(world: World, users: int, rng: np.random.Generator) -> Requests:
    """Users with tastes of their own, their requests, and candidates for each."""
    taste, bias = rng.standard_normal((users, TOPICS)), rng.standard_normal((users, 2))
    count = 1 + rng.poisson(np.exp(0.6 + 0.8 * rng.standard_normal(users) + 0.4 * bias[:, 0]))
    user = np.repeat(np.arange(users), count)
    shape = len(user), world.candidates
    topic, bait, quality = rng.integers(0, TOPICS, shape), rng.random(shape) < 0.3, rng.standard_normal(shape)
    liked = 0.8 * taste[user[:, None], topic] + 0.5 * quality
    click = -0.9 + 0.5 * bias[user, :1] + liked + 0.9 * bait
    pleased = 0.6 * bias[user, 1:] + 0.7 * liked - 1.4 * bait
    like, watch = _sigmoid(-1.6 + pleased), 30.0 * _sigmoid(-0.4 + pleased)
    there = np.arange(world.candidates) < rng.integers(world.candidates - 3, world.candidates + 1, shape[0])[:, None]
    error = 0.5 * rng.standard_normal((3, *shape))
    told = np.stack(
        [
            _sigmoid(0.3 + 0.7 * click + error[0]),
            30.0 * _sigmoid(-0.2 + 0.7 * pleased + error[1]),
            _sigmoid(-1.4 + 0.6 * pleased + error[2]),
        ],
        axis=2,
    ).astype(np.float32)
    return Requests(user, click, like, watch, topic, there, np.where(there[:, :, None], told, np.float32(np.nan)))


def unshown(world: World, requests: Requests) -> Slates:
    """Requests that are not answered yet."""
    shape = len(requests.user), world.slots
    return Slates(
        user=requests.user,
        predictions=requests.predictions,
        keys=np.where(requests.there, 0.0, -np.inf),
        share=np.full(shape[0], world.explore),
        shown=np.zeros(shape, np.int64),
        propensity=np.ones(shape),
        outcomes=np.zeros((*shape, 3)),
    )


def serve(world: World, requests: Requests, target: Target, rng: np.random.Generator) -> tuple[Slates, Floats]:
    """The slates with what became of them, and what was to be expected of each slot [R, S, K]."""
    places = np.tile(np.arange(world.candidates), (len(requests.user), 1))
    shown = fill_slots(places, target.keys, target.share, world.slots, rng)
    rows = np.arange(len(places))
    outcomes, means = np.zeros((len(rows), world.slots, 3)), np.zeros((len(rows), world.slots, 3))
    looks, looking = np.ones(len(rows), bool), np.ones(len(rows))
    above = np.full(len(rows), -1)
    for slot in range(world.slots):
        place = shown.video[:, slot]
        topic = requests.topic[rows, place]
        chance = _sigmoid(requests.click[rows, place] - world.repeats * (topic == above))
        like, watch = requests.like[rows, place], requests.watch[rows, place]
        means[:, slot] = (looking * chance)[:, None] * np.stack([np.ones(len(rows)), watch, like], axis=1)
        clicked = looks & (rng.random(len(rows)) < chance)
        liked = rng.random(len(rows)) < like
        outcomes[:, slot] = clicked[:, None] * np.stack(
            [np.ones(len(rows)), watch * rng.gamma(2.0, 0.5, len(rows)), liked], 1
        )
        looks = looks & (rng.random(len(rows)) < 0.9 * (1 - world.leaves * clicked))
        looking = looking * 0.9 * (1 - world.leaves * chance)
        above = topic
    slates = unshown(world, requests)
    return replace(
        slates, keys=target.keys, share=target.share, shown=shown.video, propensity=shown.propensity, outcomes=outcomes
    ), means


def ranking(weights: Sequence[float]) -> Ranking:
    return Ranking("weighted_product", OBJECTIVES, GIVEN, np.array(weights), MEANS)


def truth(world: World, weights: Sequence[float], share: float | None, users: int, seed: int) -> Floats:
    """The value of a slate served by these weights [K]."""
    rng, total, count = np.random.default_rng([seed, 1]), np.zeros(3), 0
    while users > 0:
        requests = draw_requests(world, min(users, 20_000), rng)
        _, means = serve(world, requests, target_of(unshown(world, requests), ranking(weights), share), rng)
        total, count, users = total + means.sum(axis=(0, 1)), count + len(means), users - 20_000
    return total / count


def run(
    world: World, logs: int, seed: int, given: Given = "above", share: float | None = None, factor: int = 40
) -> dict[str, Any]:
    """Coverage by setting, method and objective over logs."""
    truths = {name: truth(world, weights, share, factor * world.users, seed) for name, weights in SETTINGS.items()}
    kept: dict[str, list[Estimate]] = {name: [] for name in SETTINGS}
    for log in range(logs):
        rng = np.random.default_rng([seed, 2, log])
        requests = draw_requests(world, world.users, rng)
        slates, _ = serve(world, requests, target_of(unshown(world, requests), ranking(LOGGED)), rng)
        judge = Judge.of(slates, GIVEN, given)
        for name, weights in SETTINGS.items():
            kept[name].append(judge.estimate(target_of(slates, ranking(weights), share)))
    return {name: summary(estimates, truths[name]) for name, estimates in kept.items()}


def summary(estimates: Sequence[Estimate], true: Floats) -> dict[str, Any]:
    evidence = [estimate.evidence for estimate in estimates]
    return {
        "truth": true.tolist(),
        "estimated": float(np.mean([estimate.dr is not None for estimate in estimates])),
        "effective": float(np.mean([e.effective.min() for e in evidence])),
        "effective_users": float(np.mean([e.effective_users.min() for e in evidence])),
        "clipped": float(np.mean([e.clipped.max() for e in evidence])),
        "cut": float(np.mean([e.cut.max() for e in evidence])),
        "dr": _coverage([estimate.dr for estimate in estimates if estimate.dr is not None], true),
        "snips": _coverage([estimate.snips for estimate in estimates if estimate.snips is not None], true),
    }


def _coverage(found: Sequence[LeftOut], true: Floats) -> dict[str, Any] | None:
    """How often the intervals hold the truth, and how estimates lie about it [K] each."""
    if len(found) < 2:
        return None
    bounds, values = np.array([value.interval for value in found]), np.array([value.value for value in found])
    return {
        "covered": ((bounds[:, 0] <= true) & (true <= bounds[:, 1])).mean(axis=0).tolist(),
        "below": (bounds[:, 1] < true).mean(axis=0).tolist(),
        "bias_in_errors": ((values.mean(axis=0) - true) / values.std(axis=0)).tolist(),
        "half_width": ((bounds[:, 1] - bounds[:, 0]).mean(axis=0) / 2 / true).tolist(),
        "error_ratio": (np.mean([v.error for v in found], axis=0) / values.std(axis=0)).tolist(),
    }


WORLDS: Mapping[str, tuple[World, Given, float | None]] = {
    "a slot depends on those above": (World(users=4_000), "above", None),
    "the same, a small log": (World(users=500), "above", None),
    "the same, with little exploration": (World(users=4_000, slots=2, explore=0.1), "above", None),
    "the same, judged without exploration": (World(users=4_000), "above", 0.0),
    "a slot depends on its place alone": (World(users=4_000, candidates=10, slots=6, repeats=0, leaves=0), "slot", None),
    "that assumed where it is wrong": (World(users=4_000), "slot", None),
}


def main() -> None:
    wanted, started = _arguments(), time.perf_counter()
    figures: dict[str, Any] = {
        "logs": wanted.logs,
        "seed": wanted.seed,
        "cores": os.cpu_count(),
        "machine": platform.machine(),
    }
    figures["worlds"] = {}
    for name, (world, given, share) in WORLDS.items():
        if wanted.only and wanted.only not in name:
            continue
        found = run(world, wanted.logs, wanted.seed, given, share)
        figures["worlds"][name] = {"world": asdict(world), "given": given, "share": share, "settings": found}
        _print(name, world, found)
    figures["seconds"] = round(time.perf_counter() - started, 1)
    path = Home.from_environment().benchmarks / "off_policy_coverage.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=1) + "\n")
    print(f"{figures['seconds']:.0f} s; written to {path}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--logs", type=int, default=200, help="default: 200")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    parser.add_argument("--only", default="", help="a part of a world's name")
    return parser.parse_args()


def _print(name: str, world: World, found: Mapping[str, Any]) -> None:
    print(f"\n{name}: {world.users:,} users, {world.candidates} candidates, {world.slots} slots, e = {world.explore}")
    print(f"{'':28} {'estimated':>9} {'effective':>9} {'cut':>6} | DR covers {', '.join(OBJECTIVES)}; half width | SNIPS")
    for setting, one in found.items():
        line = f"{setting:28} {one['estimated']:9.0%} {one['effective']:9,.0f} {one['cut']:6.1%} |"
        for method in ("dr", "snips"):
            covers = one[method]
            line += "  none |" if covers is None else _cells(covers)
        print(line, flush=True)


def _cells(covers: Mapping[str, Any]) -> str:
    shares, widths = (" ".join(f"{value:6.1%}" for value in covers[key]) for key in ("covered", "half_width"))
    return f" {shares}; {widths} |"


def _sigmoid(logit: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-logit)))


if __name__ == "__main__":
    main()
