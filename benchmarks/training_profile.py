"""Where the time of a training step goes, by kind of operation, and how near each product comes to the limit's rate.

    python benchmarks/training_profile.py                # the network of training_speed.py: half a minute on a quiet core
    python benchmarks/training_profile.py --bfloat16

One thread, so that operations come one after the other and what TensorFlow's profiler says of each is time that it had the
core. ``rate`` is in shares of that of the limit: a plain fp32 product of the first layers' size, on the same thread. What
lies between the operations is their dispatch, gathering the rows, and Python; the profiler itself adds to it.

Writes ``$WATCHNEXT_HOME/benchmarks/training_profile.json``.
"""

import argparse
import json
import os
import shutil
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.update(TF_NUM_INTRAOP_THREADS="1", TF_NUM_INTEROP_THREADS="1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table
from training_contestants import (
    BATCH,
    EXPERTS,
    LAYERS,
    NUMBERS,
    OBJECTIVES,
    TOWER,
    WIDTH,
    limit,
    ours,
    ours_bfloat16,
)
from training_speed import write_rows

from data.home import Home

INPUTS = 6 * WIDTH + NUMBERS
EXPERT, TOWERS, MIXTURE = "products of experts and gates", "products of towers", "mixture of experts, its copies"
KINDS = {
    "SparseTensorDenseMatMul": "embeddings: means and their gradients",
    "ResourceApply": "Adam",
    "ReluGrad": "gradients of ReLU",
    "BiasAddGrad": "gradients of biases",
}
COPIES = ("Pack", "Unpack", "Concat", "Slice", "StridedSlice", "_MklTranspose", "Gather", "Fill", "Add", "Cast", "_MklCast")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--bfloat16", action="store_true")
    options = parser.parse_args()
    folder = Home.from_environment().benchmarks / "training_profile"
    write_rows(folder, options.steps * BATCH)
    arrays = {path.stem: np.load(path) for path in folder.glob("*.npy")}
    targets = arrays.pop("targets")
    product = limit()(arrays, targets)  # before the trainer, with which products may become bfloat16
    fit = ours_bfloat16() if options.bfloat16 else ours()
    fit({name: values[: 2 * BATCH] for name, values in arrays.items()}, targets[: 2 * BATCH])
    tf.profiler.experimental.start(str(folder))
    found = fit(arrays, targets)
    tf.profiler.experimental.stop()
    assert found is not None
    assert product is not None
    spent = by_kind(folder, options.steps)
    shutil.rmtree(folder)
    figures = {
        "bfloat16": options.bfloat16,
        "step_milliseconds": found["seconds"] / options.steps * 1e3,
        "limit_gigaflops": product["gigaflops"],
        "milliseconds": spent,
        "rates": rates(spent, product["gigaflops"]),
    }
    show(figures)
    folder.with_suffix(".json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def by_kind(folder: Path, steps: int) -> dict[str, float]:
    """Milliseconds of a step by kind of operation, the longest first, in the profile that lies in a folder."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace()
    (file,) = folder.rglob("*.xplane.pb")
    space.ParseFromString(file.read_bytes())
    spent: dict[str, float] = defaultdict(float)
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                name, _, operation = plane.event_metadata[event.metadata_id].name.rpartition(":")
                if name.startswith("while/"):
                    spent[kind_of(name, operation)] += event.duration_ps / 1e9 / steps
    return dict(sorted(spent.items(), key=lambda pair: -pair[1]))


def kind_of(name: str, operation: str) -> str:
    """The row of the table that an operation belongs to: by its type, and where it stands in the network."""
    for start, kind in KINDS.items():
        if operation.startswith(start):
            return kind
    if "MatMul" in operation and "towers" in name:
        return TOWERS
    if "BatchMatMul" in operation or (operation in ("Pack", "Unpack") and "trunk" in name):
        return MIXTURE
    if "MatMul" in operation:
        return EXPERT
    return "copies, sums, casts" if operation.startswith(COPIES) else "all other operations"


def rates(spent: dict[str, float], limit_gigaflops: float) -> dict[str, float]:
    """The share of the limit's rate that the products run at; the experts' first layer makes no gradient of numbers."""
    experts = EXPERTS * (3 * (INPUTS * LAYERS[0] + LAYERS[0] * LAYERS[1]) - NUMBERS * LAYERS[0])
    flops = {
        EXPERT: 2 * (experts + 3 * INPUTS * OBJECTIVES * EXPERTS),
        TOWERS: 2 * 3 * OBJECTIVES * (LAYERS[1] * TOWER + TOWER),
        MIXTURE: 2 * 3 * OBJECTIVES * EXPERTS * LAYERS[1],
    }
    return {kind: BATCH * count / spent[kind] / 1e6 / limit_gigaflops for kind, count in flops.items()}


def show(figures: dict[str, Any]) -> None:
    whole, spent = figures["step_milliseconds"], figures["milliseconds"]
    table = Table("", "ms", "of the step", "rate", title=f"A step of {BATCH:,} rows on one thread: {whole:.0f} ms")
    for kind, milliseconds in spent.items():
        rate = figures["rates"].get(kind)
        table.add_row(kind, f"{milliseconds:.1f}", f"{milliseconds / whole:.3f}", "" if rate is None else f"{rate:.2f}")
    rest = whole - sum(spent.values())
    table.add_row("between the operations", f"{rest:.1f}", f"{rest / whole:.3f}", "")
    Console().print(table, f"the limit's product: {figures['limit_gigaflops']:.0f} GFLOP/s")


if __name__ == "__main__":
    main()
