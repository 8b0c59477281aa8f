"""Which runtime scores the exported network fastest: Keras, TensorFlow, LiteRT or ONNX Runtime.

    python benchmarks/serving_runtime.py [--rounds 30]

One network of 8 experts [256, 128], 5 objectives and 264 inputs, 56 of them the video's. For each number of threads one
process holds every runtime and times them in turn, round by round, so that they share the machine's mood; medians in
milliseconds. Import time, time to the first score and resident memory are of a fresh process per runtime. Prints a table
and writes ``$WATCHNEXT_HOME/benchmarks/serving_runtime.json``.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from data.config import Config, parse_config
from data.features.layout import Block, build_layout
from data.home import Home

CANDIDATES = (100, 500, 1000)
THREADS = (1, 2)
RUNTIMES = (
    "keras_predict",
    "saved_model_rows",
    "saved_model_rank",
    "litert_rows",
    "litert_rank",
    "litert_resized",  # the same, resized for every request, as it must be where candidates vary in number
    "onnx_rows",
    "onnx_rank",
)
ALONE = ("saved_model_rank", "litert_rank", "onnx_rank")
ROWS = 8000
Score = Callable[[], Any]


def configuration() -> Config:
    """208 inputs of user and context (96 of them embeddings), 56 of the video (48)."""
    labels = [f"label_{i}" for i in range(5)]
    user = [
        {"kind": "category", "name": "user", "column": "user_id", "dim": 32},
        {"kind": "history", "name": "watched", "label": labels[0], "length": 20, "dim": 32},
        {"kind": "history", "name": "liked", "label": labels[1], "length": 20, "dim": 32},
        {"kind": "recent", "name": "recent", "labels": labels, "last": [1, 5, 20]},
        *({"kind": "rate", "name": f"rate_{i}", "keys": ["user_id", f"context_{i}"], "labels": labels} for i in range(7)),
        {"kind": "clock", "name": "hour", "part": "hour", "dim": 12},
    ]
    video = [
        {"kind": "category", "name": "video", "column": "video_id", "dim": 32},
        {"kind": "category", "name": "author", "column": "author", "dim": 16},
        {"kind": "rate", "name": "past", "keys": ["video_id"], "labels": labels[:4]},
    ]
    return parse_config(
        {
            "name": "benchmark",
            "dataset": "benchmark",
            "seed": 1,
            "log": {"context": {f"context_{i}": {"type": "category"} for i in range(7)}},
            "videos": {"files": ["v"], "key": "video_id", "columns": {"author": {"type": "category"}}},
            "labels": {label: {"type": "binary"} for label in labels},
            "features": [*user, *video],
            "objectives": [{"name": n, "family": "engagement", "label": n, "kind": "binary"} for n in labels],
        },
        "the benchmark's configuration",
    )


def request(n: int) -> dict[str, Block]:
    """One user, one context, n candidates."""
    layout, random = build_layout(configuration()), np.random.default_rng(n)
    blocks = {}
    for side, rows in (("user", 1), ("context", 1), ("video", n), ("cross", n)):
        fields = layout.sides[side]
        ints = random.integers(0, 24, (rows, fields.int_width)).astype(np.int32)
        blocks[side] = Block(ints, random.normal(size=(rows, fields.float_width)).astype(np.float32))
    return blocks


def inputs(blocks: dict[str, Block], spread: bool) -> dict[str, np.ndarray[Any, Any]]:
    """By name; ``spread``: the request's rows repeated for every candidate."""
    n, found = len(blocks["video"]), {}
    for side, block in blocks.items():
        for part, values in (("ints", block.ints), ("floats", block.floats)):
            if values.shape[1]:
                found[f"{side}_{part}"] = np.repeat(values, n // len(values), 0) if spread else values
    return found


def write_models(folder: Path) -> None:
    """The same network in every form."""
    import onnx
    import tensorflow as tf
    import tf2onnx

    from data.features.targets import TargetStats
    from models.export import export_saved_model, export_scorer, request_function, rows_function
    from models.network import Network
    from models.scorer import SCORER_FILE

    config = configuration()
    layout = build_layout(config)
    sizes = {table: 24 if table == "hour" else ROWS for table in layout.tables}
    network = Network(config, layout, sizes, [TargetStats(0.3, 0.5, 1)] * 5).copy(spare=False)
    assert network.encoder.width == 264, network.encoder.width
    export_saved_model(network, folder / "saved_model")
    export_scorer(network, folder / SCORER_FILE)
    rows, rank = rows_function(network), request_function(network)
    model, _ = tf2onnx.convert.from_function(rows, input_signature=rows.input_signature, opset=17)
    onnx.save(model, str(folder / "rows.onnx"))
    keep = tf.Module()
    keep.kept = [*network.weights.values(), *network.embeddings.variables.values()]
    for name, function in (("rows", rows), ("rank", rank)):
        converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()], keep)
        (folder / f"{name}.tflite").write_bytes(converter.convert())


def keras_model() -> Any:
    """The network under ``keras.Model``, as its users would call it."""
    import keras

    from data.features.targets import TargetStats
    from models.network import Network

    config = configuration()
    layout = build_layout(config)
    network = Network(config, layout, dict.fromkeys(layout.tables, ROWS), [TargetStats(0.3, 0.5, 1)] * 5)

    class Wrapped(keras.Model):
        def call(self, given: dict[str, Any]) -> Any:
            sides = ("user", "context", "video", "cross")
            blocks = {side: (given.get(f"{side}_ints"), given.get(f"{side}_floats")) for side in sides}
            return network.to_natural(network.forward(blocks).raw, blocks)

    return Wrapped()


