"""What a training step costs, and what op determinism adds to it.

    python benchmarks/training_step.py [--rounds 9] [--batch 4096]

The network of ``benchmarks/serving_runtime.py``: 8 experts [256, 128], 5 objectives, 264
inputs; two threads. In one process and in turn: a step with TensorFlow's op determinism off, one with it on, and a plain
matrix product of the network's own size, whose rate says what the arithmetic alone would allow. Medians. Prints a table
and writes ``$WATCHNEXT_HOME/benchmarks/training_step.json``.
"""

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from serving_runtime import ROWS, configuration
from tensorflow.python.framework import config as framework

from data.features.layout import SIDES, Block, build_layout
from data.features.targets import TargetStats
from data.home import Home
from models.network import Network
from models.step import Trainer

MEGAFLOPS = 5.16
"""Of an example, forward and backward, in the network's matrix products."""


def trainer(batch: int) -> Trainer:
    config = configuration()
    training = config.training.model_copy(update={"batch_size": batch, "deterministic": False})
    layout = build_layout(config)
    network = Network(config, layout, dict.fromkeys(layout.tables, ROWS), [TargetStats(0.3, 0.5, 1)] * 5)
    return Trainer(network, training)


def rows(made: Trainer, n: int) -> tuple[dict[Any, Block], np.ndarray[Any, Any]]:
    random, blocks = np.random.default_rng(0), {}
    for side in SIDES:
        fields = made.network.layout.sides[side]
        ints = np.zeros((n, fields.int_width), np.int32)
        for field in fields.ints:
            ints[:, field.offset : field.offset + field.width] = random.integers(0, ROWS, (n, field.width))
        blocks[side] = Block(ints, random.normal(size=(n, fields.float_width)).astype(np.float32))
    return blocks, (random.random((n, 5)) < 0.3).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, default=4096)
    options = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(2)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    made = trainer(options.batch)
    blocks, targets = rows(made, options.batch)
    order = np.arange(options.batch)
    left, right = tf.random.normal([options.batch, 264]), tf.random.normal([264, 2048])
    product = tf.function(lambda: tf.reduce_sum(tf.matmul(left, right)))

    def step(deterministic: bool) -> None:
        (framework.enable_op_determinism if deterministic else framework.disable_op_determinism)()
        made.train_epoch(blocks, targets, order, 1)

    calls = {"free": lambda: step(False), "deterministic": lambda: step(True), "product": lambda: product().numpy()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(options.rounds + 2):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn >= 2:
                times[name].append(time.perf_counter() - start)
    gigaflops = 2 * options.batch * 264 * 2048 / statistics.median(times["product"]) / 1e9
    limit = gigaflops * 1e3 / MEGAFLOPS
    rates = {name: options.batch / statistics.median(times[name]) for name in ("free", "deterministic")}
    figures = {
        "batch": options.batch,
        "examples_per_second": rates,
        "best_examples_per_second": {name: options.batch / min(times[name]) for name in rates},
        "determinism_costs": rates["free"] / rates["deterministic"] - 1,
        "product_gigaflops": gigaflops,
        "share_of_the_product_s_rate": {name: rate / limit for name, rate in rates.items()},
    }
    print(json.dumps(figures, indent=1))
    target = Home.from_environment().benchmarks
    target.mkdir(parents=True, exist_ok=True)
    (target / "training_step.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
