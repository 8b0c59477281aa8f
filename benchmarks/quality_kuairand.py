"""WatchNext against LightGBM on KuaiRand: same rows, same point-in-time features, one run.

    watchnext ingest kuairand FOLDER
    python benchmarks/quality_kuairand.py [--seeds 1 2 3] [--config training/presets/kuairand.toml]

Ours is `watchnext train --since 2022-04-25 --until 2022-05-02` with each seed, evaluated on 3 to 5 May. LightGBM learns
one model per objective and seed from every feature that can be a column (all but the pooled ones): early stopping on
2 May, then fitted again with that many trees on all days up to 2 May, so that it sees the rows that ours sees. It is
tried with and without the ids of user and video as categories; the variant better on 2 May (AUC) is kept.

GAUC's scores, of both, are with features as of the slate's first row. Intervals resample users and seeds together.
Prints a table and writes $WATCHNEXT_HOME/benchmarks/quality_kuairand.json.
"""

import argparse
import json
import os
import platform
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from data.config import Config, load_config
from data.days import day_start
from data.features.layout import SIDES, Block, Layout
from data.features.slates import slate_times
from data.features.state import Encoded, FeatureState
from data.home import Home
from data.log import read_day
from models.registry import Registry
from training.bootstrap import Resamples, difference, interval, over_seeds
from training.days import read_tables
from training.evaluate import score_days
from training.metrics import auc, slate_aucs
from training.run import train

FIRST, STOPPING, LAST = date(2022, 4, 25), date(2022, 5, 2), date(2022, 5, 5)
OBJECTIVES = ("click", "long_view", "like")
RESAMPLES = 1000
LIGHTGBM = {
    "objective": "binary",
    "metric": "auc",
    "learning_rate": 0.05,
    "num_leaves": 31,
    "min_data_in_leaf": 50,
    "feature_fraction": 0.7,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "cat_smooth": 50,
    "verbose": -1,
}
TREES, PATIENCE = 1000, 50

Floats = NDArray[Any]


@dataclass(frozen=True)
class Rows:
    """The test rows: targets [n, K], user and slate [n]; scores are kept as (row time [S, n], slate time [S, n])."""

    targets: Floats
    user: NDArray[np.int64]
    slate: NDArray[np.int64]


