"""The compiled scorer's graph with its matrix products in bfloat16, run by OpenVINO (docs/decisions/0024).

OpenVINO is no part of the serving install: ``requirements/bfloat16.txt`` has it. Weights, inputs and outputs stay float32;
the products' operands are rounded to bfloat16 (8 bits of mantissa), their sums are not.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from queue import LifoQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.errors import BundleError, WatchNextError

ONE_ROW = ("user", "context")
"""The sides of which a request has one row, with which the names of their inputs begin; ``video`` and ``cross`` have one per
candidate."""


def supported() -> bool:
    """Whether this processor multiplies in bfloat16. Raises WatchNextError where OpenVINO is missing."""
    return "BF16" in _openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class Bfloat16Session:
    """Stands where the scorer has a session of ONNX Runtime. Any number of threads may call :meth:`run` at once.

    Args:
        path: the graph (ONNX).
        threads: that one call may use.
        calls: that may run side by side; more wait.
        precision: of the products, by OpenVINO's names; ``f32`` is for tests.

    Raises:
        BundleError: OpenVINO can't run the graph.
        WatchNextError: it is not installed.
    """

    def __init__(self, path: Path, threads: int = 1, calls: int = 1, precision: str = "bf16") -> None:
        settings = {
            "INFERENCE_PRECISION_HINT": precision,
            "NUM_STREAMS": 1,  # it runs in the caller's thread; of more, each has its own, which must be woken
            "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": False,  # several workers would all pin theirs to the first cores
        }
        core = _openvino().Core()
        self._idle: LifoQueue[Any] = LifoQueue()
        try:
            model = core.read_model(path)
            rows = {port.get_any_name(): port.get_partial_shape() for port in model.inputs}
            for name, shape in rows.items():
                shape[0] = 1 if name.startswith(ONE_ROW) else -1
            model.reshape(rows)
            for _ in range(calls):
                self._idle.put(core.compile_model(model, "CPU", settings).create_infer_request())
        except RuntimeError as error:
            raise BundleError(f"OpenVINO can't run {path}: {str(error).strip().splitlines()[-1]}") from None

    def run(self, outputs: Sequence[str], feed: Mapping[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        request = self._idle.get()
        try:
            found = request.infer(dict(feed), share_inputs=True)
            return [found[name].copy() for name in outputs]
        finally:
            self._idle.put(request)


def _openvino() -> Any:
    try:
        import openvino
    except ImportError:
        raise WatchNextError("bfloat16 needs OpenVINO: install requirements/bfloat16.txt") from None
    return openvino
