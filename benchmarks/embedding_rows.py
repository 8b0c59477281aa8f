"""Whether a training step's time depends on the size of an embedding table, and from where on sparse updates are faster.

    python benchmarks/embedding_rows.py                 # about 2 minutes, 7 GB
    python benchmarks/embedding_rows.py --threshold     # and dense against sparse over sizes, in batches of 4,096 and 256

The network of ``training_speed.py``, whose table of videos (24 numbers a row; one video and two histories of 20 a row of the
log) has 10 thousand or 10 million rows. All see the same ids, which are below 10 thousand; ``spread`` has them spread over
the large table, where the processor's caches help less. The networks take turns; medians of a step. Prints a table and
writes ``$WATCHNEXT_HOME/benchmarks/embedding_rows.json``.
"""

import argparse
import json
import os
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from rich.console import Console
from rich.table import Table
from training_contestants import NUMBERS, OBJECTIVES, our_configuration

from data.config import parse_config
from data.features.layout import SIDES, Block, build_layout
from data.features.targets import TargetStats
from data.home import Home
from models.network import Network
from models.step import Trainer

SMALL, LARGE = 10_000, 10_000_000
STEPS = 4
"""A turn's."""
THRESHOLDS = (10_000, 30_000, 100_000, 300_000, 1_000_000)
TARGET = 1.3


@dataclass(frozen=True)
class Case:
    """A table of ``rows``, updated sparsely or not; ids are multiplied by ``spread``."""

    name: str
    rows: int
    sparse: bool
    spread: int = 1
    batch: int = 4096


CASES = (
    Case("10 thousand, dense", SMALL, False),
    Case("10 thousand, sparse", SMALL, True),
    Case("10 million, sparse", LARGE, True),
    Case("10 million, sparse, ids spread", LARGE, True, LARGE // SMALL),
)


def trainer(case: Case) -> Trainer:
    content = our_configuration(bfloat16=False)
    content["training"] = {"batch_size": case.batch, "sparse_rows": 9_000 if case.sparse else 1 << 40}
    config = parse_config(content, "the benchmark's configuration")
    layout = build_layout(config)
    sizes = {"user_id": 8000, "video_id": case.rows, "author": 2000, "hour": 25}
    network = Network(config, layout, sizes, [TargetStats(0.3, 0.5, 1)] * OBJECTIVES, spare=False)
    return Trainer(network, config.training)


def rows(made: Trainer, case: Case) -> tuple[dict[Any, Block], np.ndarray[Any, Any]]:
    """As many rows as a turn's steps take."""
    random, blocks, n = np.random.default_rng(1), {}, STEPS * case.batch
    for side in SIDES:
        fields = made.network.layout.sides[side]
        ints = np.zeros((n, fields.int_width), np.int32)
        for field in fields.ints:
            size = SMALL if field.table == "video_id" else made.network.table_sizes[field.table]
            drawn = (size * random.random((n, field.width)) ** 3).astype(np.int32)
            ints[:, field.offset : field.offset + field.width] = drawn * (case.spread if field.table == "video_id" else 1)
        blocks[side] = Block(ints, random.normal(size=(n, fields.float_width)).astype(np.float32))
    assert sum(block.floats.shape[1] for block in blocks.values()) == NUMBERS
    return blocks, (random.random((n, OBJECTIVES)) < 0.3).astype(np.float32)


def times(cases: tuple[Case, ...], rounds: int) -> dict[str, float]:
    """The median milliseconds of a step of each case, in turn."""
    made = {case: trainer(case) for case in cases}
    given = {case: rows(made[case], case) for case in cases}
    found: dict[Case, list[float]] = {case: [] for case in cases}
    for turn in range(rounds + 1):
        for case in cases:
            blocks, targets = given[case]
            begun = time.perf_counter()
            made[case].train_epoch(blocks, targets, np.arange(len(targets)), turn)
            if turn:
                found[case].append((time.perf_counter() - begun) / STEPS * 1e3)
    return {case.name: statistics.median(own) for case, own in found.items()}


def thresholds(rounds: int) -> list[dict[str, float]]:
    """Dense and sparse milliseconds for every size and batch."""
    lines = []
    for batch in (4096, 256):
        for size in THRESHOLDS:
            pair = tuple(
                Case("sparse" if sparse else "dense", size, sparse, size // SMALL, batch) for sparse in (False, True)
            )
            lines.append({"batch": batch, "rows": size, **times(pair, rounds)})
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threshold", action="store_true")
    options = parser.parse_args()
    found = times(CASES, options.rounds)
    dense, small, large, spread = found.values()
    figures: dict[str, Any] = {
        "milliseconds_a_step": found,
        "large_over_small": large / small,
        "spread_over_small": spread / small,
        "sparse_over_dense_at_10_thousand": small / dense,
    }
    console, table = Console(), Table("rows of the table", "ms a step", "over 10 thousand, sparse", title="batches of 4,096")
    for name, value in found.items():
        table.add_row(name, f"{value:.1f}", f"{value / small:.2f}")
    console.print(table)
    console.print(f"10 million over 10 thousand: {large / small:.2f}, target at most {TARGET}")
    if options.threshold:
        figures["threshold"] = thresholds(options.rounds)
        table = Table("batch", "rows", "dense, ms", "sparse, ms")
        for line in figures["threshold"]:
            table.add_row(*(f"{line[key]:,.4g}" for key in ("batch", "rows", "dense", "sparse")))
        console.print(table)
    target = Home.from_environment().benchmarks
    target.mkdir(parents=True, exist_ok=True)
    (target / "embedding_rows.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
