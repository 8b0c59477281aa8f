"""What WatchNext learns of a simulated world whose truth is known, and what its shallow tower is worth.

    python benchmarks/simulator_ranker.py --seeds 1 2 3 4 5 [--rows 1000000] [--gap-seed 1] [--without-bias]

For every seed a world, its log through ingest, and the simulator preset trained twice on all days but the last two, with
the shallow tower and without (position then enters nowhere); world, network and order of rows share the seed. Then

- gap: GAUC of click on the held-out exploration rows of the last two days, positions equal, with the true probabilities in
  the place of clicks (simulator_gap.py, "expected"), beside that of the truth and of the additive model; how much of the
  gap between these two the network closes. The additive model is fitted for --gap-seed alone: it takes minutes.
- tower: NDCG against the true preference over the candidates of sampled requests that were *not* shown, ranked by
  p(click) E[watch time | click] / duration; the difference with - without is paired by seed, with a t interval.

With --without-bias the worlds have no position bias: the tower should then cost nothing.
Writes $WATCHNEXT_HOME/benchmarks/simulator_ranker[_without_bias].json.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from encoded_days import train
from rich.console import Console
from scipy.stats import t as student
from simulator_days import TEST_DAYS, unseen_ndcg, world_days
from simulator_gap import additive, encode, expected_gauc

from data.config import Config, load_config
from data.home import Home
from data.simulator.settings import WorldConfig, world_config
from data.simulator.sittings import Rows
from data.simulator.world import World


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    parser.add_argument("--gap-seed", type=int)
    parser.add_argument("--without-bias", action="store_true")
    parser.add_argument("--config", type=Path, default=Path("training/presets/simulator.toml"))
    options = parser.parse_args()
    console, results = Console(), []
    base = WorldConfig() if options.rows == WorldConfig().rows else WorldConfig.of_size(options.rows)
    settings = world_config({**base.model_dump(), **({"position_bias": 0.0} if options.without_bias else {})})
    name = "simulator_ranker_without_bias" if options.without_bias else "simulator_ranker"
    for seed in options.seeds:
        results.append(one_world(load_config(options.config), settings, seed, seed == options.gap_seed, console))
        folder = Home.from_environment().benchmarks
        folder.mkdir(parents=True, exist_ok=True)
        content = {"settings": settings.model_dump(), "cores": os.cpu_count(), "worlds": results, "tower": paired(results)}
        (folder / f"{name}.json").write_text(json.dumps(content, indent=1))
    console.print(paired(results))


def one_world(config: Config, settings: WorldConfig, seed: int, with_additive: bool, console: Console) -> dict[str, Any]:
    began = time.perf_counter()
    config = config.model_copy(update={"seed": seed})
    encoded = world_days(config, settings, seed, Home.from_environment().benchmarks / "encoded", console)
    console.print(f"seed {seed}: world, ingest and features in {time.perf_counter() - began:.0f} s")
    shown, unseen = encoded.judged["shown"], encoded.judged["unseen"]
    truth, request = shown.facts["truth"], shown.facts["request"]
    result: dict[str, Any] = {"seed": seed, "truth": expected_gauc(truth, truth, request)}
    click, watch_time = (config.objective_names.index(name) for name in ("click", "watch_time"))
    for variant, bias in (("with", "shallow_tower"), ("without", "none")):
        began = time.perf_counter()
        trainer = train(config.model_copy(update={"model": config.model.model_copy(update={"bias": bias})}), encoded)
        seconds = time.perf_counter() - began
        predicted = trainer.predict(unseen.blocks)[0]
        score = predicted[:, click] * predicted[:, watch_time] / unseen.facts["duration"]
        result[variant] = {
            **expected_gauc(trainer.predict(shown.blocks)[0][:, click], truth, request),
            "ndcg": unseen_ndcg(score, unseen),
            "seconds": seconds,
        }
        console.print(f"seed {seed}, {variant} tower: {result[variant]}, truth {result['truth']['gauc']:.4f}")
    if with_additive:
        result["additive"] = fit_additive(World(settings, seed), console)
        gap = result["truth"]["gauc"] - result["additive"]["gauc"]
        result["additive_share"] = (result["additive"]["gauc"] - 0.5) / (result["truth"]["gauc"] - 0.5)
        result["closed"] = (result["with"]["gauc"] - result["additive"]["gauc"]) / gap
        share, closed = result["additive_share"], result["closed"]
        console.print(f"additive {result['additive']['gauc']:.4f} ({share:.1%} of the way); closed {closed:.1%}")
    return result


def fit_additive(world: World, console: Console) -> dict[str, float]:
    """The additive model of simulator_gap.py on the same rows, in the world's own order."""
    settings = world.settings
    days = [Rows.concatenate(list(world.day(day))) for day in range(settings.days)]
    rows = Rows.concatenate(days)
    day = np.repeat(np.arange(settings.days), [len(part) for part in days])
    test = (day >= settings.days - TEST_DAYS) & rows.is_exploration
    tune = (day == settings.days - TEST_DAYS - 1) & rows.is_exploration
    request = day * (int(rows.request.max()) + 1) + rows.request
    truth = world.truth(rows.user[test], rows.video[test], rows.timestamp[test], rows.device[test])["click"]
    scores, strength = additive(encode(world, rows, day), day, settings.days, tune, test, request, rows.click)
    console.print(f"additive model: strength {strength}")
    return expected_gauc(scores, truth, request[test])


def paired(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean over seeds of the differences with - without, and their t interval."""
    figures: dict[str, Any] = {"seeds": len(results)}
    for metric in ("ndcg", "gauc"):
        differences = np.array([result["with"][metric] - result["without"][metric] for result in results])
        half = None
        if len(differences) > 1:
            half = float(student.ppf(0.975, len(differences) - 1) * differences.std(ddof=1) / np.sqrt(len(differences)))
        mean = float(differences.mean())
        figures[metric] = {
            "difference": mean,
            "interval": None if half is None else [mean - half, mean + half],
            "by_seed": differences.tolist(),
        }
    return figures


if __name__ == "__main__":
    main()
