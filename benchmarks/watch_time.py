"""What each head makes of watch time, on KuaiRand and on simulated worlds whose truth is known.

    python benchmarks/watch_time.py kuairand --seeds 1 2 3 [--variants ...] [--loss-weight W]
    python benchmarks/watch_time.py simulator --seeds 1 2 3 [--rows 200000]
    python benchmarks/watch_time.py kuairand_reported --seeds 1 2 3 --variants ...
    python benchmarks/watch_time.py report

Every variant is the preset with another head of the objective ``watch_time``, all else equal: the same encoded rows, order
of rows and seeds. A cell (data, variant, seed) that is done is not done again: a run that was stopped goes on.

- kuairand: 25 to 29 April in order, then frozen; judged on 30 April to 2 May, on which choices are made. Watch time of every
  impression, an eighth of which were not watched at all.
- kuairand_reported: 25 April to 2 May, judged on 3 to 5 May: to be looked at once, for what was chosen.
- simulator: all days of a world but the last two; judged on the exploration rows of those. Watch time given a click: as it
  came out, and as it should be (``truth_``: the true expectation of every row, clicked or not).

Judged by MAE in seconds, predicted over actual, order accuracy over all pairs and within slates, the GAUC of long_view in
the order of predicted watch time (with features as of the slate's first row), and ``scaled_mae``, of the predictions times
the constant with which they add up (what calibration's ratio does). Intervals are over users and seeds, differences are
to the preset's head, paired. Two constants, the mean and the median of the training days, stand beside.

Encoded days are kept under $WATCHNEXT_HOME/benchmarks/encoded, cells under .../watch_time; ``report`` prints the tables and
writes watch_time.json of the cells that are done.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from encoded_days import EncodedDays, Floats, Judged, TrainingDay, facts_of, key, log_days, stack, train
from rich.console import Console
from rich.table import Table

from data.config import Config, Objective, load_config, parse_config
from data.features.layout import SIDES, build_layout
from data.features.targets import TargetStats
from data.home import Home
from data.simulator.settings import WorldConfig
from data.simulator.world import World
from training.bootstrap import Resamples, difference, interval, over_seeds
from training.measure import Estimate, Rows, measure
from training.metrics import auc, slate_aucs

TARGET, DURATION = "watch_time", "duration_bucket"
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "value_log": {"transform": "log"},
    "value_seconds": {"transform": "none"},
    "value_seconds_huber": {"transform": "none", "loss": "huber"},
    "weighted_logistic": {"head": "weighted_logistic"},
    "weighted_logistic_paper": {"head": "weighted_logistic", "negatives": "others"},
    "duration_quantile": {"head": "duration_quantile"},
    "discretised": {"head": "discretised"},
    "discretised_restored": {"head": "discretised", "restoration": 1.0},
}
CONSTANTS = ("mean", "median")
UNFIT = {"simulator": ("weighted_logistic_paper",)}  # all that was clicked was watched: its odds have no limit
BASELINE = {"kuairand": "value_log", "kuairand_reported": "value_log", "simulator": "value_log"}
DAYS = {
    "kuairand": (date(2022, 4, 25), date(2022, 4, 30), date(2022, 5, 2)),
    "kuairand_reported": (date(2022, 4, 25), date(2022, 5, 3), date(2022, 5, 5)),
}
METRICS = ("mae", "predicted_over_actual", "order_accuracy", "slate_order_accuracy")
RESAMPLES = 400
WIDTH = 240  # of the tables


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", choices=[*BASELINE, "report"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--loss-weight", type=float, help="of watch_time; default: the preset's")
    parser.add_argument("--rows", type=int, default=200_000, help="of a simulated world")
    parser.add_argument("--preset", type=Path)
    options = parser.parse_args()
    console, folder = Console(width=WIDTH), Home.from_environment().benchmarks
    if options.data != "report":
        run(options, folder, console)
    report(folder, console)


def run(options: argparse.Namespace, folder: Path, console: Console) -> None:
    """Do the cells that are not done yet, seed by seed."""
    data, encoded = options.data, None
    base = base_config(load_config(options.preset or Path(f"training/presets/{data.removesuffix('_reported')}.toml")))
    weight = "" if options.loss_weight is None else f"@{options.loss_weight:g}"
    for seed in options.seeds:
        encoded = None if data == "simulator" else encoded
        for variant in [*CONSTANTS, *(v for v in options.variants if v not in UNFIT.get(data, ()))]:
            name = variant if variant in CONSTANTS else f"{variant}{weight}"
            path = folder / "watch_time" / f"{data}-{name}-{seed}.json"
            if path.exists():
                continue
            encoded = encoded or encode(data, base, seed, options.rows, folder / "encoded", console)
            began = time.perf_counter()
            figures = cell(data, base, variant, seed, options.loss_weight, encoded)
            facts = {"data": data, "variant": name, "seed": seed, "seconds": round(time.perf_counter() - began, 1)}
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({**facts, "figures": figures}))
            values = ", ".join(f"{metric} {f['value']:.4f}" for metric, f in figures.items() if f["value"] is not None)
            console.print(f"{data}, seed {seed}, {name} ({facts['seconds']} s): {values}")


def base_config(preset: Config) -> Config:
    """The preset with a bucketed duration, named as the objective's: what all variants share."""
    features = [feature.model_dump(exclude_none=True) for feature in preset.features]
    if DURATION not in [feature["name"] for feature in features]:
        shape = {"scaling": "buckets", "buckets": 32, "dim": 4}
        features.append({"kind": "number", "name": DURATION, "column": "duration", **shape})
    content = preset.model_dump(mode="json", exclude_none=True) | {"features": features}
    return of_keys(parse_config(content, "the preset"), {"duration": DURATION})


