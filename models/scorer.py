"""The compiled scorer: scores one request's candidates without TensorFlow.

This file is imported by the serving process, the exporter writes what it reads (:mod:`models.export`). The runtime is
ONNX Runtime (docs/decisions/0005); ``benchmarks/serving_scorer.py`` has the comparison with other runtimes.
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from data.errors import BundleError
from data.features.layout import Block
from models.bfloat16 import ONE_ROW, Bfloat16Session
from models.calibration import Calibration, Predictions

SCORER_FILE = "scorer.onnx"
VIDEOS_FILE = "scorer.videos.onnx"
"""The graph that encodes videos, where the scorer's own takes them encoded."""
ENCODED_BYTES = 1 << 24
"""What a catalogue's encoded rows may take, in each process,"""
ENCODED_ROWS = 2048
"""and how many are encoded at once: the runtime keeps the memory of that."""
FACTS = "watchnext"
"""The key of the model's metadata under which the facts stand, as JSON."""
FORMATS = (1, 2)
"""Those that are read; the last is written. In 1 the graph always takes the videos as they come."""


class Scores(NamedTuple):
    """predictions [n, K] in natural units, calibrated (of an objective with ``given``: the conditional one); gates
    [n, K, E]."""

    predictions: Predictions
    gates: NDArray[np.float32]


class Session(Protocol):
    """A graph that is ready to run."""

    def run(self, outputs: Sequence[str] | None, feed: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]: ...


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
        encoded: the bytes of a video once it is encoded; 0 where the graph takes videos as they come.
    """

    def __init__(
        self,
        session: Session,
        inputs: Collection[str],
        facts: Mapping[str, Any],
        calibration: Calibration | None = None,
        videos: onnxruntime.InferenceSession | None = None,
    ) -> None:
        self._session, self._inputs, self._videos = session, inputs, videos
        self._widths: dict[str, dict[str, int]] = facts["widths"]
        self._given: dict[str, dict[str, int]] = {**self._widths, "video": facts.get("encoded") or self._widths["video"]}
        self.encoded = 4 * sum(self._given["video"].values()) if videos else 0
        self.objectives = tuple(facts["objectives"])
        self.experts = int(facts["experts"])
        self._outputs = ["predictions", "gates"] if self.experts else ["predictions"]
        self.split: Mapping[str, Any] = facts.get("split", {})
        self.calibration = calibration or Calibration.identity(self.objectives, "none was given")

    @classmethod
    def load(cls, folder: Path, threads: int = 1, bfloat16: int = 0) -> "Scorer":
        """Load ``scorer.onnx`` of a bundle's ``assets.extra``, and the ``calibration.json`` beside it, if any.

        Args:
            threads: that one call may use.
            bfloat16: multiply in bfloat16 (:mod:`models.bfloat16`), for so many calls side by side; 0: in float32.

        Raises:
            BundleError: a file is missing, damaged, or of another format.
            WatchNextError: OpenVINO is not installed.
        """
        path = folder / SCORER_FILE
        session, facts = _read(path, threads)
        inputs = {given.name for given in session.get_inputs()}
        if facts.get("format") not in FORMATS:
            known = " or ".join(map(str, FORMATS))
            raise BundleError(f"{path}: expected scorer format {known}, got {facts.get('format')!r}")
        videos = _read(folder / VIDEOS_FILE, 1)[0] if facts.get("encoded") else None
        chosen = Bfloat16Session(path, threads, bfloat16) if bfloat16 else session
        return cls(chosen, inputs, facts, Calibration.load(folder, facts["objectives"]), videos)

    def keeping(self, videos: int) -> Callable[[Block], Block]:
        """How a catalogue of so many is kept: encoded, unless that takes too much memory."""
        return self.encode if videos * self.encoded <= ENCODED_BYTES else as_it_comes

    def encode(self, video: Block) -> Block:
        """n videos as the graph takes them, which :meth:`score` takes too: the floats are their part of the network's input,
        the embeddings looked up."""
        if self._videos is None:
            return video
        for part, values, kind in (("ints", video.ints, np.int32), ("floats", video.floats, np.float32)):
            _check("video", part, values, (len(video), self._widths["video"][part]), np.dtype(kind))
        named = {input_name("video", "ints"): video.ints, input_name("video", "floats"): video.floats}
        feed = {given.name: named[given.name] for given in self._videos.get_inputs()}
        parts = [
            self._videos.run(None, {name: values[start : start + ENCODED_ROWS] for name, values in feed.items()})[0]
            for start in range(0, max(len(video), 1), ENCODED_ROWS)
        ]
        floats = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return Block(video.ints[:, : self._given["video"]["ints"]], floats)

    def score(self, user: Block, context: Block, video: Block, cross: Block) -> Scores:
        """Score n candidates of one request. A candidate's scores don't depend on the others.

        Args:
            user: one row.
            context: one row.
            video: n rows, as they come or out of :meth:`encode`.
            cross: n rows (of width 0 where the configuration has no such feature).

        Raises:
            ValueError: a block has other rows, columns or types than the network was trained with.
        """
        n = len(video)
        if self._videos is not None and video.floats.shape[1] == self._widths["video"]["floats"]:
            video = self.encode(video)
        feed = {}
        for side, block in (("user", user), ("context", context), ("video", video), ("cross", cross)):
            rows = 1 if side in ONE_ROW else n
            for part, values, kind in (("ints", block.ints, np.int32), ("floats", block.floats, np.float32)):
                _check(side, part, values, (rows, self._given[side][part]), np.dtype(kind))
                if (name := input_name(side, part)) in self._inputs:
                    feed[name] = values
        k = len(self.objectives)
        if n == 0:
            return Scores(np.zeros((0, k), np.float32), np.zeros((0, k, self.experts), np.float32))
        predictions, *gates = self._session.run(self._outputs, feed)
        return Scores(self.calibration.apply(predictions), gates[0] if gates else np.zeros((n, k, 0), np.float32))


def as_it_comes(video: Block) -> Block:
    return video


def _read(path: Path, threads: int) -> tuple[onnxruntime.InferenceSession, dict[str, Any]]:
    """A graph, and the facts that are in it."""
    if not path.is_file():
        raise BundleError(f"the bundle has no scorer: {path} is missing")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return session, json.loads(session.get_modelmeta().custom_metadata_map[FACTS])
    except Exception as error:  # the runtime has no exception of its own to name
        raise BundleError(f"cannot read the scorer {path}: {str(error).splitlines()[0]}") from None


def _check(side: str, part: str, values: NDArray[Any], expected: tuple[int, int], kind: np.dtype[Any]) -> None:
    if values.shape != expected or values.dtype != kind:
        came = f"{values.dtype} of shape {values.shape}"
        raise ValueError(f"{side} {part}: expected {kind} of shape {expected}, got {came}")
