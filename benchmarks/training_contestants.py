"""The contestants of ``training_speed.py`` on TensorFlow: one process each, which trains whenever it is told to."""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

ROOT = Path(__file__).resolve().parents[1]
IDS = {"user": 8000, "video": 8000, "author": 2000, "hour": 25}
HISTORIES = ("watched", "liked")
WIDTH, PLACES, NUMBERS, OBJECTIVES, BATCH = 24, 20, 120, 5, 4096
EXPERTS, LAYERS, TOWER = 8, (256, 128), 64
Arrays = dict[str, np.ndarray[Any, Any]]
Fit = Callable[[Arrays, Any], dict[str, float] | None]


def ours_bfloat16() -> Fit:
    """The same with matrix products in bfloat16 (``training.bfloat16``)."""
    return ours(bfloat16=True)


def ours(bfloat16: bool = False) -> Fit:
    """The rows are put into our blocks beforehand, as encoding leaves them; the trainer's pass is timed."""
    from data.config import parse_config
    from data.features.layout import SIDES, Block, build_layout
    from data.features.targets import TargetStats
    from data.memory import keep_freed
    from models.cost import flops_per_example
    from models.network import Network
    from models.step import Trainer
    from models.threads import one_thread_an_operation

    keep_freed()  # as `watchnext train` does
    one_thread_an_operation()
    config = parse_config(our_configuration(bfloat16), "the benchmark's configuration")
    layout = build_layout(config)
    network = Network(
        config, layout, {"user_id": 8000, "video_id": 8000, "author": 2000, "hour": 25}, [TargetStats(0.3, 0.5, 1)] * 5
    )
    assert network.encoder.width == 264, network.encoder.width
    trainer = Trainer(network, config.training)
    cost = 3 * flops_per_example(network)

    def fit(inputs: Arrays, targets: Any) -> dict[str, float]:
        blocks, n = {}, len(targets)
        for side in SIDES:
            fields = layout.sides[side]
            ints = np.zeros((n, fields.int_width), np.int32)
            for field in fields.ints:
                given = inputs[field.feature].reshape(n, -1)
                given = np.where(given == 0, -1, given) if field.pooled else given
                ints[:, field.offset : field.offset + field.width] = given
            blocks[side] = Block(ints, inputs["numbers"] if fields.float_width else np.zeros((n, 0), np.float32))
        begun = time.perf_counter()
        order = np.random.default_rng(1).permutation(n)
        trainer.train_epoch(blocks, targets, order, 1)
        return {"seconds": time.perf_counter() - begun, "flops_per_example": cost}

    return fit


