"""How often a mixture's gates polarize, and what helps: seeds x conditions x measures on one small simulated log.

    python benchmarks/polarization.py run [--seeds 1 .. 20] [--conditions ...] [--measures ...]
    python benchmarks/polarization.py report

Polarized (DESIGN.md): an expert under 0.01 of the weight for every objective, or a gate with fewer than 1.5 effective
experts, by the mean gate weights on the rows of two days that were not trained on. World and rows are the same in every
cell; the seed is that of the network and of the order of rows. Without expert dropout, unless a measure says so.

- conditions: ``calm``, the preset's learning rate; ``hot``, a rate at which training is rough; ``conflict``, the same and
  watch_time's squared error weighing 20 times as much as the rest.
- measures: nothing, expert dropout, normalised experts, a load-balancing loss, an entropy loss.

A cell (condition, measure, seed) that is done is not done again: a run that was stopped goes on. Encoded days are kept
under $WATCHNEXT_HOME/benchmarks/encoded, cells under .../polarization; ``report`` prints the table and writes
polarization.json and .svg from the cells that are done.
"""

import argparse
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from encoded_days import EncodedDays, stack
from rich.console import Console
from scipy.stats import binomtest
from simulator_days import world_days

from data.config import Config, load_config, parse_config
from data.features.layout import SIDES, build_layout
from data.home import Home
from data.simulator.settings import WorldConfig
from models.network import Network
from models.noise import derive
from models.step import Trainer
from training.charts import ForestRow, forest
from training.gates import gate_figures, places_of, row_figures
from training.metrics import auc

CONDITIONS: dict[str, dict[str, Any]] = {
    "calm": {"rate": 1e-3, "heavy": 1.0},
    "hot": {"rate": 2e-2, "heavy": 1.0},
    "conflict": {"rate": 2e-2, "heavy": 20.0},
}
MEASURES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "dropout 0.1": {"expert_dropout": 0.1},
    "dropout 0.3": {"expert_dropout": 0.3},
    "normalised experts": {"expert_norm": True},
    "load loss 0.1": {"load_balance": 0.1},
    "entropy loss 0.01": {"gate_entropy": 0.01},
    "entropy loss 0.1": {"gate_entropy": 0.1},
}
TRUNK = {"kind": "mmoe", "experts": 8, "layers": [32, 16], "expert_dropout": 0.0}
PASSES = 3
WORLD_SEED = 1
STYLE = (
    "<style>text{font:11px sans-serif}.heading{font-weight:bold}.grid{stroke:#ddd}.diagonal{stroke:#888;stroke-dasharray:3}"
    ".whisker{stroke:#2563eb;stroke-width:2}.dot{fill:#2563eb}</style>"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("run", "report"))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(1, 21)))
    parser.add_argument("--conditions", nargs="+", choices=CONDITIONS, default=list(CONDITIONS))
    parser.add_argument("--measures", nargs="+", choices=MEASURES, default=list(MEASURES))
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--config", type=Path, default=Path("training/presets/tiny.toml"))
    options = parser.parse_args()
    base, console = load_config(options.config), Console()
    benchmarks = Home.from_environment().benchmarks
    if options.what == "run":
        cells = benchmarks / "polarization"
        cells.mkdir(parents=True, exist_ok=True)
        encoded = world_days(base, WorldConfig.of_size(options.rows, days=4), WORLD_SEED, benchmarks / "encoded", console)
        for condition in options.conditions:
            for measure in options.measures:
                run(base, encoded, condition, measure, options.seeds, cells, console)
    report(benchmarks, console)


def run(
    base: Config, encoded: EncodedDays, condition: str, measure: str, seeds: Sequence[int], cells: Path, console: Console
) -> None:
    """The cells of one condition and measure that are not there yet. One trainer serves all seeds: the graphs are alike."""
    trainer = None
    for seed in seeds:
        path = cells / f"{condition}--{measure}--{seed}.json".replace(" ", "_")
        if path.exists():
            continue
        began = time.perf_counter()
        config = config_of(base, condition, measure, seed)
        trainer = start(trainer, config, encoded)
        learn(trainer, config, encoded)
        result = {"condition": condition, "measure": measure, "seed": seed, **judge(trainer, config, encoded)}
        result["seconds"] = time.perf_counter() - began
        path.with_suffix(".tmp").write_text(json.dumps(result))
        path.with_suffix(".tmp").replace(path)
        effective = min(result["gates"]["effective_experts"].values())
        state = "polarized" if result["gates"]["polarized"] else "healthy"
        console.print(f"{condition}, {measure}, seed {seed}: {state}, least {effective:.2f}, {result['seconds']:.1f} s")


def config_of(base: Config, condition: str, measure: str, seed: int) -> Config:
    """The preset with the condition, the measure and the seed."""
    values, made = base.model_dump(mode="json"), CONDITIONS[condition]
    values["seed"] = seed
    values["model"]["trunk"] = {**TRUNK, **MEASURES[measure]}
    values["training"] |= {"learning_rate": made["rate"], "gradient_clip": None, "average": None, "passes": PASSES}
    for objective in values["objectives"]:
        objective["loss_weight"] = made["heavy"] if objective["name"] == "watch_time" else 1.0
    return parse_config(values, f"{condition}, {measure}")