def of_keys(config: Config, keys: Mapping[str, Any]) -> Config:
    """With other keys of the objective ``watch_time``."""
    content = config.model_dump(mode="json", exclude_none=True)
    for objective in content["objectives"]:
        if objective["name"] == TARGET:
            objective.update(keys)
    return parse_config(content, f"watch_time with {dict(keys)}")


def encode(data: str, base: Config, seed: int, rows: int, cache: Path, console: Console) -> EncodedDays:
    """The days of ``data``, encoded once and kept: no head changes what is encoded, only what is fitted of the targets."""
    settings = WorldConfig.of_size(rows)
    facts = settings.model_dump() | {"seed": seed} if data == "simulator" else {}
    folder = cache / f"watch_time-{data}-{key(base, facts)}"
    if not (folder / "facts.json").exists():
        console.print(f"{data}: encoding the days")
        found = world_days(base, World(settings, seed), console) if data == "simulator" else log_days(base, *DAYS[data])
        found.save(folder)
    return EncodedDays.load(folder)


def world_days(config: Config, world: World, console: Console) -> EncodedDays:
    """All days of a world but the last two to train on; of these the exploration rows with the expected watch time."""
    from simulator_days import TEST_DAYS, exploration, prepare

    with tempfile.TemporaryDirectory() as place:
        prepared = prepare(config, world, Path(place), console)
        rows = np.flatnonzero(exploration(world, prepared)[0])
    test = prepared.days[-TEST_DAYS:]
    truth = [
        world.truth(b.strings("user_id"), b.strings("video_id"), b.numbers("timestamp"), b.strings("device"))["watch_time"]
        for b in (day.batch for day in test)
    ]
    facts = facts_of([day.encoded for day in test]) | {"truth": np.concatenate(truth)}
    blocks = {side: stack([day.encoded.blocks[side] for day in test]).take(rows) for side in SIDES}
    judged = Judged(blocks, {name: values[rows] for name, values in facts.items()})
    days = [TrainingDay(day.encoded.blocks, day.encoded.targets, day.sizes) for day in prepared.days[:-TEST_DAYS]]
    return EncodedDays(days, prepared.state.target_stats, prepared.days[-1].sizes, {"rows": judged})


