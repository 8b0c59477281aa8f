"""What a model must beat: the rate in the data before the day, and each video's own."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.metrics import Floats

CONSTANT = "constant"
VIDEO_RATE = "video_rate"
CHAMPION = "champion"


class PastRates:
    """Means of the targets of the days added so far, overall and by video.

    Use, for each day in order: :meth:`baselines` for its rows, then :meth:`add` its targets; so a day never sees
    itself. For a regression the rate is the mean in natural units.

    Args:
        objectives: K.
        strength: a video's mean is smoothed towards the overall one: (sum + mean * strength) / (count + strength).
    """

    def __init__(self, objectives: int, strength: float = 20.0) -> None:
        self.strength = strength
        self._sums: Floats = np.zeros((0, objectives))
        self._counts: Floats = np.zeros((0, objectives))
        self._total: Floats = np.zeros(objectives)
        self._rows: Floats = np.zeros(objectives)

    def add(self, video: NDArray[np.int64], targets: NDArray[Any]) -> None:
        """Take in rows: ``video`` [n], a number of the video that stays the same from day to day, -1 unknown;
        ``targets`` [n, K], NaN where masked."""
        known = ~np.isnan(targets)
        values = np.where(known, targets, 0).astype(np.float64)
        self._total += values.sum(axis=0)
        self._rows += known.sum(axis=0)
        named = video >= 0
        self._grow(int(video.max(initial=-1)) + 1)
        for k in range(targets.shape[1]):
            self._sums[:, k] += np.bincount(video[named], values[named, k], len(self._sums))
            self._counts[:, k] += np.bincount(video[named], known[named, k], len(self._counts))

    @property
    def means(self) -> Floats:
        """The overall means so far [K]; NaN for an objective without a target yet."""
        means = np.full(len(self._total), np.nan)
        np.divide(self._total, self._rows, out=means, where=self._rows > 0)
        return means

    def constant(self, n: int) -> NDArray[np.float32]:
        """The overall means for n rows [n, K]."""
        return np.tile(self.means.astype(np.float32), (n, 1))

    def video(self, video: NDArray[np.int64]) -> NDArray[np.float32]:
        """Each row's video's smoothed mean [n, K]; the overall mean for a video not met yet (or -1)."""
        met = (video >= 0) & (video < len(self._sums))
        sums, counts = np.zeros((2, len(video), len(self._total)))
        sums[met], counts[met] = self._sums[video[met]], self._counts[video[met]]
        rate = (sums + self.means * self.strength) / (counts + self.strength)
        return rate.astype(np.float32)

    def baselines(self, video: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
        """Both baselines for rows of a day that has not been added."""
        return {CONSTANT: self.constant(len(video)), VIDEO_RATE: self.video(video)}

    def save(self, path: Path) -> None:
        """Write one ``.npz`` of arrays."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            np.savez(file, sums=self._sums, counts=self._counts, total=self._total, rows=self._rows)

    @classmethod
    def load(cls, path: Path) -> "PastRates":
        """Read what :meth:`save` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            rates = cls(len(arrays["total"]))
            rates._sums, rates._counts = arrays["sums"], arrays["counts"]
            rates._total, rates._rows = arrays["total"], arrays["rows"]
        return rates

    def _grow(self, size: int) -> None:
        if size > len(self._sums):
            room = ((0, size - len(self._sums)), (0, 0))
            self._sums, self._counts = np.pad(self._sums, room), np.pad(self._counts, room)
