"""How likely each rank is in each slot under exploration, whatever stands above: exact, slot by slot.

A candidate of rank j (0: the best) waits with b of the j better ones before it. In a slot that n remain for, it is taken
with probability e/n + (1 - e)[b = 0], a better one with e b/n + (1 - e)[b > 0], else one that is worse. So the chances of
(still waiting, b) follow from slot to slot. A rank beyond the slots so far can't be the best remaining one: all such
ranks are alike.
"""

import numpy as np
from numpy.typing import NDArray

from data.exploration import propensity

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def slot_chances(eligible: Ints, share: Floats, slots: int) -> Floats:
    """P(rank j in slot s) [R, S, S + 1] with ``eligible`` candidates and a ``share`` of slots that explore [R]; the last
    column is that of every rank from S on. 0 in a slot that no candidate is left for."""
    shares, place = np.unique(share, return_inverse=True)
    kind = place.reshape(-1) * (int(eligible.max(initial=0)) + 1) + eligible
    table = np.zeros((int(kind.max(initial=0)) + 1, slots, slots + 1))
    for code in np.flatnonzero(np.bincount(kind)).tolist():
        which, n = divmod(code, int(eligible.max()) + 1)
        table[code] = _of_ranks(n, float(shares[which]), slots)
    return np.asarray(table[kind])


def _of_ranks(eligible: int, share: float, slots: int) -> Floats:
    ranks = np.arange(slots + 1)
    waiting = np.zeros((slots + 1, slots + 2))  # [rank, how many better ones remain]
    waiting[ranks, ranks] = 1.0
    better = np.arange(slots + 2)
    chances = np.zeros((slots, slots + 1))
    for slot in range(min(slots, eligible)):
        n = eligible - slot
        taken = propensity(better == 0, share, n)
        passed = np.where(better > 0, 1.0 - share + share * better / n, 0.0)  # a better one is taken
        chances[slot] = waiting @ taken
        stays = waiting * np.maximum(1.0 - taken - passed, 0.0)
        stays[:, :-1] += (waiting * passed)[:, 1:]
        waiting = stays
    chances[:, eligible:] = 0.0
    return chances
