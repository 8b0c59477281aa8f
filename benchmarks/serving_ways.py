"""The ways to score that benchmarks/serving_scorer.py compares, each in a process of its own.

    python benchmarks/serving_ways.py WAY HOME NAME THREADS

Reads lines "candidates calls" and answers with the calls' milliseconds; its first line has the predictions of one fixed
request, or why there are none.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from data.features.layout import Block
from data.home import Home
from models.registry import Registry
from service.loading import load_catalogue, serve_bundle
from service.serving import Serving

Array = np.ndarray[Any, Any]
CHECKED = 500
USERS = 27_000


class Asked(NamedTuple):
    """A request's user and context (one row each), its candidates' rows of the catalogue [n], and their cross block."""

    user: Block
    context: Block
    rows: Array
    cross: Block


Predict = Callable[[Asked], Array]
"""To predictions [n, K]."""


class Way:
    """What the ways to score have in common: the bundle, its folders, and requests against it."""

    def __init__(self, home: Path, name: str, threads: int) -> None:
        registry = Registry(Home(home))
        self.bundle, self.threads = registry.open(name), threads
        self.extra = home / "plain" / name
        self.serving: Serving = serve_bundle(self.bundle)
        self.raw = load_catalogue(self.bundle, self.serving.features)
        self._rng = np.random.default_rng(os.getpid())

    def ask(self, n: int, rng: np.random.Generator | None = None) -> Asked:
        """A user and n candidates, uniformly drawn."""
        rng = rng or self._rng
        features, config = self.serving.features, self.serving.config
        context = dict.fromkeys(config.log.context, str(rng.integers(10)))
        time_ms = features.state.boundary + 3_600_000
        of_user = features.request(f"u{rng.integers(USERS)}", context, time_ms)
        rows = rng.integers(0, len(features.video_ids), n)
        return Asked(of_user.user, of_user.context, rows, features.cross(of_user, rows))

    def inputs(self, asked: Asked, spread: bool) -> dict[str, Array]:
        """By name; ``spread``: for the plain graph, the request's rows repeated for every candidate and its videos as they
        come."""
        n, found = len(asked.rows), {}
        video = (self.raw if spread else self.serving.catalogue).take(asked.rows)
        blocks = {"user": asked.user, "context": asked.context, "video": video, "cross": asked.cross}
        for side, block in blocks.items():
            for part, values in (("ints", block.ints), ("floats", block.floats)):
                if values.shape[1]:
                    found[f"{side}_{part}"] = np.repeat(values, n, 0) if spread and len(values) == 1 != n else values
        return found


def ours(way: Way, bfloat16: int = 0) -> Predict:
    from models.scorer import Scorer

    scorer = Scorer.load(way.bundle.extra, way.threads, bfloat16)

    def predict(asked: Asked) -> Array:
        video = way.serving.catalogue.take(asked.rows)
        return scorer.score(asked.user, asked.context, video, asked.cross).predictions

    return predict


def ours_bfloat16(way: Way) -> Predict:
    from models.bfloat16 import supported

    if not supported():
        raise RuntimeError("this processor has no bfloat16")
    return ours(way, bfloat16=1)


def _tensorflow(way: Way) -> Any:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(way.threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    return tf


def saved_model(way: Way, compiled: bool = False) -> Predict:
    tf = _tensorflow(way)
    loaded = tf.saved_model.load(str(way.bundle.folder))
    signature = loaded.signatures["serving_default"]
    call = tf.function(lambda **given: signature(**given)["predictions"], jit_compile=compiled)

    def predict(asked: Asked) -> Array:
        given = {name: tf.constant(values) for name, values in way.inputs(asked, True).items()}
        found: Array = (call(**given) if compiled else signature(**given)["predictions"]).numpy()
        return found

    predict.kept = loaded  # type: ignore[attr-defined]
    return predict


def xla(way: Way) -> Predict:
    return saved_model(way, compiled=True)


def keras(way: Way) -> Predict:
    """The network under ``keras.Model``, as its users would call it; its weights are not the bundle's."""
    _tensorflow(way)
    import keras as library

    network = fresh_network(way)

    class Wrapped(library.Model):  # type: ignore[misc]
        def call(self, given: dict[str, Any]) -> Any:
            sides = ("user", "context", "video", "cross")
            blocks = {side: (given.get(f"{side}_ints"), given.get(f"{side}_floats")) for side in sides}
            return network.to_natural(network.forward(blocks).raw, blocks)

    model = Wrapped()

    def predict(asked: Asked) -> Array:
        found: Array = model.predict(way.inputs(asked, True), batch_size=len(asked.rows), verbose=0)
        return found

    return predict


