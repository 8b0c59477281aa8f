"""Raw and calibrated ECE, log loss and predicted over actual on KuaiRand, by method, on days up to 2 May.

    watchnext ingest kuairand FOLDER
    python benchmarks/calibration.py [--config training/presets/kuairand.toml] [--seed 1]

One training on 25 to 29 April (`watchnext train` would do the same), judged on 30 April to 2 May. The methods calibrate
the same network by the same rows, those scored on 26 to 29 April before they were trained on; so only the curves differ.
Prints a table and writes $WATCHNEXT_HOME/benchmarks/calibration.json.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from data.config import Config, load_config
from data.home import Home
from models.calibration import Calibration
from models.registry import Registry
from training.bootstrap import Resamples, interval
from training.calibrate import calibrate
from training.evaluate import score_days
from training.figures import Scored
from training.frozen import Frozen
from training.metrics import ece, log_losses, predicted_over_actual
from training.run import train

TRAINED = date(2022, 4, 25), date(2022, 4, 29)
JUDGED = date(2022, 4, 30), date(2022, 5, 2)
METHODS = ("none", "ratio", "platt", "isotonic", "auto")
RESAMPLES = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=Path("training/presets/kuairand.toml"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--train", nargs=2, type=date.fromisoformat, default=TRAINED, metavar=("FIRST", "LAST"))
    parser.add_argument("--judge", nargs=2, type=date.fromisoformat, default=JUDGED, metavar=("FIRST", "LAST"))
    options = parser.parse_args()
    config, home, console = load_config(options.config), Home.from_environment(), Console(width=120)
    config = config.model_copy(update={"name": f"calibration_{config.name}", "seed": options.seed})
    began = time.perf_counter()
    version = train(config, home, *options.train, True, console)
    bundle = Registry(home).open(config.name, version)
    rows = Frozen(bundle, config, home).learner.scored
    scored = list(score_days(bundle, config, home, *options.judge, console))
    fitted, seconds = {}, {}
    for method in METHODS:
        started = time.perf_counter()
        settings = config.calibration.model_copy(update={"method": method})
        fitted[method] = calibrate(rows, config.model_copy(update={"calibration": settings}))
        seconds[method] = time.perf_counter() - started
    figures = compare(config, scored, fitted)
    show(figures, console)
    result = {
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "seed": options.seed,
        "train": [str(day) for day in options.train],
        "judge": [str(day) for day in options.judge],
        "seconds": time.perf_counter() - began,
        "fit_seconds": seconds,
        "objectives": figures,
    }
    home.benchmarks.mkdir(parents=True, exist_ok=True)
    (home.benchmarks / "calibration.json").write_text(json.dumps(result, indent=1))


def compare(config: Config, days: Sequence[Scored], fitted: dict[str, Calibration]) -> dict[str, Any]:
    """Per objective and method the figures over all days, and the loss's difference to raw with its interval by user."""
    raw = np.concatenate([day.raw for day in days])
    targets = np.concatenate([day.targets for day in days])
    users = np.concatenate([day.user for day in days])
    result: dict[str, Any] = {}
    for k, objective in enumerate(config.objectives):
        known = ~np.isnan(targets[:, k])
        y, resamples = targets[known, k], Resamples(users[known], RESAMPLES, seed=1)
        result[objective.name] = {"rows": len(y), "positives": int((y > 0).sum()), "methods": {}}
        base = losses(objective.kind, y, raw[known, k])
        for method, calibration in fitted.items():
            p = calibration.apply(raw)[known, k]
            loss = losses(objective.kind, y, p)
            moved = resamples.ratio(loss - base, np.ones(len(y)), resamples.row_user)
            result[objective.name]["methods"][method] = {
                "curve": calibration.curves[k].kind,
                "reason": calibration.curves[k].reason,
                "ece": ece(y, p) if objective.kind == "binary" else None,
                "loss": float(loss.mean()),
                "loss_minus_raw": float((loss - base).mean()),
                "loss_minus_raw_interval": interval(moved)[0],
                "predicted_over_actual": predicted_over_actual(y, p),
            }
    return result


def losses(kind: str, targets: Any, predictions: Any) -> Any:
    """Log loss of each row, or the squared error of a value."""
    if kind == "binary":
        return log_losses(targets, predictions)
    return (predictions.astype(np.float64) - targets) ** 2


def show(figures: dict[str, Any], console: Console) -> None:
    table = Table("objective", "method", "curve", "ECE", "log loss or MSE", "minus raw [95%]", "predicted/actual")
    for name, objective in figures.items():
        for method, f in objective["methods"].items():
            low, high = f["loss_minus_raw_interval"] or (float("nan"),) * 2
            table.add_row(
                name,
                method,
                f["curve"],
                "-" if f["ece"] is None else f"{f['ece']:.5f}",
                f"{f['loss']:.5f}",
                f"{f['loss_minus_raw']:+.5f} [{low:+.5f}, {high:+.5f}]",
                f"{f['predicted_over_actual']:.3f}",
            )
    console.print(table)


if __name__ == "__main__":
    main()
