"""What each way to balance the objectives costs, beside fixed weights.

    python benchmarks/balancing_cost.py [--rounds 9] [--steps 10] [--batch 512] [--users 10000] [--videos 5000]
        [--sparse-rows 200000]

The simulator preset's network (five objectives), random encoded rows, two threads, op determinism
as in training. One trainer per method in one process; each round times some steps of each in turn. Time: the median over
rounds of a step, and of its ratio to fixed weights in the same round. Memory: in a process of its own per method, how far
its resident set rises from the built network over the first steps, its graph included. Prints a table and writes
``$WATCHNEXT_HOME/benchmarks/balancing_cost.json``.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

from data.config import Config, load_config
from data.features.layout import SIDES, Block, build_layout
from data.features.targets import TargetStats
from data.home import Home
from models.network import Network
from models.step import Trainer

KINDS = ("fixed", "uncertainty", "dwa", "famo", "gradnorm", "pcgrad", "cagrad")
PRESET = Path(__file__).resolve().parents[1] / "training" / "presets" / "simulator.toml"
CATEGORIES = 50
"""Rows of the tables that are neither users' nor videos'."""


def trainer(config: Config, kind: str, sizes: dict[str, int]) -> Trainer:
    """Of the preset, balanced another way."""
    content = config.model_dump(mode="json")
    content["training"]["balancing"] = {"kind": kind}
    balanced = Config.model_validate(content)
    stats = [TargetStats(0.2, 0.4, 1)] * len(config.objectives)
    return Trainer(Network(balanced, build_layout(balanced), sizes, stats), balanced.training)


def rows(config: Config, sizes: dict[str, int], n: int) -> tuple[dict[Any, Block], np.ndarray[Any, Any]]:
    """Random features and targets of n rows; the second objective's label is known on a fifth of them."""
    random, blocks, layout = np.random.default_rng(0), {}, build_layout(config)
    for side in SIDES:
        fields = layout.sides[side]
        ints = np.zeros((n, fields.int_width), np.int32)
        for field in fields.ints:
            ints[:, field.offset : field.offset + field.width] = random.integers(0, sizes[field.table], (n, field.width))
        blocks[side] = Block(ints, random.normal(size=(n, fields.float_width)).astype(np.float32))
    targets = (random.random((n, len(config.objectives))) < 0.2).astype(np.float32)
    targets[targets[:, 0] == 0, 1] = np.nan
    return blocks, targets


def table_sizes(config: Config, users: int, videos: int) -> dict[str, int]:
    known = {"user_id": users, "video_id": videos, "author_id": videos // 10}
    return {name: known.get(name, CATEGORIES) for name in build_layout(config).tables}


def resident(field: str) -> float:
    """MiB of this process: VmRSS now, VmHWM at its highest."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1024


def rise(config: Config, kind: str, sizes: dict[str, int], n: int) -> float:
    """MiB that this process's resident set rises by over the first steps."""
    made = trainer(config, kind, sizes)
    blocks, targets = rows(config, sizes, n)
    before = resident("VmRSS")
    made.train_epoch(blocks, targets, np.arange(n), 1)
    return resident("VmHWM") - before


def risen(kind: str) -> float:
    """:func:`rise` in a process of its own."""
    command = [sys.executable, __file__, *sys.argv[1:], "--rise-of", kind]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    defaults = {"rounds": 9, "steps": 10, "batch": 512, "users": 10_000, "videos": 5_000, "sparse-rows": 200_000}
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--rise-of", choices=KINDS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(2)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    config = load_config(PRESET)
    training = config.training.model_copy(update={"batch_size": options.batch, "sparse_rows": options.sparse_rows})
    config = config.model_copy(update={"training": training})
    sizes = table_sizes(config, options.users, options.videos)
    n = options.batch * options.steps
    if options.rise_of:
        print(rise(config, options.rise_of, sizes, n))
        return
    blocks, targets = rows(config, sizes, n)
    trainers = {kind: trainer(config, kind, sizes) for kind in KINDS}
    times: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for made in trainers.values():
        made.train_epoch(blocks, targets, np.arange(2 * options.batch), 1)
    for turn in range(options.rounds):
        for kind in KINDS[turn % len(KINDS) :] + KINDS[: turn % len(KINDS)]:
            start = time.perf_counter()
            trainers[kind].train_epoch(blocks, targets, np.arange(n), turn)
            times[kind].append((time.perf_counter() - start) / options.steps)
    memory = {kind: risen(kind) for kind in KINDS}
    figures = {
        kind: {
            "milliseconds": 1e3 * statistics.median(times[kind]),
            "ratio": statistics.median(mine / fixed for mine, fixed in zip(times[kind], times["fixed"], strict=True)),
            "mebibytes": memory[kind],
            "more_mebibytes": memory[kind] - memory["fixed"],
        }
        for kind in KINDS
    }
    shared = sum(int(tf.size(variable)) for variable in trainers["fixed"].network.shared)
    print(f"{options.batch} rows a step, {shared:,} shared parameters, load {os.getloadavg()[0]:.1f}")
    print(f"{'':12} {'ms/step':>8} {'x fixed':>8} {'MiB':>7} {'more':>6}")
    for kind, row in figures.items():
        cells = f"{row['milliseconds']:8.1f} {row['ratio']:8.2f} {row['mebibytes']:7.0f} {row['more_mebibytes']:6.0f}"
        print(f"{kind:12} {cells}")
    target = Home.from_environment().benchmarks
    target.mkdir(parents=True, exist_ok=True)
    content = {"options": vars(options), "shared_parameters": shared, "load": os.getloadavg(), "methods": figures}
    (target / "balancing_cost.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
