"""What other ranking weights would have brought, from requests served with the present ones: off-policy estimates.

A logged request x has its candidates, their predictions and the slate a_1..a_S that was drawn with P0(a_s | x, a_1..a_(s-1))
(DESIGN.md, Exploration). New weights give another order and so another P, known exactly. Wanted is the slate's value
V = E_x E_P [sum_s r_s], r_s being slot s's outcome.

**Assumption** (``above``): the outcome of a slot depends on the request, its video and the slots above it, not on those
below; users look from the top (McInerney et al. 2020, RIPS). With w_s the product over t <= s of P(a_t | ..) / P0(a_t | ..)

    E_P0 [w_s r_s | x] = sum over a_1..a_s of P0(a_1..a_s | x) w_s E[r_s | x, a_1..a_s] = E_P [r_s | x]

so the sum over slots is unbiased wherever P0 > 0, as it is for requests that explore. The ratio of slot s alone would not
be: it leaves the slots above as they were logged, and counts a video that the new order puts first in every slot down to
where it was shown. ``slot`` assumes more, that r_s depends on its video and its place alone (Li et al. 2018), and so needs
only the ratio of P(a_s in slot s): far smaller weights, but wrong where a video takes interest from the next one.

**SNIPS** (Swaminathan & Joachims 2015), slot by slot, as each slot's weights are of another size:

    mu_s = sum_r w_rs r_rs / sum_r w_rs        V = sum_s (share of requests with a slot s) mu_s

**DR** (Dudik et al. 2011; for slates Kiyohara et al. 2022). q_s(a) = c_s p(given) E[y | given] of the logged predictions,
with c_s the ratio of outcomes to predictions of what was logged in slot s (how much of it is looked at). As q does not
depend on the slots above, the recursion of sequential DR (Jiang & Li 2016) is

    V = mean_r sum_s sum_a P(a in slot s | x_r) q_s(a) + sum_s share_s (sum_r w_rs (r_rs - q_s(a_rs)) / sum_r w_rs)

P(a in slot s) is exact (training/slot_chances.py). Wrong predictions cost width, not truth.

**Clipping**: a weight above sqrt(R) times the slot's mean counts as much (Ionides 2008: the bias vanishes as R grows). The
share of weights clipped and the share of their sum that is cut are reported. **Effective sample size** of a slot:
(sum w)^2 / sum w^2 before clipping, or what is to be expected of it where that is less (training/off_policy_support.py); the
estimate's is its worst slot's. Below 200 there is none, nor below 50 of the users' sums, which the intervals are made of.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.ranking import Ranking, combine, expected
from training.off_policy_intervals import LeftOut, left_out
from training.off_policy_support import squares
from training.off_policy_weights import Floats, Given, Slates, Target, foreseen, weights

LEAST_EFFECTIVE = 200
LEAST_USERS = 50
PIECE = 1_000


@dataclass(frozen=True)
class Evidence:
    """How much of the log speaks for an estimate, per slot [S]."""

    effective: Floats  # effective sample size, met or to be expected, whichever is less
    effective_users: Floats  # of the users' sums of weights
    mean_weight: Floats  # 1 but for chance
    clipped: Floats  # share of the weights
    cut: Floats  # share of their sum

    @property
    def least(self) -> float:
        """The worst slot's effective sample size."""
        return float(self.effective.min())

    @property
    def least_users(self) -> float:
        return float(self.effective_users.min())

    def lacking(self) -> str | None:
        """Why there can't be an estimate."""
        if self.least < LEAST_EFFECTIVE:
            return f"{self.least:,.0f} effective samples, fewer than {LEAST_EFFECTIVE}"
        if self.least_users < LEAST_USERS:
            return f"{self.least_users:,.0f} effective users, fewer than {LEAST_USERS}"
        return None


@dataclass(frozen=True)
class Estimate:
    """Of a slate's value, per objective [K]; ``foreseen`` is what the predictions alone say. Without enough evidence
    ``dr`` and ``snips`` are None and ``reason`` says why."""

    foreseen: Floats
    evidence: Evidence
    dr: LeftOut | None = None
    snips: LeftOut | None = None
    reason: str | None = None


