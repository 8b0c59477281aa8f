"""Our side: the preset as a cell of `watchnext compare`, which is to the bit what `train` and `evaluate` make of it."""

import gc
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.quality_peers.table import Scores
from data.config import Config
from training.compare_cell import Spec, run_cell


def our_scores(
    config: Config, encoded: Path, train: Sequence[date], judge: Sequence[date], objectives: Sequence[str], seed: int
) -> Scores:
    """Predictions of the judged days after training on ``train``; ``encoded`` is the folder of both."""
    seeded = config.model_copy(update={"seed": seed})
    columns = [config.objective_names.index(name) for name in objectives]
    with TemporaryDirectory() as name:
        folder = Path(name)
        Spec(seeded, seeded, encoded, encoded, tuple(train), tuple(judge), 0).save(folder / "spec.json")
        run_cell(folder)
        with np.load(folder / "predictions.npz", allow_pickle=False) as found:
            at_row = found["predictions"][:, columns]
            at_slate = found["slate_predictions"][:, columns] if "slate_predictions" in found else at_row
    gc.collect()  # traced functions hold each other: they would stay
    return at_row, at_slate
