"""What retraining every night is worth: `watchnext demo --days` over several worlds, each beside a model trained once.

    python benchmarks/closed_loop.py --seeds 1 2 3 4 5 [--days 7] [--requests 1500] [--refreshed]

For every seed a world, its warm-up log and a first champion; then the same users visit two products (docs/closed_loop.md),
one that retrains every night and one whose bundle stays. Both have live profiles. With --refreshed there is a third, whose
counts are refreshed every night while its weights stay. Over the last three days, by seed:

- closed: the share of the gap from popularity to the oracle, on the same candidates, that the served slates close;
- the difference in true utility a request to the others, over the visits that both had.

Each seed is written to $WATCHNEXT_HOME/benchmarks/closed_loop/, and not run again while the loop's size, sides and preset
are the same; all of them to $WATCHNEXT_HOME/benchmarks/closed_loop.json. Exit code 1 if a mark is missed: closed at least
a third on average, and the 95% t interval of the difference to the model trained once above 0.
"""

import argparse
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import t as student

from data.home import Home
from service.closed_loop import ONCE, REFRESHED, RETRAINED, Plan, table
from watchnext import PRESETS, closed_loop, write_json

CLOSED = 1 / 3
"""The least share of the gap."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    for name in ("days", "warm_up", "requests", "users", "videos"):
        default = 7 if name == "days" else getattr(Plan, name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    parser.add_argument("--refreshed", action="store_true")
    options, console = parser.parse_args(), Console(width=140)
    size = {name: getattr(options, name) for name in ("days", "warm_up", "requests", "users", "videos")}
    sides = (RETRAINED, ONCE, *([REFRESHED] if options.refreshed else []))
    folder = Home.from_environment().benchmarks
    results = [one_seed(Plan(seed=seed, **size), sides, folder / "closed_loop", console) for seed in options.seeds]
    report = {"command": " ".join(sys.argv), "cores": os.cpu_count(), "size": size, **summed_up(results), "seeds": results}
    write_json(folder / "closed_loop.json", report)
    show(results, report, console)
    return 0 if report["met"] else 1


def one_seed(plan: Plan, sides: Sequence[str], folder: Path, console: Console) -> dict[str, Any]:
    """The figures of a seed, from an earlier run of the same where there is one."""
    preset = (PRESETS / "loop.toml").read_bytes()
    key = hashlib.sha256(json.dumps([asdict(plan), list(sides), preset.decode()]).encode()).hexdigest()[:12]
    path = folder / f"seed-{plan.seed}-{key}.json"
    if path.exists():
        console.print(f"seed {plan.seed}: {path.name} is there")
        return dict(json.loads(path.read_bytes()))
    console.rule(f"seed {plan.seed}")
    with tempfile.TemporaryDirectory(prefix="closed-loop-") as temporary:
        result = closed_loop(plan, Path(temporary) / "loop", console, sides)
    write_json(path, result)
    console.print(table(result))
    return dict(result)


def summed_up(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    sides, others = results[0]["sides"], results[0]["differences"]
    closed, rated = (
        {side: interval([r["sides"][side]["last"][key] for r in results]) for side in sides}
        for key in ("closed", "closed_rated")
    )
    utility = {side: interval([r["sides"][side]["last"]["served"] for r in results]) for side in sides}
    differences = {side: interval([r["differences"][side]["utility"] for r in results]) for side in others}
    low = differences[ONCE]["low"]
    met = closed[RETRAINED]["mean"] >= CLOSED and low is not None and low > 0
    return {"closed": closed, "closed_rated": rated, "utility": utility, "differences": differences, "met": met}


def interval(values: Sequence[float]) -> dict[str, Any]:
    """Mean and 95% t interval over seeds; without bounds for a single one."""
    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return {"mean": mean, "low": None, "high": None, "seeds": count}
    half = float(student.ppf(0.975, count - 1) * np.std(values, ddof=1) / np.sqrt(count))
    return {"mean": mean, "low": mean - half, "high": mean + half, "seeds": count}


def show(results: Sequence[Mapping[str, Any]], report: Mapping[str, Any], console: Console) -> None:
    shown = Table(
        "seed", "popularity", "served", "oracle", "closed", "trained once", "closed", "difference", "promoted", "seconds"
    )
    for result in results:
        ours, once = (result["sides"][side]["last"] for side in (RETRAINED, ONCE))
        promoted = sum(night["status"] == "promoted" for night in result["sides"][RETRAINED]["nights"])
        figures = [f"{ours[name]:.3f}" for name in ("popularity", "served", "oracle")]
        figures += [f"{ours['closed']:.1%}", f"{once['served']:.3f}", f"{once['closed']:.1%}"]
        figures += [f"{result['differences'][ONCE]['utility']:+.4f}", str(promoted), f"{result['seconds']:.0f}"]
        shown.add_row(str(result["seed"]), *figures)
    console.print(shown)
    for side in report["closed"]:
        closed, rated = (said(report[key][side], ".1%") for key in ("closed", "closed_rated"))
        served = said(report["utility"][side], ".4f")
        console.print(f"{side}: closed {closed}, from ratings {rated}; utility {served}", highlight=False)
    for side, found in report["differences"].items():
        console.print(f"{RETRAINED} less {side}: {said(found, '+.4f')}", highlight=False)
    console.print("met" if report["met"] else "missed", highlight=False)


def said(found: Mapping[str, Any], form: str) -> str:
    bounds = "" if found["low"] is None else f" ({found['low']:{form}} to {found['high']:{form}})"
    return f"{found['mean']:{form}}{bounds}"


if __name__ == "__main__":
    sys.exit(main())