@dataclass(frozen=True)
class Day:
    day: date
    encoded: Encoded
    as_of_slate: Encoded


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=Path("training/presets/kuairand.toml"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    config, home, console = load_config(options.config), Home.from_environment(), Console()
    began = time.perf_counter()
    ours, rows = our_scores(config, home, options.seeds, console)
    trained = time.perf_counter()
    console.print(f"ours: {trained - began:.0f} s for {len(options.seeds)} seeds")
    theirs, chosen = lightgbm_scores(config, home, options.seeds, options.threads, console)
    console.print(f"LightGBM: {time.perf_counter() - trained:.0f} s")
    figures = {name: compare(config, name, rows, ours, theirs[name]) for name in OBJECTIVES}
    show(figures, console)
    result = {
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "seeds": options.seeds,
        "rows": len(rows.user),
        "seconds": {"ours": trained - began, "lightgbm": time.perf_counter() - trained},
        "lightgbm": chosen,
        "objectives": figures,
    }
    home.benchmarks.mkdir(parents=True, exist_ok=True)
    (home.benchmarks / "quality_kuairand.json").write_text(json.dumps(result, indent=1))


def our_scores(
    config: Config, home: Home, seeds: Sequence[int], console: Console
) -> tuple[list[tuple[Floats, Floats]], Rows]:
    """Per seed the predictions [n, K] of 3 to 5 May, at row and at slate time."""
    scores = []
    for seed in seeds:
        seeded = config.model_copy(update={"name": f"quality_{config.name}_{seed}", "seed": seed})
        version = train(seeded, home, FIRST, STOPPING, True, console)
        bundle = Registry(home).open(seeded.name, version)
        days = list(score_days(bundle, seeded, home, STOPPING + timedelta(days=1), LAST, console))
        scores.append(tuple(np.concatenate([getattr(d, key) for d in days]) for key in ("predictions", "slate_predictions")))
        shutil.rmtree(home.registry(seeded.name))
    parts = [np.concatenate([getattr(d, key) for d in days]) for key in ("targets", "user", "slate")]
    return scores, Rows(*parts)  # type: ignore[return-value]


def lightgbm_scores(
    config: Config, home: Home, seeds: Sequence[int], threads: int, console: Console
) -> tuple[dict[str, list[tuple[Floats, Floats]]], dict[str, Any]]:
    """Per objective and seed the scores [n] of 3 to 5 May, at row and at slate time; and what was chosen on 2 May."""
    import lightgbm as lgb

    days, layout = encode_days(config, home)
    known = [d for d in days if d.day < STOPPING]
    stop = [d for d in days if d.day == STOPPING]
    test = [d for d in days if d.day > STOPPING]
    scores: dict[str, list[tuple[Floats, Floats]]] = {}
    chosen: dict[str, Any] = {}
    for name in OBJECTIVES:
        k = config.objective_names.index(name)
        best: tuple[float, bool, int] | None = None
        for with_ids in (False, True):
            data, names, _ = dataset(lgb, known, layout, k, with_ids)
            valid = data.create_valid(matrix(stop, layout, with_ids)[0], labels(stop, k))
            settings = {**LIGHTGBM, "num_threads": threads, "seed": seeds[0]}
            model = lgb.train(settings, data, TREES, [valid], callbacks=[lgb.early_stopping(PATIENCE, verbose=False)])
            value = float(model.best_score["valid_0"]["auc"])
            console.print(
                f"LightGBM {name}, {len(names)} columns: AUC {value:.4f} on 2 May after {model.best_iteration} trees"
            )
            if best is None or value > best[0]:
                best = value, with_ids, int(model.best_iteration)
        assert best is not None
        _, with_ids, trees = best
        chosen[name] = {"auc_2_may": best[0], "ids": with_ids, "trees": trees}
        row_time, slate_time = matrix(test, layout, with_ids)[0], matrix(test, layout, with_ids, slate=True)[0]
        scores[name] = []
        for seed in seeds:
            data, _, _ = dataset(lgb, known + stop, layout, k, with_ids)
            model = lgb.train({**LIGHTGBM, "num_threads": threads, "seed": seed}, data, trees)
            scores[name].append((model.predict(row_time), model.predict(slate_time)))
    return scores, chosen


def encode_days(config: Config, home: Home) -> tuple[list[Day], Layout]:
    """All days as training and evaluation encode them."""
    days = [FIRST + timedelta(days=i) for i in range((LAST - FIRST).days + 1)]
    fit = [(day, read_day(home, config, day)) for day in days[: config.training.fit_days]]
    state = FeatureState.fit(config, read_tables(home, config), fit)
    encoded = []
    for day in days:
        batch = read_day(home, config, day)
        rows = state.encode(batch, day)
        slate = state.encode(batch, day, slate_times(batch, rows.slate)) if day > STOPPING else rows
        encoded.append(Day(day, rows, slate))
        state.advance(batch, day_start(day + timedelta(days=1), config.timezone))
    return encoded, state.layout


def dataset(lgb: Any, days: Sequence[Day], layout: Layout, k: int, with_ids: bool) -> tuple[Any, list[str], list[int]]:
    values, names, categories = matrix(days, layout, with_ids)
    return lgb.Dataset(values, labels(days, k), categorical_feature=categories, free_raw_data=False), names, categories


def labels(days: Sequence[Day], k: int) -> Floats:
    return np.concatenate([d.encoded.targets[:, k] for d in days])


def matrix(days: Sequence[Day], layout: Layout, with_ids: bool, slate: bool = False) -> tuple[Floats, list[str], list[int]]:
    """Columns [n, m] of the serving-time sides, their names, and which of them are categories."""
    parts = [columns((d.as_of_slate if slate else d.encoded).blocks, layout, with_ids) for d in days]
    return np.concatenate([values for values, _, _ in parts]), parts[0][1], parts[0][2]


def columns(blocks: Any, layout: Layout, with_ids: bool) -> tuple[Floats, list[str], list[int]]:
    values: list[Floats] = []
    names: list[str] = []
    categories: list[int] = []
    for side in SIDES:
        if side == "training_only":
            continue
        block: Block = blocks[side]
        for field in layout.sides[side].ints:
            if not field.pooled and (with_ids or field.table not in ("user_id", "video_id")):
                categories.append(len(names))
                names.append(field.feature)
                values.append(block.ints[:, field.offset].astype(np.float64))
        for floats in layout.sides[side].floats:
            for i, name in enumerate(floats.names):
                names.append(name)
                values.append(block.floats[:, floats.offset + i].astype(np.float64))
    return np.stack(values, axis=1), names, categories


def compare(
    config: Config, name: str, rows: Rows, ours: list[tuple[Floats, Floats]], theirs: list[tuple[Floats, Floats]]
) -> dict[str, Any]:
    """Mean over seeds of AUC and GAUC, and the difference with its interval over users and seeds."""
    k = config.objective_names.index(name)
    known = ~np.isnan(rows.targets[:, k])
    target, slate = rows.targets[known, k], rows.slate[known]
    resamples = Resamples(rows.user[known], RESAMPLES, seed=1)
    user = resamples.row_user
    result: dict[str, Any] = {"rows": int(known.sum()), "positives": int((target > 0).sum())}
    sides = {"ours": [(a[known, k], b[known, k]) for a, b in ours], "lightgbm": [(a[known], b[known]) for a, b in theirs]}
    samples: dict[tuple[str, str], Floats] = {}
    for who, scores in sides.items():
        per_slate = [slate_aucs(target, at_slate, slate) for _, at_slate in scores]
        values = {
            "auc": [auc(target, at_row) for at_row, _ in scores],
            "gauc": [float(np.average(s.auc, weights=s.weight)) for s in per_slate],
        }
        samples[who, "auc"] = np.stack([resamples.auc(target, at_row, user) for at_row, _ in scores])
        samples[who, "gauc"] = np.stack([resamples.ratio(s.auc * s.weight, s.weight, user[s.row]) for s in per_slate])
        result[who] = {metric: {"mean": float(np.mean(v)), "by_seed": v} for metric, v in values.items()}
    for metric in ("auc", "gauc"):
        drawn = difference(over_seeds(samples["ours", metric], 2), over_seeds(samples["lightgbm", metric], 3))
        mean = result["ours"][metric]["mean"] - result["lightgbm"][metric]["mean"]
        result[f"{metric}_difference"] = {"mean": mean, "interval": interval(drawn)[0]}
    return result


def show(figures: dict[str, Any], console: Console) -> None:
    table = Table("objective", "AUC ours", "LightGBM", "difference", "GAUC ours", "LightGBM", "difference", "positives")
    for name, f in figures.items():
        cells = []
        for metric in ("auc", "gauc"):
            gap = f[f"{metric}_difference"]
            low, high = gap["interval"]
            cells += [f"{f[who][metric]['mean']:.4f}" for who in ("ours", "lightgbm")]
            cells.append(f"{gap['mean']:+.4f} [{low:+.4f}, {high:+.4f}]")
        table.add_row(name, *cells, f"{f['positives']:,}")
    console.print(table)


if __name__ == "__main__":
    main()