def start(trainer: Trainer | None, config: Config, encoded: EncodedDays) -> Trainer:
    """A trainer whose network, optimizer and steps are as of a new one of this seed."""
    network = Network(config, build_layout(config), encoded.sizes, encoded.stats)
    if trainer is None:
        return Trainer(network, config.training)
    for mine, new in zip(trainer.network.weights.values(), network.weights.values(), strict=True):
        mine.assign(new)
    for name, table in trainer.network.embeddings.variables.items():
        table.assign(network.embeddings.variables[name])
    trainer.optimizers.restore({name: np.zeros_like(values) for name, values in trainer.optimizers.slots().items()})
    trainer.steps.assign(0)
    return trainer


def learn(trainer: Trainer, config: Config, encoded: EncodedDays) -> None:
    for index, day in enumerate(encoded.days):
        for number in range(config.training.passes):
            seed = derive(config.seed, "order", index, number)
            order = np.random.default_rng(seed).permutation(len(day.targets))
            trainer.train_epoch(day.blocks, day.targets, order, seed)


def judge(trainer: Trainer, config: Config, encoded: EncodedDays) -> dict[str, Any]:
    """The gates on the rows judged, and click's AUC against what the world's truth says is above its median."""
    shown, unseen = (encoded.judged[name] for name in ("shown", "unseen"))
    blocks = {side: stack([shown.blocks[side], unseen.blocks[side]]) for side in SIDES}
    found = trainer.predict_with_gates(blocks)
    settings, names = config.evaluation, config.objective_names
    gates = gate_figures(found.utilisation, names, settings.dead_expert, settings.collapsed_gate, places_of(config))
    rows = row_figures(found.entropy, {"judged": (len(found.predictions), found.live)}, names, trainer.network.trunk.experts)
    truth, click = shown.facts["truth"], found.predictions[: len(shown.facts["truth"]), names.index("click")]
    value = auc(truth > np.median(truth), click) if np.isfinite(click).all() else None
    return {"gates": {**gates, **rows}, "auc": value, "finite": bool(np.isfinite(found.predictions).all())}


def report(benchmarks: Path, console: Console) -> None:
    """The table of rates with exact binomial intervals (Clopper & Pearson, 1934), as JSON and as a figure too."""
    cells = [json.loads(path.read_text()) for path in sorted((benchmarks / "polarization").glob("*.json"))]
    table = [
        row
        for condition in CONDITIONS
        for measure in MEASURES
        if (row := summary(condition, measure, [c for c in cells if (c["condition"], c["measure"]) == (condition, measure)]))
    ]
    content = {"conditions": CONDITIONS, "measures": MEASURES, "trunk": TRUNK, "cores": os.cpu_count(), "table": table}
    (benchmarks / "polarization.json").write_text(json.dumps(content, indent=1))
    (benchmarks / "polarization.svg").write_text(figure(table))
    console.print(
        "| condition | measure | seeds | polarized | 95% | dead | collapsed | entropy | dead units | AUC |", soft_wrap=True
    )
    for row in table:
        low, high = row["interval"]
        shares = " | ".join(f"{row[key]:.0%}" for key in ("dead", "collapsed"))
        console.print(
            f"| {row['condition']} | {row['measure']} | {row['seeds']} | {row['rate']:.0%} | {low:.0%} to {high:.0%} "
            f"| {shares} | {row['entropy']:.2f} | {row['dead_units']:.0%} | {row['auc']:.4f} |",
            soft_wrap=True,
        )


def summary(condition: str, measure: str, cells: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """A row of the table. A run whose gates are not finite counts as polarized: nobody could serve it."""
    if not cells:
        return None
    polarized = [cell["gates"]["polarized"] is not False for cell in cells]
    bounds = binomtest(sum(polarized), len(cells)).proportion_ci(0.95, "exact")
    known = [cell["gates"] for cell in cells if cell["gates"]["polarized"] is not None]

    def mean(values: Sequence[float]) -> float:
        return float(np.mean(values)) if values else float("nan")

    return {
        "condition": condition,
        "measure": measure,
        "seeds": len(cells),
        "rate": mean(polarized),
        "interval": [float(bounds.low), float(bounds.high)],
        "dead": mean([bool(gates["dead_experts"]) for gates in known]),
        "collapsed": mean([bool(gates["collapsed_gates"]) for gates in known]),
        "entropy": mean([float(np.mean(list(gates["gate_entropy"].values()))) for gates in known]),
        "dead_units": mean([gates["dead_unit_share"] for gates in known]),
        "auc": mean([cell["auc"] for cell in cells if cell["auc"] is not None]),
        "seconds": mean([cell["seconds"] for cell in cells]),
    }


def figure(table: Sequence[Mapping[str, Any]]) -> str:
    """The rates with their intervals, condition by condition."""
    rows = []
    for condition in CONDITIONS:
        own = [row for row in table if row["condition"] == condition]
        rows += [ForestRow(condition, heading=True)] if own else []
        rows += [ForestRow(row["measure"], row["rate"], tuple(row["interval"]), f"{row['rate']:.0%}") for row in own]
    drawn = forest("Share of seeds whose gates polarized, with exact 95% intervals", rows, 0.0, longest=20)
    head, end, rest = str(drawn or "<svg></svg>").partition(">")
    drawing = head if "xmlns=" in head else head.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)
    return f"{drawing}{end}{STYLE}{rest}\n"


if __name__ == "__main__":
    main()
