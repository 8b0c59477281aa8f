"""What bf16 products do to predictions: AUC, GAUC and order on KuaiRand, by OpenVINO on the exported graph.

    python benchmarks/serving_bf16.py [--seeds 1 2 3]

Needs the ingested days of training/presets/kuairand.toml in ``$WATCHNEXT_HOME``. Per seed the preset's network is trained
on 25 April to 2 May 2022, and 3 to 5 May are predicted in fp32 and in bf16: AUC over rows, GAUC within slates (features as
of a slate's first row), and the share of a slate's pairs that change order; beside it, how many do between two seeds in
float32. A minute a seed. Prints a table and writes ``$WATCHNEXT_HOME/benchmarks/serving_bf16.json``. The other half, what it
gains, is in ``benchmarks/serving_scorer.py``.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from datetime import date
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from rich.console import Console
from rich.table import Table

from data.home import Home

ROOT = Path(__file__).resolve().parents[1]
ROWS = 1_000
PRECISIONS = ("f32", "bf16")


def predict(folder: Path) -> None:
    """In a process without TensorFlow: both precisions of the rows in ``folder``, ``ROWS`` at a time."""
    import openvino

    core = openvino.Core()
    if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise SystemExit("this processor has no bf16")
    for precision in PRECISIONS:
        model = core.read_model(folder / "rows.onnx")
        names = [port.get_any_name() for port in model.inputs]
        for part in ("rows", "slates"):
            given = {name: np.load(folder / f"{part}-{name}.npy") for name in names}
            model.reshape({name: [ROWS, values.shape[1]] for name, values in given.items()})
            compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision})
            n, found = len(next(iter(given.values()))), []
            for start in range(0, n, ROWS):
                places = np.minimum(np.arange(start, start + ROWS), n - 1)
                found.append(compiled({name: values[places] for name, values in given.items()})["predictions"].copy())
            np.save(folder / f"{part}-{precision}.npy", np.concatenate(found)[:n])


def measure(seed: int, encoded: Any, config: Any) -> tuple[dict[str, Any], Any]:
    """By objective: AUC, GAUC and pairs swapped; and the float32 predictions of the slates' rows [n, K]."""
    import onnx
    import tf2onnx

    from benchmarks.encoded_days import train
    from models.export import rows_function

    config = config.model_copy(update={"seed": seed})
    with tempfile.TemporaryDirectory() as place, train(config, encoded).averaged() as network:
        folder, function = Path(place), rows_function(network.copy(spare=False))
        model, _ = tf2onnx.convert.from_function(function, input_signature=function.input_signature, opset=17)
        onnx.save(model, str(folder / "rows.onnx"))
        for part, judged in encoded.judged.items():
            for side, block in judged.blocks.items():
                np.save(folder / f"{part}-{side}_ints.npy", block.ints)
                np.save(folder / f"{part}-{side}_floats.npy", block.floats)
        subprocess.run([sys.executable, __file__, "--predict", place], check=True)
        found = {(part, p): np.load(folder / f"{part}-{p}.npy") for part in encoded.judged for p in PRECISIONS}
    return judge(found, encoded.judged["rows"].facts, config), found["slates", "f32"]


def judge(found: dict[tuple[str, str], Any], facts: Any, config: Any) -> dict[str, Any]:
    from training.metrics import auc, gauc

    figures = {}
    for k, objective in enumerate(config.objectives):
        target, known = facts["targets"][:, k], ~np.isnan(facts["targets"][:, k])
        own: dict[str, Any] = {"pairs_swapped": swapped(*(found["slates", p][:, k] for p in PRECISIONS), facts["slate"])}
        for p in PRECISIONS if objective.kind == "binary" else ():
            slates = gauc(target[known], found["slates", p][known, k], facts["slate"][known])
            own[p] = {"auc": auc(target[known], found["rows", p][known, k]), "gauc": slates}
        figures[objective.name] = own
    return figures


def swapped(one: Any, other: Any, slate: Any) -> float:
    """The share of pairs of a slate's rows, ordered by one, that the other orders the opposite way."""
    changed = pairs = 0
    for rows in np.split(np.argsort(slate, kind="stable"), np.cumsum(np.unique(slate, return_counts=True)[1])[:-1]):
        order, moved = (np.sign(np.subtract.outer(values[rows], values[rows])) for values in (one, other))
        changed, pairs = changed + int((order * moved < 0).sum()), pairs + int((order != 0).sum())
    return changed / max(pairs, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--predict", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.predict:
        return predict(options.predict)
    from benchmarks.encoded_days import log_days
    from data.config import parse_config

    preset = ROOT / "training" / "presets" / "kuairand.toml"
    config = parse_config(tomllib.loads(preset.read_text(encoding="utf-8")), "kuairand")
    encoded = log_days(config, date(2022, 4, 25), date(2022, 5, 3), date(2022, 5, 5))
    figures, before, slate = {}, None, encoded.judged["rows"].facts["slate"]
    for seed in options.seeds:
        figures[str(seed)], predicted = measure(seed, encoded, config)
        for k, name in enumerate(config.objective_names) if before is not None else ():
            figures[str(seed)][name]["pairs_swapped_by_seed"] = swapped(before[:, k], predicted[:, k], slate)
        before = predicted
    table = Table(title="bf16 against fp32, by seed")
    for head in ("objective", "seed", "AUC fp32", "difference", "GAUC fp32", "difference", "pairs swapped", "by seed"):
        table.add_column(head, justify="left" if head == "objective" else "right")
    for name in config.objective_names:
        for seed, of_seed in figures.items():
            cells, full, short = [], of_seed[name].get("f32"), of_seed[name].get("bf16")
            for metric in ("auc", "gauc"):
                there = full is not None and full[metric] is not None
                cells += [f"{full[metric]:.4f}", f"{short[metric] - full[metric]:+.5f}"] if there else ["", ""]
            swaps = [of_seed[name].get(key) for key in ("pairs_swapped", "pairs_swapped_by_seed")]
            table.add_row(name, seed, *cells, *("" if share is None else f"{share:.2%}" for share in swaps))
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    target = Home.from_environment().benchmarks
    target.mkdir(parents=True, exist_ok=True)
    (target / "serving_bf16.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return None


if __name__ == "__main__":
    main()
