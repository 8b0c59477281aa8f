"""The compiled scorer: scores one request's candidates without TensorFlow.

This file is imported by the serving process, the exporter writes what it reads (:mod:`models.export`). The runtime is
ONNX Runtime (docs/decisions/0005); ``benchmarks/serving_scorer.py`` has the comparison with other runtimes.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from data.errors import BundleError
from data.features.layout import Block
from models.calibration import Calibration, Predictions

SCORER_FILE = "scorer.onnx"
FACTS = "watchnext"
"""The key of the model's metadata under which the facts stand, as JSON."""
FORMAT = 1
ONE_ROW = ("user", "context")
"""The sides of which a request has one row; ``video`` and ``cross`` have one per candidate."""


class Scores(NamedTuple):
    """predictions [n, K] in natural units, calibrated (of an objective with ``given``: the conditional one); gates
    [n, K, E]."""

    predictions: Predictions
    gates: NDArray[np.float32]


def input_name(side: str, part: str) -> str:
    """What a side's ``ints`` or ``floats`` are called in the exported graphs."""
    return f"{side}_{part}"


class Scorer:
    """One network, ready to score. Any number of threads may call :meth:`score` at once.

    Attributes:
        objectives: the names of the K columns of predictions.
        experts: E, of the gates.
        calibration: what the network's predictions go through.
        split: what of the network is computed once a request, as :func:`models.export.split_facts` tells.
    """

    def __init__(
        self, session: onnxruntime.InferenceSession, facts: Mapping[str, Any], calibration: Calibration | None = None
    ) -> None:
        self._session = session
        self._widths: dict[str, dict[str, int]] = facts["widths"]
        self._inputs = {given.name for given in session.get_inputs()}
        self.objectives = tuple(facts["objectives"])
        self.experts = int(facts["experts"])
        self._outputs = ["predictions", "gates"] if self.experts else ["predictions"]
        self.split: Mapping[str, Any] = facts.get("split", {})
        self.calibration = calibration or Calibration.identity(self.objectives, "none was given")

    @classmethod
    def load(cls, folder: Path, threads: int = 1) -> "Scorer":
        """Load ``scorer.onnx`` of a bundle's ``assets.extra``, and the ``calibration.json`` beside it, if any.

        Args:
            threads: that one call may use.

        Raises:
            BundleError: a file is missing, damaged, or of another format.
        """
        path = folder / SCORER_FILE
        if not path.is_file():
            raise BundleError(f"the bundle has no scorer: {path} is missing")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            facts = json.loads(session.get_modelmeta().custom_metadata_map[FACTS])
        except Exception as error:  # the runtime has no exception of its own to name
            raise BundleError(f"cannot read the scorer {path}: {str(error).splitlines()[0]}") from None
        if facts.get("format") != FORMAT:
            raise BundleError(f"{path}: expected scorer format {FORMAT}, got {facts.get('format')!r}")
        return cls(session, facts, Calibration.load(folder, facts["objectives"]))

    def score(self, user: Block, context: Block, video: Block, cross: Block) -> Scores:
        """Score n candidates of one request. A candidate's scores don't depend on the others.

        Args:
            user: one row.
            context: one row.
            video: n rows.
            cross: n rows (of width 0 where the configuration has no such feature).

        Raises:
            ValueError: a block has other rows, columns or types than the network was trained with.
        """
        n = len(video)
        feed = {}
        for side, block in (("user", user), ("context", context), ("video", video), ("cross", cross)):
            rows = 1 if side in ONE_ROW else n
            for part, values, kind in (("ints", block.ints, np.int32), ("floats", block.floats, np.float32)):
                self._check(side, part, values, rows, np.dtype(kind))
                if (name := input_name(side, part)) in self._inputs:
                    feed[name] = values
        k = len(self.objectives)
        if n == 0:
            return Scores(np.zeros((0, k), np.float32), np.zeros((0, k, self.experts), np.float32))
        predictions, *gates = self._session.run(self._outputs, feed)
        return Scores(self.calibration.apply(predictions), gates[0] if gates else np.zeros((n, k, 0), np.float32))

    def _check(self, side: str, part: str, values: NDArray[Any], rows: int, kind: np.dtype[Any]) -> None:
        expected = (rows, self._widths[side][part])
        if values.shape != expected or values.dtype != kind:
            came = f"{values.dtype} of shape {values.shape}"
            raise ValueError(f"{side} {part}: expected {kind} of shape {expected}, got {came}")
