"""How many examples a second training takes in: ours, Keras, DeepCTR, DeepCTR-Torch and torch-rechub, in turn.

    python benchmarks/training_speed.py                        # 1 million rows: about 7 minutes on two quiet cores
    python benchmarks/training_speed.py --rows 200000 --only ours keras_fused limit

Everybody trains an MMoE of 8 experts [256, 128], gates without hidden layers, 5 towers [64] and Adam on the same rows in
batches of 4,096: 264 inputs, of which 6 embeddings of 24 (user, video, author, hour, and the means of 20 videos watched
and liked, with the video's table) and 120 numbers. Each has a process of its own (``training_contestants.py``,
``training_torch.py``), which is given the rows as its API wants them and trains on the same part of them whenever it is
its turn; in each round all come in turn. What is timed is ``Trainer.train_epoch``, as the day loop calls it, and the
others' ``fit``. A first, untimed turn builds and compiles. Medians over the rounds.

``limit`` is a plain matrix product of the first layers' size in fp32: at its rate the network's products forward and
backward (models/cost.py, times three) would take all the time. ``ours_bfloat16`` is ours with
``training.bfloat16``; ``bf16`` is the same product in bfloat16 with its casts.
``kuairand`` is the network of the KuaiRand preset, in batches of 256 (its own are of 64).

The rivals' environments are made by ``python benchmarks/rivals.py``. Prints a table and writes
``$WATCHNEXT_HOME/benchmarks/training_speed.json``.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from rich.console import Console
from rich.table import Table
from rivals import environment, python_of

from data.home import Home

BATCH = 4096
WIDTH, PLACES, NUMBERS, OBJECTIVES = 24, 20, 120, 5
VOCABULARY = {"user": 8000, "video": 8000, "author": 2000, "hour": 25}
CONTESTANTS = {
    "ours": ("training_contestants.py", None),
    "ours_bfloat16": ("training_contestants.py", None),
    "keras_dense": ("training_contestants.py", None),
    "keras_fused": ("training_contestants.py", None),
    "deepctr": ("training_contestants.py", "deepctr"),
    "deepctr_torch": ("training_torch.py", "torch"),
    "torch_rechub": ("training_torch.py", "torch"),
    "kuairand": ("training_contestants.py", None),
    "limit": ("training_contestants.py", None),
    "bf16": ("training_contestants.py", None),
}
PRODUCTS = ("limit", "bf16")
TARGETS = {"keras_dense": 2.0, "keras_fused": 1.6, "deepctr": 2.0, "deepctr_torch": 2.5, "torch_rechub": 3.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    options = parser.parse_args()
    folder = Home.from_environment().benchmarks / "training_speed"
    write_rows(folder, options.rows)
    workers = {name: Worker(name, folder) for name in options.only}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in workers}
    try:
        for worker in workers.values():
            worker.turn(0, min(options.rows, 2 * BATCH))
        size = options.rows // options.rounds
        for turn in range(options.rounds):
            for name, worker in workers.items():
                found[name].append(worker.turn(turn * size, (turn + 1) * size))
    finally:
        for worker in workers.values():
            worker.close()
        shutil.rmtree(folder)
    figures = summary(found, options)
    show(figures)
    target = folder.with_suffix(".json")
    target.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def write_rows(folder: Path, n: int) -> None:
    """n simulated rows: ids of which few are frequent (0 is padding), histories of any length, outcomes of the numbers."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    random = np.random.default_rng(1)

    def ids(table: str, *shape: int) -> np.ndarray[Any, Any]:
        size = VOCABULARY[table]
        return (1 + (size - 1) * random.random(shape) ** 3).astype(np.int32)

    arrays = {name: ids(name, n) for name in VOCABULARY}
    for name in ("watched", "liked"):
        length = random.integers(0, PLACES + 1, n)
        arrays[name] = np.where(np.arange(PLACES) < length[:, None], ids("video", n, PLACES), 0).astype(np.int32)
    arrays["numbers"] = random.standard_normal((n, NUMBERS), np.float32)
    logits = arrays["numbers"] @ random.normal(0, 0.1, (NUMBERS, OBJECTIVES)).astype(np.float32) - 1
    arrays["targets"] = (random.random((n, OBJECTIVES)) < 1 / (1 + np.exp(-logits))).astype(np.float32)
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", values)


