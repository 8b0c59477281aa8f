"""Filling a slate slot by slot, some of them by lot, with propensities (DESIGN.md, Exploration). Pure functions.

    propensity = P(this video in this slot | candidates, slots above) = (1 - e)[it is the best remaining] + e / n

e is the share of slots that explore, n the number of eligible candidates that remain. Simulator, service and the
off-policy estimators share :func:`propensity`.
"""

from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Filled:
    """The slots [s]: which candidate, how likely it was, and whether the slot explored (which may have found the best
    one too)."""

    shown: NDArray[np.int64]
    propensity: NDArray[np.float64]
    explored: NDArray[np.bool_]


def propensity(best: Any, share: Any, remaining: Any) -> Any:
    """Of what stands in a slot: ``best`` is whether it is the best remaining one, ``remaining`` is n. Numbers or arrays."""
    return (1.0 - share) * best + share / remaining


def fill(best_first: NDArray[np.int64], eligible: int, slots: int, share: float, rng: np.random.Generator) -> Filled:
    """Fill up to ``slots`` slots.

    Args:
        best_first: the candidates [n], best first.
        eligible: how many of them may be drawn, from the front. The others have no finite score: they come last, in
            their order, which is certain.
        share: e.
    """
    count = min(slots, len(best_first))
    if share == 0.0:
        return Filled(best_first[:count], np.ones(count), np.zeros(count, bool))
    remaining, last = best_first[:eligible].tolist(), best_first[eligible:].tolist()
    drawn = min(count, len(remaining))
    explores, lots = rng.random(drawn) < share, rng.random(drawn)
    shown, chance = [], np.ones(count)
    for slot in range(drawn):
        n = len(remaining)
        place = min(int(lots[slot] * n), n - 1) if explores[slot] else 0
        chance[slot] = propensity(place == 0, share, n)
        shown.append(remaining.pop(place))
    explored = np.zeros(count, bool)
    explored[:drawn] = explores
    return Filled(np.array(shown + last[: count - drawn], np.int64), chance, explored)


def lots(request_id: str, salt: str) -> np.random.Generator:
    """The random numbers by which a request explores: the same for the same id and salt."""
    return np.random.default_rng(int.from_bytes(_digest(request_id, salt, "explore")))


def is_sampled(request_id: str, salt: str, share: float) -> bool:
    """Whether the request is one of the ``share`` whose candidates are all logged; known before it is ranked. Its one
    number is the digest itself: to set up a generator would cost ten times the rest."""
    return share > 0 and int.from_bytes(_digest(request_id, salt, "sample")[:8]) < share * 2.0**64


def _digest(request_id: str, salt: str, purpose: str) -> bytes:
    return blake2b(f"{purpose}\x00{salt}\x00{request_id}".encode(), digest_size=16).digest()
