"""Slots filled with exploration, and their propensities (DESIGN.md, Exploration)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data import exploration
from data.simulator.entities import Ints


@dataclass(frozen=True)
class Slates:
    """What was shown [R, S]."""

    video: Ints
    propensity: NDArray[np.float64]
    is_exploration: NDArray[np.bool_]  # the slot explored (which may have found the best candidate too)


def fill_slots(
    candidates: Ints, score: NDArray[np.floating], explore: NDArray[np.floating], slots: int, rng: np.random.Generator
) -> Slates:
    """Fill each slot in turn: with probability ``explore`` [R] uniformly from the remaining candidates, else the best.

    Args:
        candidates: [R, C].
        score: [R, C], -inf where there is no candidate; at least ``slots`` others a row.

    ``propensity`` = P(this video in this slot | candidates, slots above) = (1 - e)[it is the best] + e / remaining.
    """
    rows = np.arange(len(candidates))
    left = score.copy()
    # The candidate with the highest of these is uniform over the remaining ones, whatever the slots above hold.
    lots = np.where(np.isneginf(score), np.float32(-1), rng.random(score.shape, np.float32))
    remaining = (lots >= 0).sum(axis=1)
    explores = rng.random((len(rows), slots), np.float32) < explore[:, None]
    video = np.empty((len(rows), slots), np.int64)
    propensity = np.empty((len(rows), slots))
    for slot in range(slots):
        best = left.argmax(axis=1)
        chosen = np.where(explores[:, slot], lots.argmax(axis=1), best)
        video[:, slot] = candidates[rows, chosen]
        propensity[:, slot] = exploration.propensity(chosen == best, explore, remaining - slot)
        left[rows, chosen], lots[rows, chosen] = -np.inf, -1
    return Slates(video, propensity, explores)
