"""The forms that the split graph can have, and whether a table of the videos' part of the first layer would help.

    python benchmarks/serving_table.py [--rounds 40] [--threads 1] [--videos 8000]

8 experts [256, 128], 5 objectives, 264 inputs of which 56 the video's; random weights, the same in every form, in ONNX
Runtime. batched: all experts as one product a layer. alone: expert after expert. table: the videos' part computed once for
the catalogue [E, V, H], and gathered in the graph or by NumPy, for all experts or for each alone. Every call is a user and
uniformly drawn candidates not met before; one call to warm, then three that count, in turns. CPU milliseconds where one
thread computes, else wall clock.
Prints a table and writes ``$WATCHNEXT_HOME/benchmarks/serving_table.json``.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import onnx
import onnxruntime
from rich.console import Console
from rich.table import Table

from data.home import Home

EXPERTS, OBJECTIVES, HIDDEN, WIDTH, TOWER, USER, VIDEO = 8, 5, 256, 128, 64, 208, 56
CANDIDATES = (100, 500, 1000, 2000)
FLOAT, INT = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(1)


def drawn(*shape: int) -> Array:
    return RNG.normal(0, 0.1, shape).astype(np.float32)


W1, B1 = drawn(EXPERTS, USER + VIDEO, HIDDEN), drawn(EXPERTS, 1, HIDDEN)
W2, B2 = drawn(EXPERTS, HIDDEN, WIDTH), drawn(EXPERTS, 1, WIDTH)
GATES = drawn(USER + VIDEO, OBJECTIVES * EXPERTS)
TOWERS, TOWER_BIASES, HEADS = drawn(OBJECTIVES, WIDTH, TOWER), drawn(OBJECTIVES, 1, TOWER), drawn(OBJECTIVES, TOWER, 1)


class Graph:
    """An ONNX graph being written down."""

    def __init__(self, **inputs: tuple[int, list[int | str]]) -> None:
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._inputs = [onnx.helper.make_tensor_value_info(name, *facts) for name, facts in inputs.items()]

    def constant(self, values: Any) -> str:
        self._constants.append(onnx.numpy_helper.from_array(np.ascontiguousarray(values), f"c{len(self._constants)}"))
        return str(self._constants[-1].name)

    def add(self, kind: str, *given: str, out: int = 1, **attributes: Any) -> Any:
        names = [f"t{len(self._nodes)}_{i}" for i in range(out)]
        self._nodes.append(onnx.helper.make_node(kind, list(given), names, **attributes))
        return names[0] if out == 1 else names

    def session(self, result: str, threads: int) -> onnxruntime.InferenceSession:
        helper = onnx.helper
        out = [helper.make_tensor_value_info(result, FLOAT, None)]
        graph = helper.make_graph(self._nodes, "form", self._inputs, out, self._constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def above(self, first: str) -> str:
        """From the first layer's values of all experts [E, n, H] to their outputs, batched."""
        hidden = self.add("Relu", first)
        return str(self.add("Relu", self.add("Add", self.add("MatMul", hidden, self.constant(W2)), self.constant(B2))))

    def mixed(self, outputs: str, logits: str) -> str:
        """Gates, towers and heads: predictions [K, n, 1]."""
        shape = self.constant(np.array([-1, OBJECTIVES, EXPERTS]))
        gates = self.add("Softmax", self.add("Reshape", logits, shape), axis=-1)
        h = self.add("MatMul", gates, self.add("Transpose", outputs, perm=[1, 0, 2]))
        level = self.add("MatMul", self.add("Transpose", h, perm=[1, 0, 2]), self.constant(TOWERS))
        hidden = self.add("Relu", self.add("Add", level, self.constant(TOWER_BIASES)))
        return str(self.add("Sigmoid", self.add("MatMul", hidden, self.constant(HEADS))))

    def logits(self, video: str) -> str:
        return str(self.add("Add", video, self.add("MatMul", "user", self.constant(GATES[:USER]))))

    def fixed(self) -> str:
        """The user's part [E, 1, H]."""
        one = self.add("Unsqueeze", "user", self.constant(np.array([0])))
        return str(self.add("Add", self.add("MatMul", one, self.constant(W1[:, :USER])), self.constant(B1)))


PLAIN: dict[str, tuple[int, list[int | str]]] = {"user": (FLOAT, [1, USER]), "video": (FLOAT, ["n", VIDEO])}


def batched(threads: int) -> onnxruntime.InferenceSession:
    graph = Graph(**PLAIN)
    video = graph.add("Unsqueeze", "video", graph.constant(np.array([0])))
    first = graph.add("Add", graph.add("MatMul", video, graph.constant(W1[:, USER:])), graph.fixed())
    logits = graph.logits(graph.add("MatMul", "video", graph.constant(GATES[USER:])))
    return graph.session(graph.mixed(graph.above(first), logits), threads)


def alone(threads: int) -> onnxruntime.InferenceSession:
    graph, outputs = Graph(**PLAIN), []
    for w1, b1, w2, b2 in zip(W1, B1, W2, B2, strict=True):
        fixed = graph.add("Gemm", "user", graph.constant(w1[:USER]), graph.constant(b1))
        hidden = graph.add("Relu", graph.add("Gemm", "video", graph.constant(w1[USER:]), fixed))
        output = graph.add("Relu", graph.add("Gemm", hidden, graph.constant(w2), graph.constant(b2)))
        outputs.append(graph.add("Unsqueeze", output, graph.constant(np.array([0]))))
    logits = graph.logits(graph.add("MatMul", "video", graph.constant(GATES[USER:])))
    return graph.session(graph.mixed(graph.add("Concat", *outputs, axis=0), logits), threads)


