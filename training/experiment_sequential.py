"""Intervals that may be looked at every day: an error-spending boundary on the looks' own covariance.

A user's total grows from look to look, so the looks' differences are correlated, and not as a sum of independent steps
would be: heavy users stay heavy. Their joint distribution is close to normal with a covariance that the users themselves
tell (training/experiment_effects.py). So of the error level, what may be spent by day d of D is fixed beforehand,

    level * (d / D)^2

(Lan & DeMets, Biometrika 1983 and, in calendar time, 1989; the power family of Kim & DeMets 1987; Jennison & Turnbull
2000, ch. 7 and 11 for correlated looks), and the boundary c_d of look d is where that much more of normal paths cross:

    P(|Z_1| < c_1, ..., |Z_{d-1}| < c_{d-1}, |Z_d| >= c_d) = level * ((d / D)^2 - ((d - 1) / D)^2)

The interval delta_d +- c_d error_d then holds the true difference on all days at once, with probability 1 - level. c_d
depends on nothing after day d and on nothing that was found, so a look that nobody took changes nothing.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from training.experiment_frame import Floats

Paths = NDArray[np.float32]

LEVEL = 0.05
DRAWS = 1 << 17
POWER = 2.0
_SEED = 20_001
_JITTER = 1e-9


def spending(level: float, looks: NDArray[np.int64], planned: int) -> Floats:
    """What of ``level`` may be spent by each of these looks (numbered from 0) of as many as are ``planned``."""
    return np.asarray(level * np.minimum((looks + 1) / planned, 1.0) ** POWER)


def paths(covariance: Floats, draws: int = DRAWS) -> Paths:
    """Normal paths [L, draws] of variance 1 with the correlations of ``covariance`` [L, L].

    The same draws every time, look by look: the paths up to a look don't depend on what comes after it.
    """
    error = np.sqrt(np.diag(covariance))
    correlation = covariance / np.outer(error, error) + _JITTER * np.eye(len(error))
    return np.asarray(np.linalg.cholesky(correlation).astype(np.float32) @ standard_normal(len(error), draws))


@lru_cache(maxsize=8)
def standard_normal(rows: int, draws: int) -> Paths:
    """[rows, draws], a stream a row."""
    streams = [np.random.Generator(np.random.PCG64(np.random.SeedSequence(_SEED, spawn_key=(i,)))) for i in range(rows)]
    return np.stack([rng.standard_normal(draws, np.float32) for rng in streams])


def boundaries(statistics: Paths, spent: Floats) -> Floats:
    """c [L] that paths of a statistic [L, draws] (such as |Z|) cross for the first time as often as ``spent`` [L] says.

    Infinite where nothing may be spent yet.
    """
    looks, draws = statistics.shape
    result, gone = np.full(looks, np.inf), np.zeros(draws, np.bool_)
    for look, values in enumerate(statistics):
        more = round(spent[look] * draws) - int(gone.sum())
        if more > 0:
            staying = np.where(gone, -np.inf, values)
            staying.partition([draws - more - 1, draws - more])
            result[look] = staying[draws - more - 1 : draws - more + 1].mean(dtype=np.float64)
            gone |= values >= result[look]
    return result


def crossed(statistics: Paths, bounds: Floats) -> float:
    """The share of paths [L, draws] that cross at any look."""
    return float((statistics >= bounds[:, None]).any(axis=0).mean())
