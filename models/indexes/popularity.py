"""Popularity: positives and impressions of each video, the older the less."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DAY_MS = 86_400_000
STRENGTH = 20.0
"""Impressions at the mean rate that every video is given beforehand."""


@dataclass
class Decayed:
    """Sums per video in which what happened ``half_life_days`` ago counts half.

    ``positives`` and ``impressions`` [v] are as of the time ``as_of`` (ms): sum of 2^(-(as_of - t) / half-life).
    """

    half_life_days: float
    positives: NDArray[np.float64]
    impressions: NDArray[np.float64]
    as_of: int

    def add(self, videos: NDArray[np.int64], positive: NDArray[np.bool_], timestamps: NDArray[np.int64], size: int) -> None:
        """Take in impressions [n] of ``videos`` (each below ``size``)."""
        now = max(self.as_of, int(timestamps.max()))
        fade = 0.5 ** ((now - self.as_of) / (self.half_life_days * DAY_MS))
        weights = np.exp2((timestamps - now) / (self.half_life_days * DAY_MS))
        for name, kept in (("positives", positive), ("impressions", slice(None))):
            sums = np.bincount(videos[kept], weights[kept], size).astype(np.float64)  # of nothing they are integers
            old = getattr(self, name)
            sums[: len(old)] += old * fade
            setattr(self, name, sums)
        self.as_of = now


def popularity(positives: NDArray[np.float64], impressions: NDArray[np.float64]) -> NDArray[np.float32]:
    """How many liked it, and how readily [v]: log(1 + P) + log(r / r0).

    P are the video's decayed positives, r = (P + s r0) / (I + s) its rate smoothed with ``STRENGTH`` s, r0 the rate of
    all videos. A video without impressions has 0; one much shown and little liked is below it.
    """
    mean = positives.sum() / max(impressions.sum(), 1e-9)
    if mean <= 0:
        return np.zeros(len(positives), np.float32)
    rate = (positives + STRENGTH * mean) / (impressions + STRENGTH)
    return np.asarray(np.log1p(positives) + np.log(rate / mean), np.float32)