def with_table(threads: int, videos: int, inside: bool) -> onnxruntime.InferenceSession:
    user = {"user": PLAIN["user"]}
    if inside:
        tables = {"table": (FLOAT, [EXPERTS, videos, HIDDEN]), "gates": (FLOAT, [videos, OBJECTIVES * EXPERTS])}
        graph = Graph(**user, **tables, rows=(INT, ["n"]))
        first, gates = graph.add("Gather", "table", "rows", axis=1), graph.add("Gather", "gates", "rows", axis=0)
    else:
        graph = Graph(**user, first=(FLOAT, [EXPERTS, "n", HIDDEN]), gates=(FLOAT, ["n", OBJECTIVES * EXPERTS]))
        first, gates = "first", "gates"
    return graph.session(graph.mixed(graph.above(graph.add("Add", first, graph.fixed())), graph.logits(gates)), threads)


def with_table_alone(threads: int, videos: int) -> onnxruntime.InferenceSession:
    """Gathered in the graph from one table for each expert, which then goes on alone."""
    tables = {f"table_{e}": (FLOAT, [videos, HIDDEN]) for e in range(EXPERTS)}
    tables["gates"] = (FLOAT, [videos, OBJECTIVES * EXPERTS])
    graph, outputs = Graph(user=PLAIN["user"], rows=(INT, ["n"]), **tables), []
    for e, (w1, b1, w2, b2) in enumerate(zip(W1, B1, W2, B2, strict=True)):
        fixed = graph.add("Gemm", "user", graph.constant(w1[:USER]), graph.constant(b1))
        hidden = graph.add("Relu", graph.add("Add", graph.add("Gather", f"table_{e}", "rows", axis=0), fixed))
        output = graph.add("Relu", graph.add("Gemm", hidden, graph.constant(w2), graph.constant(b2)))
        outputs.append(graph.add("Unsqueeze", output, graph.constant(np.array([0]))))
    logits = graph.logits(graph.add("Gather", "gates", "rows", axis=0))
    return graph.session(graph.mixed(graph.add("Concat", *outputs, axis=0), logits), threads)


def forms(threads: int, videos: int) -> dict[str, Callable[[Array, Array], Array]]:
    """Each form's call, of a user [1, 208] and rows of the catalogue [n], to predictions."""
    features = RNG.normal(size=(videos, VIDEO)).astype(np.float32)
    table, gates = np.matmul(features, W1[:, USER:]), features @ GATES[USER:]
    plain = {"batched": batched(threads), "alone": alone(threads)}
    inside, outside = with_table(threads, videos, True), with_table(threads, videos, False)
    held = {name: onnxruntime.OrtValue.ortvalue_from_numpy(values) for name, values in (("table", table), ("gates", gates))}

    def from_features(session: Any) -> Callable[[Array, Array], Array]:
        return lambda user, rows: session.run(None, {"user": user, "video": features[rows]})[0]  # type: ignore[no-any-return]

    def gathered_inside(user: Array, rows: Array) -> Array:
        given = {name: onnxruntime.OrtValue.ortvalue_from_numpy(values) for name, values in (("user", user), ("rows", rows))}
        return inside.run_with_ort_values(None, {**held, **given})[0].numpy()  # type: ignore[no-any-return]

    by_expert = with_table_alone(threads, videos)
    apart = {f"table_{e}": onnxruntime.OrtValue.ortvalue_from_numpy(table[e]) for e in range(EXPERTS)}
    apart["gates"] = held["gates"]

    def gathered_alone(user: Array, rows: Array) -> Array:
        given = {name: onnxruntime.OrtValue.ortvalue_from_numpy(values) for name, values in (("user", user), ("rows", rows))}
        return by_expert.run_with_ort_values(None, {**apart, **given})[0].numpy()  # type: ignore[no-any-return]

    def gathered_outside(user: Array, rows: Array) -> Array:
        given = {"user": user, "first": table.take(rows, axis=1), "gates": gates[rows]}
        return outside.run(None, given)[0]  # type: ignore[no-any-return]

    return {
        **{name: from_features(session) for name, session in plain.items()},
        "table, batched, gathered in the graph": gathered_inside,
        "table, batched, gathered by NumPy": gathered_outside,
        "table, alone, gathered in the graph": gathered_alone,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--videos", type=int, default=8_000)
    options = parser.parse_args()
    ways, clock = forms(options.threads, options.videos), time.thread_time if options.threads == 1 else time.perf_counter
    user, rows = drawn(1, USER), RNG.integers(0, options.videos, 500)
    expected = ways["batched"](user, rows)
    for name, way in ways.items():
        np.testing.assert_allclose(way(user, rows), expected, atol=1e-4, err_msg=name)
    times: dict[str, dict[int, list[float]]] = {name: {n: [] for n in CANDIDATES} for name in ways}
    for _ in range(options.rounds):
        for name, way in ways.items():
            for n in CANDIDATES:
                for call in range(4):
                    user, rows = drawn(1, USER), RNG.integers(0, options.videos, n)
                    began = clock()
                    way(user, rows)
                    if call:
                        times[name][n].append((clock() - began) * 1e3)
    figures = {name: {str(n): statistics.median(found) for n, found in each.items()} for name, each in times.items()}
    table = Table(title=f"{options.threads} thread(s), {options.videos:,} videos: milliseconds, median")
    for head in ("", *(f"{n:,}" for n in CANDIDATES)):
        table.add_column(head, justify="right" if head else "left")
    for name, each in figures.items():
        table.add_row(name, *(f"{ms:.2f}" for ms in each.values()))
    Console(width=None if sys.stdout.isatty() else 100).print(table)
    target = Home.from_environment().benchmarks
    target.mkdir(parents=True, exist_ok=True)
    (target / "serving_table.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