def target_of(slates: Slates, ranking: Ranking, share: float | None = None) -> Target:
    """These requests ordered by a ranking; explored as they were, or by another share (0: not at all)."""
    requests, candidates, objectives = slates.predictions.shape
    keys = np.empty((requests, candidates))
    for some in _pieces(requests):
        flat = slates.predictions[some].reshape(-1, objectives)
        keys[some] = combine(flat, ranking).keys.reshape(-1, candidates)
    return Target(keys, slates.share if share is None else np.full(requests, float(share)))


def values_of(slates: Slates, given: Sequence[int | None]) -> NDArray[np.float32]:
    """q [R, C, K] before c_s: the expected outcomes as predicted; 0 where there is no candidate."""
    shape = slates.predictions.shape
    values = np.empty(shape, np.float32)
    for some in _pieces(shape[0]):
        flat = expected(slates.predictions[some].reshape(-1, shape[2]), given)
        values[some] = np.nan_to_num(flat, posinf=0.0, neginf=0.0).reshape(-1, *shape[1:])
    return values


def _pieces(requests: int) -> Iterator[slice]:
    """Some requests at a time: all their candidates in float64, several times over, would not fit in memory."""
    return (slice(start, start + PIECE) for start in range(0, requests, PIECE))


@dataclass(frozen=True)
class Judge:
    """Judges any number of targets on the same requests."""

    slates: Slates
    values: NDArray[np.float32]  # [R, C, K]
    total: Floats  # of them [R, K]
    predicted: Floats  # [R, S, K] of what was shown, scaled
    scales: Floats  # c [S, K]
    given: Given = "above"

    @classmethod
    def of(cls, slates: Slates, given: Sequence[int | None], depends: Given = "above") -> "Judge":
        values = values_of(slates, given)
        places = np.maximum(slates.shown, 0)[:, :, None]
        predicted = np.where(slates.filled[:, :, None], np.take_along_axis(values, places, axis=1), 0.0).astype(np.float64)
        total = predicted.sum(axis=0)
        scales = np.divide(slates.outcomes.sum(axis=0), total, out=np.zeros_like(total), where=total > 0)
        return cls(slates, values, values.sum(axis=1, dtype=np.float64), predicted * scales, scales, depends)

    def estimate(self, target: Target) -> Estimate:
        """The value of a target, or why there is none."""
        slates = self.slates
        raw = np.where(slates.filled, weights(slates, target, self.given), 0.0)
        clipped, evidence = _clip(raw, slates, squares(slates, target, self.given))
        foretold = np.einsum("rsk,sk->rk", foreseen(slates, target, self.values, self.total), self.scales)
        means = foretold.mean(axis=0)
        if reason := evidence.lacking():
            return Estimate(means, evidence, reason=reason)
        of_log = slates.user, slates.filled, clipped
        dr = left_out(*of_log, slates.outcomes - self.predicted, foretold)
        return Estimate(means, evidence, dr, left_out(*of_log, slates.outcomes, np.zeros_like(foretold)))


def _clip(raw: Floats, slates: Slates, expected_squares: Floats) -> tuple[Floats, Evidence]:
    """The weights [R, S] as they count, and what there is of them."""
    count = np.maximum(slates.filled.sum(axis=0), 1)
    sums, sum_squares = raw.sum(axis=0), (raw**2).sum(axis=0)
    most = np.sqrt(count) * sums / count
    clipped = np.minimum(raw, most)
    users = np.unique(slates.user, return_inverse=True)[1]
    of_users = np.stack([np.bincount(users, column) for column in raw.T], axis=1)
    safe = np.where(sums > 0, sums, 1.0)
    to_expect = count / np.where(slates.filled, expected_squares, 0.0).sum(axis=0).clip(1e-300) * count
    evidence = Evidence(
        effective=np.minimum(np.where(sums > 0, sums**2 / np.where(sums > 0, sum_squares, 1.0), 0.0), to_expect),
        effective_users=np.where(sums > 0, sums**2 / np.where(sums > 0, (of_users**2).sum(axis=0), 1.0), 0.0),
        mean_weight=sums / count,
        clipped=(raw > most).sum(axis=0) / count,
        cut=(raw - clipped).sum(axis=0) / safe,
    )
    return clipped, evidence