def fresh_network(way: Way) -> Any:
    from data.features.layout import build_layout
    from data.features.targets import TargetStats
    from models.network import Network

    config, known = way.serving.config, way.serving.features.state.knowledge.vocabularies
    layout = build_layout(config)
    largest = max(len(vocabulary) for vocabulary in known.values()) + 2
    sizes = dict.fromkeys(layout.tables, largest)
    return Network(config, layout, sizes, [TargetStats(0.3, 0.5, 1)] * len(config.objectives))


def onnx_session(path: Path, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def onnx_plain(way: Way) -> Predict:
    session = onnx_session(way.extra / "rows.onnx", way.threads)
    return lambda asked: session.run(["predictions"], way.inputs(asked, True))[0]  # type: ignore[no-any-return]


def openvino(way: Way, path: Path, spread: bool) -> Predict:
    """A graph compiled for each number of candidates."""
    import openvino

    core, compiled = openvino.Core(), {}
    settings = {"INFERENCE_NUM_THREADS": way.threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}

    def predict(asked: Asked) -> Array:
        given, n = way.inputs(asked, spread), len(asked.rows)
        if n not in compiled:
            model = core.read_model(path)
            names = [port.get_any_name() for port in model.inputs]
            model.reshape({name: list(given[name].shape) for name in names})
            compiled[n] = core.compile_model(model, "CPU", settings), names
        graph, names = compiled[n]
        found: Array = graph({name: given[name] for name in names})["predictions"]
        return found

    return predict


def openvino_plain(way: Way) -> Predict:
    return openvino(way, way.extra / "rows.onnx", True)


def openvino_split(way: Way) -> Predict:
    return openvino(way, way.bundle.extra / "scorer.onnx", False)


def litert_plain(way: Way) -> Predict:
    """An interpreter for each number of candidates."""
    from ai_edge_litert.interpreter import Interpreter

    made: dict[int, Any] = {}

    def predict(asked: Asked) -> Array:
        given, n = way.inputs(asked, True), len(asked.rows)
        if n not in made:
            made[n] = Interpreter(model_path=str(way.extra / "rows.tflite"), num_threads=way.threads)
            for name, place in _places(made[n]).items():
                made[n].resize_tensor_input(place, given[name].shape)
            made[n].allocate_tensors()
        interpreter = made[n]
        for name, place in _places(interpreter).items():
            interpreter.set_tensor(place, given[name])
        interpreter.invoke()
        wanted = next(d["index"] for d in interpreter.get_output_details() if len(d["shape_signature"]) == 2)
        found: Array = interpreter.get_tensor(wanted)
        return found

    return predict


def _places(interpreter: Any) -> dict[str, int]:
    return {d["name"].removeprefix("serving_default_").split(":")[0]: d["index"] for d in interpreter.get_input_details()}


class Limit:
    """The matrix products of our graph alone. Calling it gives, in ms, what all their floating point operations take at the
    best rate that NumPy or ONNX Runtime reach with one of the larger ones."""

    LARGE = 0.05
    """The share of the operations from which on a product counts as a larger one."""

    def __init__(self, way: Way) -> None:
        self._way = way
        self.products = {n: self._products(n) for n in (100, 500, 1000, 2000)}
        self._runs: dict[int, list[tuple[float, Callable[[], Any]]]] = {}

    def __call__(self, n: int) -> float:
        if n not in self._runs:
            self._runs[n] = self._build(n)
        rates = []
        for flops, run in self._runs[n]:
            run()
            start = time.perf_counter()
            run()
            rates.append(flops / (time.perf_counter() - start))
        return 1e3 * sum(count * 2 * b * m * k * c for (b, m, k, c), count in self.products[n].items()) / max(rates)

    def _products(self, n: int) -> dict[tuple[int, int, int, int], int]:
        """How often there is a product [b, m, k] by [b, k, c], from the runtime's own profile."""
        import tempfile

        import onnxruntime

        with tempfile.TemporaryDirectory() as folder:
            options = onnxruntime.SessionOptions()
            options.enable_profiling, options.profile_file_prefix = True, f"{folder}/profile"
            options.add_session_config_entry("session.disable_prepacking", "1")  # packed weights aren't in the profile
            session = onnxruntime.InferenceSession(str(self._way.bundle.extra / "scorer.onnx"), options)
            wanted = {given.name for given in session.get_inputs()}
            given = {name: v for name, v in self._way.inputs(self._way.ask(n), False).items() if name in wanted}
            session.run(None, given)
            events = json.loads(Path(session.end_profiling()).read_text())
        found: dict[tuple[int, int, int, int], int] = {}
        for event in events:
            facts = event.get("args", {})
            if facts.get("op_name") in ("MatMul", "FusedMatMul", "Gemm", "FusedGemm") and "output_type_shape" in facts:
                shapes = [next(iter(s.values())) for s in (*facts["input_type_shape"][:2], facts["output_type_shape"][0])]
                found[product(*shapes)] = found.get(product(*shapes), 0) + 1
        return found

    def _build(self, n: int) -> list[tuple[float, Callable[[], Any]]]:
        """Per larger product and library: its operations (of 8 in a row, against the cost of a call), and a call of it."""
        import onnx
        import onnxruntime

        rng, runs = np.random.default_rng(1), []
        total = sum(count * 2 * b * m * k * c for (b, m, k, c), count in self.products[n].items())
        for (b, m, k, c), count in self.products[n].items():
            if count * 2 * b * m * k * c < self.LARGE * total:
                continue
            x = rng.normal(size=(m, k)).astype(np.float32)
            kernels = [rng.normal(size=(k, c)).astype(np.float32) for _ in range(8)]
            runs.append((16.0 * m * k * c, _numpy_products(x, kernels)))
            helper = onnx.helper
            nodes = [helper.make_node("MatMul", ["x", f"w{i}"], [f"y{i}"]) for i in range(8)]
            outputs = [helper.make_tensor_value_info(f"y{i}", 1, [m, c]) for i in range(8)]
            weights = [onnx.numpy_helper.from_array(kernel, f"w{i}") for i, kernel in enumerate(kernels)]
            graph = helper.make_graph(nodes, "products", [helper.make_tensor_value_info("x", 1, [m, k])], outputs, weights)
            model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = self._way.threads
            session = onnxruntime.InferenceSession(model.SerializeToString(), options)
            runs.append((16.0 * m * k * c, _session_products(session, x)))
        return runs


def _numpy_products(x: Array, kernels: list[Array]) -> Callable[[], Any]:
    return lambda: [x @ kernel for kernel in kernels]


def _session_products(session: Any, x: Array) -> Callable[[], Any]:
    return lambda: session.run(None, {"x": x})


def product(one: list[int], other: list[int], out: list[int]) -> tuple[int, int, int, int]:
    """(b, m, k, c) of a product with these shapes, whichever of its factors are stored transposed or used for all b."""
    b, (m, c) = int(np.prod(out[:-2])), out[-2:]
    sizes = [int(np.prod(s)) * (b if len(s) < len(out) or np.prod(s[:-2]) == 1 else 1) for s in (one, other)]
    k = round((sizes[0] * sizes[1] / (b * m * c) / b) ** 0.5)
    return b, m, k, c


def export(way: Way) -> None:
    """The plain graph, as its users would get it from the SavedModel."""
    import tensorflow as tf
    import tf2onnx

    way.extra.mkdir(parents=True, exist_ok=True)
    folder = str(way.bundle.folder)
    converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["serving_default"])
    (way.extra / "rows.tflite").write_bytes(converter.convert())
    words = ["--saved-model", folder, "--signature_def", "serving_default", "--tag", "serve", "--opset", "17"]
    sys.argv = ["tf2onnx", *words, "--output", str(way.extra / "rows.onnx")]
    tf2onnx.convert.main()


