"""One cell of a comparison: a design trained from nothing with one seed, judged on the reported days. A process of its own.

python -m training.compare_cell FOLDER     # reads FOLDER/spec.json, writes FOLDER/result.json last
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.config import Config, parse_config
from data.features.state import Encoded
from models.cost import flops_per_example, num_parameters
from models.indexes import IndexBuilder
from models.noise import derive
from models.step import Trainer
from training import measure
from training.baselines import PastRates
from training.bootstrap import Resamples
from training.compare_features import EncodedDays
from training.gates import gate_figures, places_of
from training.learner import Learner, new_trainer
from training.measure import Kind, Rows
from training.report import write_text

FORMAT = 1
COSINE_ROWS = 4096  # of a day, on which gradients are compared

Figures = dict[str, Any]
Floats = NDArray[np.float32]
OnDay = Callable[[date], None]


@dataclass(frozen=True)
class Spec:
    """All that a cell depends on. ``rows`` are the days of the base configuration, on whose targets all are judged."""

    whole: Config
    config: Config
    encoded: Path
    rows: Path
    train: tuple[date, ...]
    report: tuple[date, ...]
    bootstrap: int

    def save(self, path: Path) -> None:
        values = {
            "whole": self.whole.model_dump(mode="json"),
            "config": self.config.model_dump(mode="json"),
            "encoded": str(self.encoded),
            "rows": str(self.rows),
            "train": [str(day) for day in self.train],
            "report": [str(day) for day in self.report],
            "bootstrap": self.bootstrap,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))

    @classmethod
    def load(cls, path: Path) -> "Spec":
        values = json.loads(path.read_text())
        train, report = (tuple(date.fromisoformat(day) for day in values[key]) for key in ("train", "report"))
        whole, config = (parse_config(values[key], str(path)) for key in ("whole", "config"))
        return cls(whole, config, Path(values["encoded"]), Path(values["rows"]), train, report, values["bootstrap"])


@dataclass(frozen=True)
class Judged:
    """The reported rows, n of them, one day after the other."""

    targets: Floats
    user: NDArray[np.int64]
    slate: NDArray[np.int64]

    @classmethod
    def of(cls, rows: EncodedDays, days: Sequence[date], objectives: Sequence[str]) -> "Judged":
        found = [rows.encoded(day, objectives) for day in days]
        slates, taken = [], 0
        for day in found:
            own, codes = np.unique(day.slate, return_inverse=True)
            slates.append(codes.reshape(-1) + taken)
            taken += len(own)
        return cls(
            np.concatenate([day.targets for day in found]), np.concatenate([d.user for d in found]), np.concatenate(slates)
        )


def run_cell(folder: Path, alone: bool = False) -> None:
    """Train, judge and write a cell's files; ``result.json`` comes last and whole.

    Args:
        alone: this process is the cell's own, so that its memory is the cell's.
    """
    spec = Spec.load(folder / "spec.json")
    encoded = EncodedDays.open(spec.encoded)
    learner = new_learner(spec, encoded)
    cost = _Cost(learner.trainer)
    predictions, slate_predictions, use, cosines, losses = [], [], [], {}, {}
    for day in encoded.sizes:
        rows = encoded.encoded(day, spec.config.objective_names)
        if day in spec.report:
            at_row, utilisation = learner.trainer.predict(rows.blocks)
            slates = encoded.slate_blocks(day)
            predictions.append(at_row)
            slate_predictions.append(at_row if slates is None else learner.trainer.predict(slates)[0])
            use.append(utilisation * len(rows))
        if day in spec.train:
            losses[str(day)] = [_number(loss) for loss in cost.train(learner, day, rows)]
            cosines[str(day)] = gradient_cosines(learner, day, rows)
        learner.trainer.grow(encoded.sizes[day])
    at_row, at_slate = np.concatenate(predictions), np.concatenate(slate_predictions)
    base = EncodedDays.open(spec.rows)  # an objective that is not the base's has no rows to be judged on
    kinds = {objective.name: objective.kind for objective in spec.config.objectives if objective.name in base.objectives}
    columns = [k for k, name in enumerate(spec.config.objective_names) if name in kinds]
    judged = Judged.of(base, spec.report, list(kinds))
    objectives, samples = judge_rows(kinds, judged, at_row[:, columns], at_slate[:, columns], spec.bootstrap)
    _save_arrays(folder / "samples.npz", samples)
    same = {} if np.array_equal(at_row, at_slate) else {"slate_predictions": at_slate}
    _save_arrays(folder / "predictions.npz", {"predictions": at_row, **same})
    settings = spec.config.evaluation
    utilisation = np.sum(use, axis=0) / len(at_row)
    result = {
        "objectives": objectives,
        "gates": gate_figures(
            utilisation,
            spec.config.objective_names,
            settings.dead_expert,
            settings.collapsed_gate,
            places_of(spec.config),
        ),
        "gradient_cosines": cosines,
        "losses": losses,
        "cost": cost.figures(alone),
    }
    write_text(folder / "result.json", json.dumps(result, allow_nan=False))


def new_learner(spec: Spec, encoded: EncodedDays) -> Learner:
    """An untrained learner of a cell's network, whose features are encoded already."""
    state, count = encoded.state(spec.whole, spec.config), len(spec.config.objectives)
    last = encoded.sizes[max(encoded.sizes)]
    return Learner(spec.config, state, new_trainer(state, last), PastRates(count), IndexBuilder(spec.whole))


