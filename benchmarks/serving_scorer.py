"""How fast one request's candidates are scored in process: ours, other runtimes, and what the arithmetic allows.

    python benchmarks/serving_scorer.py [--rounds 12] [--bundles made kuairand] [--threads 1 2]

Each way to score is a process of its own, loaded once, asked in turns in a shuffled order: one call to warm up, then three
that count, each a user and uniformly drawn candidates not met before. Every way gets the user's and context's blocks (one
row), the catalogue and the candidates' rows, and returns predictions as an array, so that gathering the videos' features
and, for graphs of rows, repeating the user's are in its time. Blocks of user x video are made beforehand, alike for all.

- ours: :meth:`models.scorer.Scorer.score` as the service calls it (:func:`service.pipeline.score`).
- GEMM limit: the floating point operations of our graph's matrix products, over the best rate of any of its larger products
  alone, in NumPy and in ONNX Runtime, in the same turns.
- plain: the network over n rows: the bundle's SavedModel (``serving_default``), the same under XLA, ``keras.Model.predict``,
  and exported to ONNX Runtime, OpenVINO and LiteRT. OpenVINO and LiteRT get a graph compiled for each number of candidates.
- split: our own graph in OpenVINO, in float32, compiled for each number of candidates; ours in bfloat16, as the service
  takes it where it is asked to (:mod:`models.bfloat16`).

Targets: ours at most 1.6 x the limit; at least 4 x faster than the SavedModel, 30 x than Keras, 1.5 x than the best plain
runtime; 1,000 candidates at most 2.1 x 500. Prints tables and writes ``$WATCHNEXT_HOME/benchmarks/serving_scorer.json``.
What can't be had is named.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rich.console import Console
from rich.table import Table

from benchmarks.serving_bundles import NAMES, make
from data.home import Home

WAYS = Path(__file__).with_name("serving_ways.py")
CANDIDATES = (100, 500, 1000, 2000)
CALLS = 3
PAUSE = 0.1
"""Seconds before each turn: the threads of the process before spin on after their last call, and the scheduler then puts
both of the next one's on the other core."""
PLAIN = ("onnx_plain", "openvino_plain", "litert_plain")
LABELS = {
    "limit": "GEMM limit",
    "ours": "ours (ONNX Runtime, split)",
    "ours_bfloat16": "ours, bfloat16 (OpenVINO)",
    "saved_model": "TF SavedModel, plain",
    "xla": "TF XLA, plain",
    "keras": "Keras predict",
    "onnx_plain": "ONNX Runtime, plain",
    "openvino_plain": "OpenVINO, plain",
    "litert_plain": "LiteRT, plain",
    "openvino_split": "OpenVINO, split",
}
console = Console(width=None if sys.stdout.isatty() else 120)


class Worker:
    """A process that scores in one way."""

    def __init__(self, way: str, home: Path, name: str, threads: int) -> None:
        count = str(threads)
        variables = {"OMP_NUM_THREADS": count, "OPENBLAS_NUM_THREADS": count, "TF_CPP_MIN_LOG_LEVEL": "3"}
        self._process = subprocess.Popen(
            [sys.executable, str(WAYS), way, str(home), name, count],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **variables},
        )
        self.facts: dict[str, Any] = self._read()  # its first predictions, or under "missing" why there are none

    def ask(self, candidates: int) -> list[float]:
        """Milliseconds of ``CALLS`` calls."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{candidates} {CALLS}\n")
        self._process.stdin.flush()
        found: list[float] = self._read()["ms"]
        return found

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        return json.loads(line) if line else {"missing": "its process ended"}


def measure(home: Home, name: str, threads: int, rounds: int) -> dict[str, Any]:
    """Median milliseconds by way and number of candidates, in turns; and how far each way's first predictions are off."""
    workers, missing = {}, {}
    for way in LABELS:
        worker = Worker(way, home.root, name, threads)
        if "missing" in worker.facts:
            missing[way] = worker.facts["missing"]
            worker.close()
        else:
            workers[way] = worker
    turns = random.Random(1)
    times: dict[tuple[str, int], list[float]] = {}
    for _ in range(rounds):
        for way, n in turns.sample(places := [(way, n) for way in workers for n in CANDIDATES], len(places)):
            time.sleep(PAUSE)
            times.setdefault((way, n), []).extend(workers[way].ask(n))
    for worker in workers.values():
        worker.close()
    medians = {way: {str(n): statistics.median(times[way, n]) for n in CANDIDATES} for way in workers}
    facts = {way: worker.facts for way, worker in workers.items()}
    return {
        "ms": medians,
        "missing": missing,
        "agreement": agreement(facts),
        "limit": facts.get("limit", {}).get("products"),
    }


