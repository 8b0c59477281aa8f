"""The rows that calibration is fitted on: a day's predictions of before it was trained on, and what came of them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.config import Config
from data.features.storage import load_array, save_arrays
from models.noise import derive

ROWS = "scored"
"""The folder of a learner (and of the bundle it was published as) that holds them, a folder a day."""


@dataclass(frozen=True)
class DayRows:
    """m rows of a day: their places among its encoded rows [m], raw predictions and targets [m, K], NaN where masked."""

    day: date
    place: NDArray[np.int32]
    predictions: NDArray[np.float32]
    targets: NDArray[np.float32]

    @classmethod
    def of(cls, day: date, predictions: NDArray[np.float32], targets: NDArray[np.float32], config: Config) -> "DayRows":
        """All rows of the day, or a seeded sample of ``calibration.rows_per_day``."""
        n, most = len(predictions), config.calibration.rows_per_day
        place = np.arange(n)
        if n > most:
            rng = np.random.default_rng(derive(config.seed, "calibration", day.toordinal()))
            place = np.sort(rng.choice(n, most, replace=False))
        return cls(day, place.astype(np.int32), predictions[place], targets[place])

    def closed(self, aligned: NDArray[np.float32]) -> "DayRows":
        """With what has become known of the day's rows (``aligned`` [n, K], NaN: nothing new)."""
        new = aligned[self.place]
        return DayRows(self.day, self.place, self.predictions, np.where(np.isnan(new), self.targets, new))

    def save(self, folder: Path) -> None:
        save_arrays({"place": self.place, "predictions": self.predictions, "targets": self.targets}, folder)

    @classmethod
    def load(cls, folder: Path) -> "DayRows":
        arrays = (load_array(folder / f"{name}.npy") for name in ("place", "predictions", "targets"))
        return cls(date.fromisoformat(folder.name.removeprefix("day=")), *arrays)


def newest(rows: Sequence[DayRows], days: int, waiting: Collection[date]) -> list[DayRows]:
    """The days worth keeping: of each objective the newest ones on which it is known, and those that still wait for
    labels."""
    kept = set(waiting)
    for k in range(rows[0].targets.shape[1] if rows else 0):
        kept |= {day.day for day in known(rows, k)[-days:]}
    return [day for day in rows if day.day in kept]


def known(rows: Sequence[DayRows], k: int) -> list[DayRows]:
    """The days, in order, on which something is known of an objective."""
    return [day for day in sorted(rows, key=lambda day: day.day) if not np.isnan(day.targets[:, k]).all()]