def our_configuration(bfloat16: bool) -> dict[str, Any]:
    numbers = [f"number_{i}" for i in range(NUMBERS // 2)]  # each is two inputs: a value, and whether it is missing
    history = {"kind": "history", "length": PLACES, "of": "video_id", "dim": WIDTH}
    labels = [f"label_{k}" for k in range(OBJECTIVES)]
    return {
        "name": "benchmark",
        "dataset": "benchmark",
        "seed": 1,
        "log": {"context": {name: {"type": "number"} for name in numbers}},
        "videos": {"files": ["v"], "key": "video_id", "columns": {"author": {"type": "category"}}},
        "labels": {label: {"type": "binary"} for label in labels},
        "features": [
            {"kind": "category", "name": "user", "column": "user_id", "dim": WIDTH},
            {"kind": "category", "name": "video", "column": "video_id", "dim": WIDTH},
            {"kind": "category", "name": "author", "column": "author", "dim": WIDTH},
            {"kind": "clock", "name": "hour", "part": "hour", "dim": WIDTH},
            {**history, "name": "watched", "label": labels[0]},
            {**history, "name": "liked", "label": labels[1]},
            *({"kind": "number", "name": name, "column": name} for name in numbers),
        ],
        "objectives": [{"name": n, "family": "engagement", "label": n, "kind": "binary"} for n in labels],
        "model": {"trunk": {"kind": "mmoe", "experts": EXPERTS, "layers": LAYERS}, "tower": [TOWER]},
        "training": {"batch_size": BATCH, "bfloat16": bfloat16},
    }


def kuairand() -> Fit:
    """The network of the preset on random rows, of as many ids as the slice has."""
    from data.config import load_config
    from data.features.layout import SIDES, Block, build_layout
    from data.features.targets import TargetStats
    from data.memory import keep_freed
    from models.network import Network
    from models.step import Trainer
    from models.threads import one_thread_an_operation

    keep_freed()
    one_thread_an_operation()
    config = load_config(ROOT / "training" / "presets" / "kuairand.toml")
    layout, k = build_layout(config), len(config.objectives)
    training = config.training.model_copy(update={"batch_size": 256})
    large = {"video_id": 5756, "author_id": 5176, "music_id": 5490, "onehot_feat3": 1368}
    sizes = {table: large.get(table, 50) for table in layout.tables}
    trainer = Trainer(Network(config, layout, sizes, [TargetStats(0.3, 0.5, 1)] * k), training)
    rows, random = 14_592, np.random.default_rng(1)
    blocks = {}
    for side in SIDES:
        fields = layout.sides[side]
        ints = np.zeros((rows, fields.int_width), np.int32)
        for f in fields.ints:
            lowest = -1 if f.pooled else 0
            ints[:, f.offset : f.offset + f.width] = random.integers(lowest, sizes[f.table], (rows, f.width))
        blocks[side] = Block(ints, random.normal(size=(rows, fields.float_width)).astype(np.float32))
    outcomes = (random.random((rows, k)) < 0.3).astype(np.float32)

    def fit(inputs: Arrays, targets: Any) -> dict[str, float]:
        times = 1 if len(targets) <= 2 * BATCH else 4  # days of the slice
        begun = time.perf_counter()
        for seed in range(times):
            trainer.train_epoch(blocks, outcomes, random.permutation(rows), seed)
        return {"seconds": time.perf_counter() - begun, "rows": times * rows}

    return fit


def keras_dense() -> Fit:
    return keras_fit(fused=False)


def keras_fused() -> Fit:
    return keras_fit(fused=True)


def keras_fit(fused: bool) -> Fit:
    """The network in Keras's functional API, trained by ``fit``: a Dense layer for each expert's layer, or one einsum for
    all experts' and one for all gates. Without XLA, which was slower here."""
    import keras

    layers = keras.layers
    tables = {name: layers.Embedding(size, WIDTH) for name, size in IDS.items()}
    ids = {name: keras.Input((), dtype="int32", name=name) for name in IDS}
    places = {name: keras.Input((PLACES,), dtype="int32", name=name) for name in HISTORIES}
    numbers = keras.Input((NUMBERS,), name="numbers")
    mean = layers.GlobalAveragePooling1D()
    watched = [
        mean(tables["video"](given), mask=layers.Lambda(lambda v: v > 0, output_shape=(PLACES,))(given))
        for given in places.values()
    ]
    x = layers.Concatenate()([*(tables[name](given) for name, given in ids.items()), *watched, numbers])
    if fused:
        h = layers.EinsumDense("nd,deh->neh", (EXPERTS, LAYERS[0]), activation="relu", bias_axes="eh")(x)
        h = layers.EinsumDense("nei,eih->neh", (EXPERTS, LAYERS[1]), activation="relu", bias_axes="eh")(h)
        gates = layers.EinsumDense("nd,dke->nke", (OBJECTIVES, EXPERTS))(x)
        mixed = layers.Lambda(lambda two: tf.matmul(tf.nn.softmax(two[0]), two[1]), output_shape=(OBJECTIVES, LAYERS[1]))(
            [gates, h]
        )
        parts = [layers.Lambda(lambda m, k=k: m[:, k], output_shape=(LAYERS[1],))(mixed) for k in range(OBJECTIVES)]
    else:
        experts = []
        for _ in range(EXPERTS):
            h = x
            for width in LAYERS:
                h = layers.Dense(width, "relu")(h)
            experts.append(layers.Reshape((1, LAYERS[-1]))(h))
        stacked, parts = layers.Concatenate(1)(experts), []
        for _ in range(OBJECTIVES):
            gate = layers.Dense(EXPERTS, "softmax", use_bias=False)(x)
            parts.append(layers.Dot(1)([gate, stacked]))
    logits = [layers.Dense(1)(layers.Dense(TOWER, "relu")(part)) for part in parts]
    model = keras.Model({**ids, **places, "numbers": numbers}, layers.Concatenate()(logits))
    model.compile("adam", keras.losses.BinaryCrossentropy(from_logits=True), jit_compile=False)

    def fit(inputs: Arrays, targets: Any) -> None:
        model.fit(inputs, targets, batch_size=BATCH, verbose=0)

    return fit


def deepctr() -> Fit:
    from deepctr.feature_column import DenseFeat, SparseFeat, VarLenSparseFeat
    from deepctr.models import MMOE

    features: list[Any] = [SparseFeat(name, size, WIDTH) for name, size in IDS.items()]
    for name in HISTORIES:
        own = SparseFeat(name, IDS["video"], WIDTH, embedding_name="video")
        features.append(VarLenSparseFeat(own, PLACES, "mean"))
    features.append(DenseFeat("numbers", NUMBERS))
    tasks = [f"task_{k}" for k in range(OBJECTIVES)]
    kinds = ("binary",) * OBJECTIVES
    model = MMOE(features, EXPERTS, LAYERS, (TOWER,), (), 0.0, task_types=kinds, task_names=tasks)
    model.compile("adam", ["binary_crossentropy"] * OBJECTIVES)

    def fit(inputs: Arrays, targets: Any) -> None:
        model.fit(inputs, [targets[:, k] for k in range(OBJECTIVES)], batch_size=BATCH, verbose=0)

    return fit


def limit() -> Fit:
    return product(tf.float32)


def bf16() -> Fit:
    return product(tf.bfloat16)


def product(kind: tf.DType) -> Fit:
    left, right = tf.random.normal([BATCH, 264]), tf.random.normal([264, EXPERTS * LAYERS[0]])

    @tf.function
    def multiply() -> tf.Tensor:
        return tf.cast(tf.matmul(tf.cast(left, kind), tf.cast(right, kind))[0, 0], tf.float32)

    def fit(inputs: Arrays, targets: Any) -> dict[str, float]:
        multiply().numpy()
        seconds = []
        for _ in range(30):
            begun = time.perf_counter()
            multiply().numpy()
            seconds.append(time.perf_counter() - begun)
        return {"gigaflops": 2 * BATCH * 264 * EXPERTS * LAYERS[0] / float(np.median(seconds)) / 1e9}

    return fit


FITS = (ours, ours_bfloat16, kuairand, keras_dense, keras_fused, deepctr, limit, bf16)


def main(name: str, folder: Path) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print
    files = {path.stem: np.load(path, mmap_mode="r") for path in folder.glob("*.npy")}
    fit = {made.__name__: made for made in FITS}[name]()
    for line in sys.stdin:
        start, stop = map(int, line.split())
        part = {key: np.ascontiguousarray(values[start:stop]) for key, values in files.items()}
        targets = part.pop("targets")
        begun = time.perf_counter()
        found = fit(part, targets) or {}
        megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        answer = {"seconds": time.perf_counter() - begun, "megabytes": megabytes, **found}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