def agreement(facts: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Against the SavedModel, on one request's 500 candidates: the largest difference of a prediction, and the share of
    pairs of candidates (mean over objectives) that change order. Keras has weights of its own."""
    import numpy as np

    truth = facts.get("saved_model", {}).get("predictions")
    found = {}
    for way, given in facts.items():
        if truth is not None and "predictions" in given and way != "keras":
            one, other = np.array(truth), np.array(given["predictions"])
            swapped = [
                np.sign(np.subtract.outer(a, a)) * np.sign(np.subtract.outer(b, b)) < 0
                for a, b in zip(one.T, other.T, strict=True)
            ]
            pairs = len(one) * (len(one) - 1)
            found[way] = {
                "largest": float(np.abs(one - other).max()),
                "pairs_swapped": float(np.sum(swapped) / pairs / len(swapped)),
            }
    return found


def ratios(ms: dict[str, dict[str, float]]) -> dict[str, Any]:
    """The targets at 500 candidates, and the growth from 500 to 1,000."""
    ours = ms["ours"]
    plain = [ms[way]["500"] for way in PLAIN if way in ms]
    found: dict[str, Any] = {"1,000 over 500 (at most 2.1)": ours["1000"] / ours["500"]}
    if "limit" in ms:
        found["over the GEMM limit (at most 1.6)"] = {n: ours[n] / ms["limit"][n] for n in ours}
    for way, target in (("saved_model", 4), ("keras", 30)):
        if way in ms:
            found[f"faster than {LABELS[way]} (at least {target})"] = {n: ms[way][n] / ours[n] for n in ours}
    if plain:
        best = {n: min(ms[way][n] for way in PLAIN if way in ms) for n in ours}
        found["faster than the best plain runtime (at least 1.5)"] = {n: best[n] / ours[n] for n in ours}
    return found


def show(name: str, threads: int, result: dict[str, Any]) -> None:
    table = Table(title=f"{name}, {threads} thread{'s' if threads > 1 else ''}: milliseconds, median")
    table.add_column("", no_wrap=True)
    for n in CANDIDATES:
        table.add_column(f"{n:,}", justify="right")
    table.add_column("off by at most", justify="right")
    table.add_column("pairs swapped", justify="right")
    for way, label in LABELS.items():
        if way in result["missing"]:
            table.add_row(label, f"missing: {result['missing'][way]}")
            continue
        off = result["agreement"].get(way)
        told = [f"{off['largest']:.1e}", f"{off['pairs_swapped']:.3%}"] if off else ["", ""]
        table.add_row(label, *(f"{result['ms'][way][str(n)]:.2f}" for n in CANDIDATES), *told)
    console.print(table)
    for what, values in result["ratios"].items():
        cells = values if isinstance(values, dict) else {"": values}
        console.print(f"  {what}: " + ", ".join(f"{value:.2f}" + (f" at {n}" if n else "") for n, value in cells.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--bundles", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    options = parser.parse_args()
    figures: dict[str, Any] = {"rounds": options.rounds, "calls": CALLS, "cores": os.cpu_count()}
    with tempfile.TemporaryDirectory() as folder:
        for name in options.bundles:
            home = Home(Path(folder) / name)
            make(home, name)
            prepared = subprocess.run([sys.executable, str(WAYS), "export", str(home.root), name, "1"], check=False)
            if prepared.returncode:
                raise SystemExit(f"the plain graphs of {name} could not be exported")
            for threads in options.threads:
                result = measure(home, name, threads, options.rounds)
                result["ratios"] = ratios(result["ms"])
                show(name, threads, result)
                figures[f"{name}, {threads} threads"] = result
    target = Home.from_environment().benchmarks
    target.mkdir(parents=True, exist_ok=True)
    (target / "serving_scorer.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