class Worker:
    """A contestant's process, which waits for its turns."""

    def __init__(self, name: str, folder: Path) -> None:
        script, rival = CONTESTANTS[name]
        python = sys.executable if rival is None else str(python_of(rival))
        command = [python, str(Path(__file__).with_name(script)), name, str(folder)]
        pipe, quiet = subprocess.PIPE, subprocess.DEVNULL
        if os.environ.get("WATCHNEXT_BENCHMARK_LOUD"):
            quiet = None  # type: ignore[assignment]
        self.name = name
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=quiet, text=True, env=environment())

    def turn(self, start: int, stop: int) -> dict[str, float]:
        """Train on these rows; what the process says of it: seconds, and rows where they are others than these."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{start} {stop}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"{self.name} ended without an answer; WATCHNEXT_BENCHMARK_LOUD=1 shows what it says")
        answer: dict[str, float] = json.loads(line)
        return {"rows": stop - start, **answer}

    def close(self) -> None:
        self._process.stdin.close()  # type: ignore[union-attr]
        self._process.wait(60)


def summary(found: dict[str, list[dict[str, float]]], options: argparse.Namespace) -> dict[str, Any]:
    """Rows a second, the limit, our share of it, and our multiple of the others: of medians."""
    turns = {name: [turn["rows"] / turn["seconds"] for turn in own] for name, own in found.items() if name not in PRODUCTS}
    rates = {name: statistics.median(own) for name, own in turns.items()}
    gigaflops = {name: statistics.median(turn["gigaflops"] for turn in found[name]) for name in PRODUCTS if name in found}
    figures: dict[str, Any] = {
        "rows": options.rows,
        "batch": BATCH,
        "examples_per_second": rates,
        "each_round": turns,
        "product_gigaflops": gigaflops,
        "resident_megabytes": {name: max(turn["megabytes"] for turn in own) for name, own in found.items()},
    }
    if "ours" in found:
        figures["ours_over"] = {name: rates["ours"] / rates[name] for name in TARGETS if name in rates}
        if {"ours_bfloat16", "deepctr"} <= rates.keys():
            figures["bfloat16_over_deepctr"] = rates["ours_bfloat16"] / rates["deepctr"]
        cost = found["ours"][0]["flops_per_example"]
        figures["flops_per_example"] = cost
        if "limit" in gigaflops:
            figures["limit_examples_per_second"] = gigaflops["limit"] * 1e9 / cost
            figures["share_of_the_limit"] = rates["ours"] / figures["limit_examples_per_second"]
    return figures


def show(figures: dict[str, Any]) -> None:
    table = Table("", "examples/s", "ours over it", "target", "MB resident", title=f"{figures['rows']:,} rows")
    for name, rate in figures["examples_per_second"].items():
        over = figures.get("ours_over", {}).get(name)
        cells = ("", "") if over is None else (f"{over:.2f}", f"{TARGETS[name]:.1f}")
        table.add_row(name, f"{rate:,.0f}", *cells, f"{figures['resident_megabytes'][name]:,.0f}")
    if "limit_examples_per_second" in figures:
        share = figures["share_of_the_limit"]
        table.add_row("the products' limit, fp32", f"{figures['limit_examples_per_second']:,.0f}", f"{share:.2f}", "", "")
    console = Console()
    console.print(table)
    if "bfloat16_over_deepctr" in figures:
        console.print(f"ours with products in bfloat16: {figures['bfloat16_over_deepctr']:.2f} times DeepCTR, target 3.0")
    for name, rate in figures["product_gigaflops"].items():
        console.print(f"{name}: {rate:.0f} GFLOP/s")


if __name__ == "__main__":
    main()