def prepare(runtime: str, folder: Path, threads: int) -> Callable[[int], Score]:
    """For a number of candidates, a call that scores them; arrays to arrays."""
    if runtime == "keras_predict":
        model = keras_model()
        return lambda n: partial(model.predict, inputs(request(n), True), batch_size=n, verbose=0)
    if runtime.startswith("saved_model"):
        return saved_model(runtime, folder, threads)
    if runtime.startswith("litert"):
        return litert(runtime, folder, threads)
    if runtime == "onnx_rank":
        return scorer(folder, threads)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(folder / "rows.onnx"), options)
    return lambda n: partial(session.run, ["predictions"], inputs(request(n), True))


def scorer(folder: Path, threads: int) -> Callable[[int], Score]:
    from models.scorer import Scorer

    loaded = Scorer.load(folder, threads)
    return lambda n: partial(loaded.score, **request(n))


def saved_model(runtime: str, folder: Path, threads: int) -> Callable[[int], Score]:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    loaded = tf.saved_model.load(str(folder / "saved_model"))
    spread = runtime.endswith("rows")
    function = loaded.signatures["serving_default" if spread else "rank"]

    def score(given: dict[str, Any]) -> Any:
        return function(**{name: tf.constant(values) for name, values in given.items()})["predictions"].numpy()

    return lambda n: partial(score, inputs(request(n), spread))


def litert(runtime: str, folder: Path, threads: int) -> Callable[[int], Score]:
    from ai_edge_litert.interpreter import Interpreter

    spread = runtime.endswith("rows")
    path = folder / ("rows.tflite" if spread else "rank.tflite")

    def make(n: int) -> Score:
        """An interpreter of its own for each number of candidates. "resized": requests of n and n - 1 in turn, so that the
        interpreter is set up anew for each."""
        sizes = cycle([n - 1, n] if runtime == "litert_resized" else [n])
        requests = {size: inputs(request(size), spread) for size in (n - 1, n)}
        interpreter = Interpreter(model_path=str(path), num_threads=threads)
        places = {d["name"].removeprefix("serving_default_").split(":")[0]: d for d in interpreter.get_input_details()}
        wanted = next(d["index"] for d in interpreter.get_output_details() if len(d["shape_signature"]) == 2)
        now = 0

        def score() -> Any:
            nonlocal now
            size = next(sizes)
            if size != now:
                now = size
                for name, detail in places.items():
                    interpreter.resize_tensor_input(detail["index"], requests[size][name].shape)
                interpreter.allocate_tensors()
            for name, detail in places.items():
                interpreter.set_tensor(detail["index"], requests[size][name])
            interpreter.invoke()
            return interpreter.get_tensor(wanted)

        return score

    return make


def interleaved(folder: Path, threads: int, rounds: int) -> dict[str, dict[str, float]]:
    """Median milliseconds per runtime and number of candidates."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    made = {runtime: prepare(runtime, folder, threads) for runtime in RUNTIMES}
    calls = {(runtime, n): make(n) for runtime, make in made.items() for n in CANDIDATES}
    times: dict[tuple[str, int], list[float]] = {key: [] for key in calls}
    for turn in range(rounds + 3):
        for key, call in calls.items():
            start = time.perf_counter()
            call()
            if turn >= 3:
                times[key].append((time.perf_counter() - start) * 1e3)
    return {r: {str(n): statistics.median(times[r, n]) for n in CANDIDATES} for r in RUNTIMES}


def alone(runtime: str, folder: Path) -> dict[str, float]:
    """Of a fresh process: milliseconds to import and load, and to the first score of 500; resident megabytes after it."""
    start = time.perf_counter()
    make = prepare(runtime, folder, 1)
    loaded = time.perf_counter()
    make(500)()
    scored = time.perf_counter()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    megabytes = pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    return {"load_ms": (loaded - start) * 1e3, "first_score_ms": (scored - loaded) * 1e3, "resident_mb": megabytes}


def in_process(*arguments: str) -> Any:
    """This script's answer in a process of its own."""
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        what, folder, *rest = options.part
        if what == "write":
            write_models(Path(folder))
            print("null")
        elif what == "interleaved":
            print(json.dumps(interleaved(Path(folder), int(rest[0]), options.rounds)))
        else:
            print(json.dumps(alone(rest[0], Path(folder))))
        return
    with tempfile.TemporaryDirectory() as folder:
        in_process("--part", "write", folder)
        rounds = ["--rounds", str(options.rounds)]
        figures: dict[str, Any] = {
            "milliseconds": {str(t): in_process(*rounds, "--part", "interleaved", folder, str(t)) for t in THREADS},
            "process": {runtime: in_process("--part", "alone", folder, runtime) for runtime in ALONE},
        }
    report(figures)
    target = Home.from_environment().benchmarks
    target.mkdir(parents=True, exist_ok=True)
    (target / "serving_runtime.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def report(figures: dict[str, Any]) -> None:
    head = "".join(f"{f'{n} / {t} thr':>14}" for t in THREADS for n in CANDIDATES)
    print(f"{'milliseconds':<18}{head}")
    for runtime in RUNTIMES:
        cells = [figures["milliseconds"][str(t)][runtime][str(n)] for t in THREADS for n in CANDIDATES]
        print(f"{runtime:<18}" + "".join(f"{cell:>14.2f}" for cell in cells))
    print(f"\n{'fresh process':<18}{'load ms':>14}{'first ms':>14}{'resident MB':>14}")
    for runtime, cells in figures["process"].items():
        print(f"{runtime:<18}{cells['load_ms']:>14.0f}{cells['first_score_ms']:>14.0f}{cells['resident_mb']:>14.0f}")


if __name__ == "__main__":
    main()