def judge_rows(
    kinds: Mapping[str, Kind], rows: Judged, at_row: Floats, at_slate: Floats, bootstrap: int
) -> tuple[Figures, Mapping[str, NDArray[Any]]]:
    """Figures of each objective, and the samples [R] of its metrics under the comparison's resamples of users.

    Args:
        kinds: each objective's, in the order of the columns.
    """
    resamples = Resamples(rows.user, bootstrap, seed=1)  # one seed for all cells: differences are paired
    figures: Figures = {}
    samples: dict[str, NDArray[Any]] = {}
    for k, (name, kind) in enumerate(kinds.items()):
        known = np.flatnonzero(~np.isnan(rows.targets[:, k]))
        own = Rows(
            rows.targets[known, k], at_row[known, k], at_slate[known, k], rows.slate[known], resamples.row_user[known]
        )
        found = measure.measure(kind, own, resamples)
        figures[name] = {"kind": kind, **measure.figures(found, own)}
        for metric in measure.COMPARED:
            drawn = found[metric].samples
            if drawn is not None:
                samples[f"{name}/{metric}"] = drawn
    return figures, samples


def gradient_cosines(learner: Learner, day: date, rows: Encoded) -> list[list[float | None]] | None:
    """The cosines [K, K] between the objectives' gradients on some of a day's rows, after it was trained on. None where
    there is one objective."""
    if rows.targets.shape[1] < 2:
        return None
    rng = np.random.default_rng(derive(learner.config.seed, "cosines", day.toordinal()))
    some = np.sort(rng.permutation(len(rows))[:COSINE_ROWS])
    found = learner.trainer.gradient_cosines(
        {side: block.take(some) for side, block in rows.blocks.items()}, rows.targets[some]
    )
    return [[_number(value) for value in row] for row in np.asarray(found)]


class _Cost:
    """What a cell costs: parameters, seconds in training, examples, memory."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer, self.seconds, self.examples = trainer, 0.0, 0

    def train(self, learner: Learner, day: date, rows: Encoded) -> NDArray[np.float64]:
        def count(examples: int, losses: Any) -> None:
            self.examples += examples

        began = time.perf_counter()
        losses = learner.train(day, rows, count)
        self.seconds += time.perf_counter() - began
        return losses

    def figures(self, alone: bool) -> Figures:
        network = self.trainer.network
        parameters = num_parameters(network)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 if alone else None
        return {
            "dense_parameters": parameters.dense,
            "embedding_parameters": parameters.embedding,
            "flops_per_example": flops_per_example(network),
            "train_seconds": self.seconds,
            "examples": self.examples,
            "examples_per_second": self.examples / self.seconds if self.seconds else None,
            "peak_bytes": peak,
            "threads": int(os.environ.get("OMP_NUM_THREADS", 0)) or os.cpu_count(),
        }


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _save_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    unfinished = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    with unfinished.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    unfinished.replace(path)


if __name__ == "__main__":
    run_cell(Path(sys.argv[1]), alone=True)
