"""What a bundle's predictions of some days are worth: the :class:`Scored` rows of a day, and :func:`evaluate`."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.columns import Strings
from data.config import Config
from models.calibration import Predictions
from training import measure
from training.baselines import CHAMPION
from training.bootstrap import Resamples
from training.gates import gate_figures, places_of, row_figures
from training.measure import Rows

SLICE_VALUES = 10  # of a slice column: the most frequent ones, the rest together
_PER_ROW = ("predictions", "slate_predictions", "targets", "user", "slate", "new_user", "new_video")


@dataclass(frozen=True)
class Scored:
    """The n rows of one day with their predictions of K objectives, natural units, before training on the day.

    Predictions are as they are served: calibrated. ``raw_predictions`` are those of the network where they differ.
    ``slate_predictions`` are with features as of the slate's first row. ``targets`` are NaN where masked; an objective
    with ``given`` is conditional, and so are its targets. ``user`` is a number that differs between users, those that
    no vocabulary knows too, and stays the same from day to day. ``slate`` differs between the day's slates. A
    baseline's rows are NaN where it is undefined; ``slate_baselines`` holds those whose features move within a slate
    (a champion's), the others are taken to be the same at slate time. ``utilisation`` [K, E] are mean gate weights.
    """

    day: date
    predictions: Predictions  # [n, K]
    slate_predictions: Predictions  # [n, K]
    targets: NDArray[np.float32]  # [n, K]
    user: NDArray[np.int64]  # [n]
    slate: NDArray[np.int64]  # [n]
    is_exploration: NDArray[np.bool_] | None  # [n]; None where it is not logged
    new_user: NDArray[np.bool_]  # [n]
    new_video: NDArray[np.bool_]  # [n]
    slices: Mapping[str, Strings]
    baselines: Mapping[str, Predictions]  # [n, K]
    utilisation: NDArray[np.float64]  # [K, E]
    slate_baselines: Mapping[str, Predictions] = field(default_factory=dict)  # [n, K]
    raw_predictions: NDArray[np.float32] | None = None  # [n, K]
    gate_entropy: NDArray[np.float64] | None = None  # [K]: the rows' mean, in nats
    live_units: NDArray[np.bool_] | None = None  # [E, H]: above 0 for some row; without ReLU units [0, 0]
    gradient_cosines: NDArray[np.float64] | None = None  # [K, K]: see Trainer.gradient_cosines; None where not asked for

    def __post_init__(self) -> None:
        n, k = self.predictions.shape
        matrices = [self.slate_predictions, self.targets, self.raw, *self.baselines.values(), *self.slate_baselines.values()]
        columns = [getattr(self, name) for name in ("user", "slate", "new_user", "new_video")]
        columns += [*self.slices.values(), *([] if self.is_exploration is None else [self.is_exploration])]
        if any(matrix.shape != (n, k) for matrix in matrices) or any(len(column) != n for column in columns):
            raise ValueError(f"scored rows of {self.day}: expected {n} rows and {k} objectives throughout")
        if len(self.utilisation) != k:
            raise ValueError(
                f"scored rows of {self.day}: expected utilisation of {k} objectives, got {len(self.utilisation)}"
            )

    def __len__(self) -> int:
        return len(self.predictions)

    @property
    def raw(self) -> Predictions:
        """The network's own predictions [n, K]."""
        return self.predictions if self.raw_predictions is None else self.raw_predictions

    def save(self, path: Path) -> None:
        """Write one ``.npz`` (arrays only); it appears under its name when it is whole."""
        arrays: dict[str, NDArray[Any]] = {name: getattr(self, name) for name in _PER_ROW}
        arrays["utilisation"] = self.utilisation
        for name in ("is_exploration", "raw_predictions", "gradient_cosines", "gate_entropy", "live_units"):
            if getattr(self, name) is not None:
                arrays[name] = getattr(self, name)
        for kind in ("baselines", "slate_baselines"):
            arrays |= {f"{kind}/{name}": array for name, array in getattr(self, kind).items()}
        arrays |= {f"slices/{name}": column.codes for name, column in self.slices.items()}
        texts = {"day": self.day.isoformat(), "slices": {name: list(c.values) for name, c in self.slices.items()}}
        arrays["texts"] = np.frombuffer(json.dumps(texts).encode(), np.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".tmp-{path.name}")
        with unfinished.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)

    @staticmethod
    def rows(path: Path) -> int:
        """How many a file has that :meth:`save` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            return len(arrays["new_user"])

    @classmethod
    def load(cls, path: Path) -> "Scored":
        """Read what :meth:`save` wrote. Raises OSError, or ValueError on a file that is not that."""
        with np.load(path, allow_pickle=False) as arrays:
            texts = json.loads(arrays["texts"].tobytes())
            groups: dict[str, dict[str, NDArray[Any]]] = {"baselines": {}, "slate_baselines": {}, "slices": {}}
            for key in arrays.files:
                kind, _, name = key.partition("/")
                if name:
                    groups[kind][name] = arrays[key]
            return cls(
                day=date.fromisoformat(texts["day"]),
                slices={name: Strings(groups["slices"][name], values) for name, values in texts["slices"].items()},
                baselines=groups["baselines"],
                slate_baselines=groups["slate_baselines"],
                utilisation=arrays["utilisation"],
                is_exploration=arrays["is_exploration"] if "is_exploration" in arrays.files else None,
                raw_predictions=arrays["raw_predictions"] if "raw_predictions" in arrays.files else None,
                gradient_cosines=arrays["gradient_cosines"] if "gradient_cosines" in arrays.files else None,
                gate_entropy=arrays["gate_entropy"] if "gate_entropy" in arrays.files else None,
                live_units=arrays["live_units"] if "live_units" in arrays.files else None,
                **{name: arrays[name] for name in _PER_ROW},
            )


def beside(mine: Scored, rival: Scored) -> Scored:
    """The rows of a bundle with the predictions of the champion, made of the same rows, as a baseline."""
    return replace(
        mine,
        baselines={**mine.baselines, CHAMPION: rival.predictions},
        slate_baselines={**mine.slate_baselines, CHAMPION: rival.slate_predictions},
    )


def evaluate(scored: Sequence[Scored], config: Config) -> dict[str, Any]:
    """Figures of these days, JSON-ready.

    ``objectives`` (the whole window), ``by_day`` and ``slices`` map to the figures of :func:`training.measure.figures`,
    each with its ``baselines``, all of calibrated predictions; ``raw`` has ECE, log loss and predicted over actual of the
    network's own. The window's have their ``calibration``, and ``raw_calibration``, too. Undefined is null, with a
    reason under ``undefined``. Intervals are 95%, over ``config.evaluation.bootstrap`` resamples of users, seeded by the
    configuration.
    """
    window = _Window(scored, config)
    whole = window.objectives(np.ones(window.rows, bool), with_calibration=True)
    return {
        "days": [day.day.isoformat() for day in window.days],
        "rows": window.rows,
        "users": window.resamples.users,
        "bootstrap": {"resamples": config.evaluation.bootstrap, "by": "user", "level": 0.95, "seed": config.seed},
        "objectives": whole,
        "by_day": {day.day.isoformat(): window.objectives(window.day_of_row == i) for i, day in enumerate(window.days)},
        "slices": window.slices(),
        "gates": window.gates(),
        **_gradient_cosines(window.days),
    }


def _gradient_cosines(days: Sequence[Scored]) -> dict[str, Any]:
    """By day the matrix [K, K], its rows and columns the objectives in their order, null where undefined; nothing where no
    day has one."""
    known = {day.day.isoformat(): day.gradient_cosines.tolist() for day in days if day.gradient_cosines is not None}
    by_day = {day: [[None if math.isnan(x) else x for x in row] for row in matrix] for day, matrix in known.items()}
    return {"gradient_cosines": by_day} if by_day else {}


class _Window:
    """The days' rows one after the other, and the users' resamples that all figures share."""

    def __init__(self, scored: Sequence[Scored], config: Config) -> None:
        self.config = config
        self.days = sorted(scored, key=lambda day: day.day)
        self.rows = sum(len(day) for day in self.days)
        self.day_of_row = np.repeat(np.arange(len(self.days)), [len(day) for day in self.days])
        k = len(config.objectives)
        for day in self.days:
            if day.predictions.shape[1] != k:
                raise ValueError(f"{day.day} was scored on {day.predictions.shape[1]} objectives, the configuration has {k}")
        self.targets = self._join("targets", np.zeros((0, k), np.float32))
        self.predictions = self._join("predictions", np.zeros((0, k), np.float32))
        self.raw = self._join("raw", np.zeros((0, k), np.float32))
        self.is_raw = all(day.raw is day.predictions for day in self.days)
        self.slate_predictions = self._join("slate_predictions", np.zeros((0, k), np.float32))
        self.resamples = Resamples(self._join("user", np.zeros(0, np.int64)), config.evaluation.bootstrap, config.seed)
        self.slate = _slates(self.days)
        names = dict.fromkeys(name for day in self.days for name in day.baselines)
        self.baselines = {name: (self._baseline(name, False), self._baseline(name, True)) for name in names}

    def objectives(self, rows: NDArray[np.bool_], with_calibration: bool = False) -> dict[str, Any]:
        """Figures of every objective on these rows (mask [rows])."""
        return {name: self._objective(k, rows, with_calibration) for k, name in enumerate(self.config.objective_names)}

    def _objective(self, k: int, mask: NDArray[np.bool_], with_calibration: bool) -> dict[str, Any]:
        kind = self.config.objectives[k].kind
        defined = np.flatnonzero(mask & ~np.isnan(self.targets[:, k]))
        rows = Rows(
            self.targets[defined, k],
            self.predictions[defined, k],
            self.slate_predictions[defined, k],
            self.slate[defined],
            self.resamples.row_user[defined],
        )
        raw = rows if self.is_raw else replace(rows, predictions=self.raw[defined, k])
        model = measure.measure(kind, rows, self.resamples)
        result = {"kind": kind, **measure.figures(model, rows), "raw": measure.raw_figures(kind, raw), "baselines": {}}
        for name, (row_time, slate_time) in self.baselines.items():
            theirs = rows.scored_by(row_time[defined, k], slate_time[defined, k])
            has = ~np.isnan(theirs.predictions) & ~np.isnan(theirs.slate_predictions)
            ours = model if has.all() else measure.measure(kind, rows.take(has), self.resamples)
            theirs = theirs.take(has)
            baseline = measure.measure(kind, theirs, self.resamples)
            result["baselines"][name] = measure.comparison(ours, baseline, theirs)
        if with_calibration:
            result["calibration"] = measure.calibration(kind, rows, self.resamples)
            moved = not np.array_equal(raw.predictions, rows.predictions)
            result["raw_calibration"] = measure.calibration(kind, raw, self.resamples) if moved else []
        return result

    def slices(self) -> dict[str, Any]:
        """Figures of new users, of new videos, of exploration, and by the configured columns' values."""
        result: dict[str, Any] = {}
        for name in ("new_user", "new_video"):
            result[name] = {"new": self.objectives(self._join(name, np.zeros(0, bool)))}
        if any(day.is_exploration is not None for day in self.days):
            result["exploration"] = {"exploration": self.objectives(np.concatenate([_flag(day) for day in self.days]))}
        for column in self.config.evaluation.slices:
            result[column] = {value: self.objectives(mask) for value, mask in self._values(column)}
        return result

    def _values(self, column: str) -> list[tuple[str, NDArray[np.bool_]]]:
        """The most frequent values of a slice column with their rows, then "(other)" and, for null, "(none)"."""
        values: dict[str, int] = {}
        parts = []
        for day in self.days:
            texts = day.slices.get(column, Strings(np.full(len(day), -1, np.int32), []))
            parts.append(texts.map(lambda text: values.setdefault(text, len(values)), -1))
        codes = np.concatenate(parts) if parts else np.zeros(0, np.int32)
        counts = np.bincount(codes[codes >= 0], minlength=len(values))
        texts_by_code = list(values)
        often = sorted(range(len(values)), key=lambda code: (-counts[code], texts_by_code[code]))[:SLICE_VALUES]
        result = [(texts_by_code[code], codes == code) for code in often]
        rest = (codes >= 0) & ~np.isin(codes, often)
        return result + [(text, mask) for text, mask in (("(other)", rest), ("(none)", codes < 0)) if mask.any()]

    def gates(self) -> dict[str, Any]:
        """The gates' health over the window, days weighted by their rows."""
        use = np.full((len(self.config.objectives), 0), np.nan)
        filled = [day for day in self.days if len(day)]
        if filled:
            use = np.average([day.utilisation for day in filled], axis=0, weights=[len(day) for day in filled])
        settings, names = self.config.evaluation, self.config.objective_names
        known = gate_figures(use, names, settings.dead_expert, settings.collapsed_gate, places_of(self.config))
        asked = [day for day in filled if day.gate_entropy is not None]
        entropy = np.average([d.gate_entropy for d in asked], axis=0, weights=[len(d) for d in asked]) if asked else None
        live = {str(d.day): (len(d), d.live_units) for d in filled if d.live_units is not None}
        rows = row_figures(entropy, live, names, use.shape[1])
        return {**known, **rows, "undefined": {**known["undefined"], **rows["undefined"]}}

    def _join(self, name: str, empty: NDArray[Any]) -> NDArray[Any]:
        return np.concatenate([empty, *(getattr(day, name) for day in self.days)])

    def _baseline(self, name: str, slate_time: bool) -> Predictions:
        parts = [np.zeros((0, len(self.config.objectives)), np.float32)]
        for day in self.days:
            array = day.baselines.get(name, np.full(day.predictions.shape, np.nan, np.float32))
            parts.append(day.slate_baselines.get(name, array) if slate_time else array)
        return np.concatenate(parts)


def _slates(days: Sequence[Scored]) -> NDArray[np.int64]:
    """Slate numbers that differ between days too [n]."""
    parts, taken = [np.zeros(0, np.int64)], 0
    for day in days:
        own, codes = np.unique(day.slate, return_inverse=True)
        parts.append(codes.reshape(-1) + taken)
        taken += len(own)
    return np.concatenate(parts)


def _flag(day: Scored) -> NDArray[np.bool_]:
    return np.zeros(len(day), bool) if day.is_exploration is None else day.is_exploration
