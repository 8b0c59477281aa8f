"""Five ways to take up selection bias, on simulated worlds whose truth is known and on KuaiRand.

    python benchmarks/selection_bias.py simulator --seeds 1 2 3 4 5 [--rows 1000000] [--methods ...] [--preset FILE]
    python benchmarks/selection_bias.py kuairand --seeds 1 2 3 4 5
    python benchmarks/selection_bias.py report

Every method is trained on the very same encoded rows, in the same order, from the same seed; the shallow tower is what
the others are compared with. A cell (data, seed, method) that is done is not done again: a run that was stopped goes on.

- simulator: the preset on all days of a world but the last two. NDCG against the true preference over the candidates of
  sampled requests that were *not* shown, ranked by p(click) E[watch time | click] / duration; GAUC of click on exploration
  rows with the true probabilities in the place of clicks. World, network and order of rows share the seed.
- kuairand: 25 to 29 April in order, then frozen; judged on 30 April to 2 May. What the methods are given is a proxy: the
  ordinal of an impression in its session, and the tab (which is a context feature too). There is no truth: AUC, and GAUC
  with features as of the slate's first row, of what was logged, so a method that learns the logging policy's habits looks
  good. Intervals are over seeds, the rows being the same.

Encoded days are kept under $WATCHNEXT_HOME/benchmarks/encoded (0.7 GB a world), cells under .../selection_bias; ``report``
writes selection_bias.json and selection_bias_<data>.svg there from the cells that are done.
"""

import argparse
import json
import os
import time
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from encoded_days import EncodedDays, Floats, key, log_days, train
from rich.console import Console
from scipy.stats import t as student
from simulator_days import unseen_ndcg, world_days
from simulator_gap import expected_gauc

from data.config import CategoryFeature, Config, load_config
from data.home import Home
from data.simulator.settings import WorldConfig
from models.step import Trainer
from training.charts import ForestRow, forest
from training.metrics import auc, gauc

BASELINE = "shallow_tower"
METHODS = (BASELINE, "none", "input", "adversarial", "pal")
FIRST, LAST, JUDGED_FROM = date(2022, 4, 25), date(2022, 5, 2), date(2022, 4, 30)
KUAIRAND_OBJECTIVES = ("click", "long_view", "like")
STYLE = (
    "<style>text{font:11px sans-serif}.heading{font-weight:bold}.grid{stroke:#ddd}.diagonal{stroke:#888;stroke-dasharray:3}"
    ".whisker{stroke:#2563eb;stroke-width:2}.dot{fill:#2563eb}</style>"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", choices=["simulator", "kuairand", "report"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--rows", type=int, default=WorldConfig().rows)
    parser.add_argument("--preset", type=Path)
    options = parser.parse_args()
    console, folder = Console(), Home.from_environment().benchmarks
    if options.data != "report":
        config = load_config(options.preset or Path(f"training/presets/{options.data}.toml"))
        run(options.data, config, options, folder, console)
    report(folder, console)


def run(data: str, config: Config, options: argparse.Namespace, folder: Path, console: Console) -> None:
    """Do the cells that are not done yet, seed by seed."""
    settings = WorldConfig() if options.rows == WorldConfig().rows else WorldConfig.of_size(options.rows)
    shared = kuairand_days(config, folder / "encoded", console) if data == "kuairand" else None
    for seed in options.seeds:
        encoded = shared
        for method in options.methods:
            path = folder / "selection_bias" / f"{data}-{method}-{seed}.json"
            if path.exists():
                continue
            encoded = encoded or world_days(config, settings, seed, folder / "encoded", console)
            began = time.perf_counter()
            trainer = train(of_method(proxies(config) if data == "kuairand" else config, method, seed), encoded)
            figures = (judge_kuairand if data == "kuairand" else judge_world)(trainer, encoded)
            seconds = round(time.perf_counter() - began)
            facts = {"data": data, "method": method, "seed": seed, "rows": options.rows, "seconds": seconds}
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({**facts, "figures": figures}, indent=1))
            values = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
            console.print(f"{data}, seed {seed}, {method}: {values} ({seconds} s)")


def of_method(config: Config, method: str, seed: int) -> Config:
    return config.model_copy(update={"seed": seed, "model": config.model.model_copy(update={"bias": method})})


def judge_world(trainer: Trainer, encoded: EncodedDays) -> dict[str, float]:
    names, shown, unseen = trainer.network.config.objective_names, encoded.judged["shown"], encoded.judged["unseen"]
    click = trainer.predict(shown.blocks)[0][:, names.index("click")]
    predicted = trainer.predict(unseen.blocks)[0]
    score = predicted[:, names.index("click")] * predicted[:, names.index("watch_time")] / unseen.facts["duration"]
    return {
        "ndcg": unseen_ndcg(score, unseen),
        "gauc": expected_gauc(click, shown.facts["truth"], shown.facts["request"])["gauc"],
    }