def cell(
    data: str, base: Config, variant: str, seed: int, loss_weight: float | None, encoded: EncodedDays
) -> dict[str, dict[str, Any]]:
    """Train a variant and judge it: by metric its value, and its samples under resamples of users."""
    at = base.objective_names.index(TARGET)
    if variant in CONSTANTS:
        known = np.concatenate([day.targets[:, at] for day in encoded.days])
        value = {"mean": np.nanmean, "median": np.nanmedian}[variant](known)
        row_time = np.full(encoded.judged["rows"].facts["targets"].shape, value, np.float32)
        return judge(data, base, encoded, row_time, row_time, heads_alone=True)
    weight = {} if loss_weight is None else {"loss_weight": loss_weight}
    config = of_keys(base, {**VARIANTS[variant], **weight}).model_copy(update={"seed": seed})
    trainer = train(config, replace(encoded, stats=refitted(config.objectives[at], at, config, encoded)))
    row_time = trainer.predict(encoded.judged["rows"].blocks)[0]
    slate_time = trainer.predict(encoded.judged["slates"].blocks)[0] if "slates" in encoded.judged else row_time
    return judge(data, config, encoded, row_time, slate_time)


def refitted(objective: Objective, at: int, config: Config, encoded: EncodedDays) -> list[TargetStats]:
    """The stats of all objectives, that of ``watch_time`` fitted on the fit days as its head asks."""
    fit = encoded.days[: config.training.fit_days]
    field = next(f for f in build_layout(config).sides["video"].ints if f.feature == DURATION)
    groups = np.concatenate([day.blocks["video"].ints[:, field.offset] for day in fit])
    targets = np.concatenate([day.targets[:, at] for day in fit])
    stats = list(encoded.stats)
    stats[at] = TargetStats.fit(objective, targets, groups, encoded.days[0].sizes[DURATION])
    return stats


def judge(
    data: str, config: Config, encoded: EncodedDays, row_time: Floats, slate_time: Floats, heads_alone: bool = False
) -> dict[str, dict[str, Any]]:
    """The figures of predictions [n, K] at row and at slate time."""
    at, facts = config.objective_names.index(TARGET), encoded.judged["rows"].facts
    predicted, at_slate, targets = row_time[:, at], slate_time[:, at], facts["targets"]
    everyone = Resamples(facts["user"], RESAMPLES, seed=1)

    def figures(target: Floats, prefix: str = "") -> dict[str, dict[str, Any]]:
        known = ~np.isnan(target)
        parts = (target, predicted, at_slate, facts["slate"], everyone.row_user)
        rows = Rows(*(part[known] for part in parts))
        found = measure("regression", rows, everyone)
        scale = np.float32(1 / (found["predicted_over_actual"].value or 1.0))
        scaled = measure("regression", rows.scored_by(rows.predictions * scale, rows.predictions * scale), everyone)
        return {
            **{prefix + name: _figure(found[name]) for name in METRICS},
            f"{prefix}scaled_mae": _figure(scaled["mae"]),
        }

    result = figures(targets[:, at])
    if "truth" in facts:
        result |= figures(facts["truth"], "truth_")
    if "long_view" in config.objective_names:
        k = config.objective_names.index("long_view")
        areas = slate_aucs(targets[:, k], at_slate, facts["slate"])
        user = everyone.row_user[areas.row]
        samples = everyone.ratio(areas.auc * areas.weight, areas.weight, user)
        result["long_view_gauc"] = _figure(Estimate(float(np.average(areas.auc, weights=areas.weight)), samples))
    for name in () if heads_alone else ("click", "long_view", "like"):  # what the head does to the others
        if name in config.objective_names:
            k = config.objective_names.index(name)
            result[f"{name}_auc"] = {"value": auc(targets[:, k], row_time[:, k])}
    return result