WAYS: dict[str, Callable[[Way], Any]] = {
    "limit": Limit,
    "ours": ours,
    "ours_bfloat16": ours_bfloat16,
    "saved_model": saved_model,
    "xla": xla,
    "keras": keras,
    "onnx_plain": onnx_plain,
    "openvino_plain": openvino_plain,
    "litert_plain": litert_plain,
    "openvino_split": openvino_split,
}


def timed(made: Any, way: Way, n: int) -> float:
    """One call, in ms."""
    if isinstance(made, Limit):
        return made(n)
    asked = way.ask(n)
    start = time.perf_counter()
    made(asked)
    return (time.perf_counter() - start) * 1e3


def main() -> None:
    name, home, bundle, threads = sys.argv[1:]
    way = Way(Path(home), bundle, int(threads))
    if name == "export":
        return export(way)
    try:
        made = WAYS[name](way)
        if isinstance(made, Limit):
            products = {n: {str(p): count for p, count in found.items()} for n, found in made.products.items()}
            print(json.dumps({"products": products}), flush=True)
        else:
            first = made(way.ask(CHECKED, np.random.default_rng(7)))
            print(json.dumps({"predictions": np.asarray(first, float).tolist()}), flush=True)
    except Exception as error:
        print(json.dumps({"missing": f"{type(error).__name__}: {error}".splitlines()[0][:100]}), flush=True)
        return None
    for line in sys.stdin:
        n, calls = map(int, line.split())
        timed(made, way, n)
        print(json.dumps({"ms": [timed(made, way, n) for _ in range(calls)]}), flush=True)
    return None


if __name__ == "__main__":
    main()
