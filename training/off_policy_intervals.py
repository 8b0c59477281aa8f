"""Intervals of off-policy estimates: the jackknife over users, and Student's t by how unequal they weigh.

Users are drawn, their requests hang together; so one user at a time is left out (Efron & Tibshirani 1993, ch. 11), in
closed form, as the estimate is made of sums. Against the linearised error, which is the same to first order, this counts in
full what a user of great weight does to a ratio, as it should where effective samples are few. The variance of such a sum
is itself uncertain: it has 2 m2^2 / (m4 - m2^2/n) degrees of freedom (Satterthwaite 1946, by the users' second and fourth
moments), which widens the interval where a few users make most of it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

Floats = NDArray[np.float64]

LEVEL = 0.95


@dataclass(frozen=True)
class LeftOut:
    """An estimate [K] with what it is when each user is left out [U, K]."""

    value: Floats
    without: Floats

    def minus(self, other: "LeftOut") -> "LeftOut":
        """The difference of two estimates from the same requests: their errors are those of the difference."""
        return LeftOut(self.value - other.value, self.without - other.without)

    def over(self, other: "LeftOut") -> "LeftOut":
        """The relative difference to an estimate from the same requests; NaN where that is not above 0."""
        with np.errstate(all="ignore"):
            value, without = self.value / other.value - 1, self.without / other.without - 1
        sound = (other.value > 0) & (other.without > 0).all(axis=0)
        return LeftOut(np.where(sound, value, np.nan), np.where(sound, without, np.nan))

    @property
    def error(self) -> Floats:
        """The standard error [K]."""
        n = len(self.without)
        return np.asarray(np.sqrt((n - 1) / n * (self._parts**2).sum(axis=0)))

    @property
    def interval(self) -> Floats:
        """The 95% interval [2, K]."""
        second, fourth = (self._parts**2).sum(axis=0), (self._parts**4).sum(axis=0)
        spread = np.maximum(fourth - second**2 / len(self.without), 0.0)
        degrees = np.divide(2 * second**2, spread, out=np.full_like(second, 1e9), where=spread > 0)
        half = student.ppf((1 + LEVEL) / 2, np.maximum(degrees, 1.0)) * self.error
        return np.stack([self.value - half, self.value + half])

    @property
    def _parts(self) -> Floats:
        return np.asarray(self.without - self.without.mean(axis=0))


def left_out(user: NDArray[np.int64], filled: NDArray[np.bool_], w: Floats, outcome: Floats, plain: Floats) -> LeftOut:
    """mean_r plain_r + sum_s share_s (sum_r w_rs y_rs / sum_r w_rs) [K], and the same without each user.

    Args:
        user: [R].
        filled: which requests have which slot [R, S].
        w: weights [R, S], 0 where there is no slot.
        outcome: y [R, S, K].
        plain: what counts with weight 1 [R, K].
    """
    order = np.argsort(user, kind="stable")
    starts = np.flatnonzero(np.diff(user[order], prepend=user[order[0]] - 1))
    of_users = [
        np.add.reduceat(values[order], starts, axis=0)
        for values in (np.ones(len(user)), filled.astype(np.float64), w, w[:, :, None] * outcome, plain)
    ]
    totals = [sums.sum(axis=0) for sums in of_users]
    rest = [total - sums for total, sums in zip(totals, of_users, strict=True)]
    return LeftOut(_value(*(total[None] for total in totals))[0], _value(*rest))


def _value(requests: Floats, slots: Floats, weight: Floats, weighted: Floats, plain: Floats) -> Floats:
    """[n], [n, S], [n, S], [n, S, K], [n, K] to [n, K]."""
    safe = np.where(weight > 0, weight, 1.0)
    means = np.where((weight > 0)[:, :, None], weighted / safe[:, :, None], 0.0)
    return np.asarray(((slots[:, :, None] * means).sum(axis=1) + plain) / requests[:, None])