def _figure(estimate: Estimate) -> dict[str, Any]:
    samples = None if estimate.samples is None else [round(float(value), 6) for value in estimate.samples]
    return {"value": estimate.value, "samples": samples}


def report(folder: Path, console: Console) -> None:
    """The tables, and watch_time.json, of the cells that are done."""
    cells = [json.loads(path.read_text()) for path in sorted((folder / "watch_time").glob("*.json"))]
    results = {}
    for data in [name for name in BASELINE if any(cell["data"] == name for cell in cells)]:
        mine: dict[str, dict[int, dict[str, Any]]] = {}
        for one in (c for c in cells if c["data"] == data):
            mine.setdefault(one["variant"], {})[one["seed"]] = one["figures"]
        results[data] = {variant: summary(mine, variant, BASELINE[data]) for variant in mine}
        console.print(table(data, results[data]))
    folder.mkdir(parents=True, exist_ok=True)
    seconds = {f"{c['data']}-{c['variant']}-{c['seed']}": c["seconds"] for c in cells}
    content = {"cores": os.cpu_count(), "baseline": BASELINE, "seconds": seconds, "results": results}
    (folder / "watch_time.json").write_text(json.dumps(content, indent=1))


def summary(cells: Mapping[str, Mapping[int, Mapping[str, Any]]], variant: str, baseline: str) -> dict[str, Any]:
    """By metric the mean over seeds with its interval, and the difference to the baseline over the seeds of both."""
    mine, theirs = cells[variant], cells.get(baseline, {})
    both = sorted(set(mine) & set(theirs))
    result: dict[str, Any] = {"seeds": sorted(mine)}
    for metric in next(iter(mine.values())):
        values = [mine[seed][metric]["value"] for seed in sorted(mine)]
        found: dict[str, Any] = {"mean": None if None in values else float(np.mean(values))}
        if found["mean"] is not None and mine[sorted(mine)[0]][metric].get("samples"):
            found["interval"] = interval(_samples(mine, sorted(mine), metric))[0]
            if both and variant != baseline:
                apart = difference(_samples(mine, both, metric), _samples(theirs, both, metric))
                gap = [mine[seed][metric]["value"] - theirs[seed][metric]["value"] for seed in both]
                found["difference"] = {"mean": float(np.mean(gap)), "interval": interval(apart)[0]}
        result[metric] = found
    return result


def _samples(of: Mapping[int, Mapping[str, Any]], seeds: Sequence[int], metric: str) -> Floats:
    return over_seeds(np.array([of[seed][metric]["samples"] for seed in seeds]), 2)


def table(data: str, results: Mapping[str, Any]) -> Table:
    metrics = [name for name in next(iter(results.values())) if name != "seeds"]
    metrics = list(dict.fromkeys([*metrics, *(name for r in results.values() for name in r if name != "seeds")]))
    shown = Table("head", "seeds", *metrics, title=f"{data}: mean, its interval, and the difference to {BASELINE[data]}")
    order = [*CONSTANTS, *(name for variant in VARIANTS for name in results if name.partition("@")[0] == variant)]
    for variant in (name for name in order if name in results):
        found = results[variant]
        shown.add_row(variant, str(len(found["seeds"])), *(_cell(found.get(metric)) for metric in metrics))
    return shown


def _cell(found: Mapping[str, Any] | None) -> str:
    if found is None or found["mean"] is None:
        return ""
    text = f"{found['mean']:.4g}"
    if found.get("interval"):
        text += " [{:.4g}, {:.4g}]".format(*found["interval"])
    if found.get("difference") and found["difference"]["interval"]:
        text += "\n{:+.3g} [{:+.3g}, {:+.3g}]".format(found["difference"]["mean"], *found["difference"]["interval"])
    return text


if __name__ == "__main__":
    main()