def proxies(config: Config) -> Config:
    """With the tab beside the session's ordinal among what is known in training only."""
    tab = CategoryFeature(kind="category", name="shown_in", column="tab", table="shown_in", dim=4, side="training_only")
    return config.model_copy(update={"features": (*config.features, tab)})


def kuairand_days(config: Config, cache: Path, console: Console) -> EncodedDays:
    """25 to 29 April to train on; 30 April to 2 May at row and at slate time, encoded once and kept."""
    config = proxies(config)
    folder = cache / f"kuairand-{key(config, {})}"
    if not (folder / "facts.json").exists():
        console.print("KuaiRand: encoding the days")
        log_days(config, FIRST, JUDGED_FROM, LAST).save(folder)
    return EncodedDays.load(folder)


def judge_kuairand(trainer: Trainer, encoded: EncodedDays) -> dict[str, float]:
    names, facts = trainer.network.config.objective_names, encoded.judged["rows"].facts
    at_row, at_slate = (trainer.predict(encoded.judged[name].blocks)[0] for name in ("rows", "slates"))
    figures: dict[str, float] = {}
    for name in KUAIRAND_OBJECTIVES:
        k = names.index(name)
        known = ~np.isnan(facts["targets"][:, k])
        target = facts["targets"][known, k]
        figures[f"auc_{name}"] = float(auc(target, at_row[known, k]) or np.nan)
        figures[f"gauc_{name}"] = float(gauc(target, at_slate[known, k], facts["slate"][known]) or np.nan)
    return figures


def report(folder: Path, console: Console) -> None:
    """The tables, selection_bias.json and a picture of each data of the cells that are done."""
    cells = [json.loads(path.read_text()) for path in sorted((folder / "selection_bias").glob("*.json"))]
    folder.mkdir(parents=True, exist_ok=True)
    results = {}
    for data in dict.fromkeys(cell["data"] for cell in cells):
        of = {(c["method"], c["seed"]): c["figures"] for c in cells if c["data"] == data}
        results[data] = {metric: compare(of, metric) for metric in next(iter(of.values()))}
        console.print(table(data, results[data]), soft_wrap=True, markup=False)
        if (drawing := picture(data, results[data])) is not None:
            (folder / f"selection_bias_{data}.svg").write_text(drawing)
    content = {"cores": os.cpu_count(), "baseline": BASELINE, "results": results, "cells": cells}
    (folder / "selection_bias.json").write_text(json.dumps(content, indent=1))


def picture(data: str, results: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Each method's differences to the baseline, metric by metric; None where there is none yet."""
    rows: list[ForestRow] = []
    for metric, methods in results.items():
        rows.append(ForestRow(metric, heading=True))
        found = [(m, f["difference"], f["interval"]) for m, f in methods.items() if m != BASELINE]
        rows += [ForestRow(method, value, interval, f"{value:+.4f}") for method, value, interval in found]
    title = f"{data}: differences to the shallow tower, paired by seed, with 95% intervals"
    figure = forest(title, rows, 0.0)
    if figure is None:
        return None
    head, end, rest = str(figure).partition(">")
    drawing = head if "xmlns=" in head else head.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)
    return drawing + end + STYLE + rest + "\n"


def compare(figures: Mapping[tuple[str, int], Mapping[str, float]], metric: str) -> dict[str, dict[str, Any]]:
    """Per method the mean, and the mean difference to the baseline over the seeds that both have, with its t interval."""
    found: dict[str, dict[str, Any]] = {}
    for method in METHODS:
        seeds = sorted(seed for name, seed in figures if name == method and (BASELINE, seed) in figures)
        if not seeds:
            continue
        values = np.array([figures[method, seed][metric] for seed in seeds])
        differences = values - [figures[BASELINE, seed][metric] for seed in seeds]
        found[method] = {"seeds": seeds, "mean": float(values.mean()), "difference": float(differences.mean())}
        found[method]["by_seed"] = differences.tolist()
        found[method]["interval"] = None if method == BASELINE else t_interval(differences)
    return found


def t_interval(differences: Floats) -> Sequence[float] | None:
    if len(differences) < 2:
        return None
    half = float(student.ppf(0.975, len(differences) - 1) * differences.std(ddof=1) / np.sqrt(len(differences)))
    return [float(differences.mean()) - half, float(differences.mean()) + half]


def table(data: str, results: Mapping[str, Mapping[str, Any]]) -> str:
    """A Markdown table: the baseline's mean, then each method's difference to it with its interval."""
    others = [method for method in METHODS if method != BASELINE]
    lines = [" | ".join([f"| {data}", "seeds", BASELINE, *others, ""]), "|" + "--|" * (len(others) + 3)]
    for metric, methods in results.items():
        base = methods.get(BASELINE)
        cells = [metric, str(len(base["seeds"])), f"{base['mean']:.4f}"] if base else [metric, "", ""]
        for method in others:
            f = methods.get(method, {})
            low, high = f.get("interval") or (np.nan, np.nan)
            cells.append(f"{f['difference']:+.4f} [{low:+.4f}, {high:+.4f}]" if f else "")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
