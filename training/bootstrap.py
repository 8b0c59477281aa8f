"""Intervals by resampling users: the rows of a user are not independent of each other, users are.

One :class:`Resamples` draws how often each user appears in each of R resamples; every metric of every score set is
computed under the same draws, so that differences are paired by subtracting. A metric's samples are [R], NaN in a
resample where it is undefined (one class drawn). Intervals are percentiles (Efron & Tibshirani 1993, ch. 13).
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.pairs import RowPairs

Floats = NDArray[np.float64]

LEVEL = 0.95
MAX_UNDEFINED = 0.05  # share of resamples without the metric above which there is no interval
LEVELS = 1 << 12
THREADS = 2
THREADED = 50_000  # rows from which numpy's share of the work outweighs Python's lock
_CACHED = 20_000_000  # weights kept as float64 up to this many


class Resamples:
    """R resamples of users, each of as many users as there are (multinomial), drawn once.

    Args:
        user: a number per row [n]; rows of equal number stand or fall together.
        count: R.
        seed: of the draws.
    """

    def __init__(self, user: NDArray[np.int64], count: int, seed: int) -> None:
        users, row_user = np.unique(user, return_inverse=True)
        self.count = count
        self.users = len(users)
        self.row_user: NDArray[np.int64] = row_user.reshape(-1).astype(np.int64)
        """The index of each row's user [n], what ``user`` means in every method here."""
        rng = np.random.default_rng(seed)
        self._draws = np.zeros((count, self.users), np.uint16)
        for draw in self._draws:
            draw[:] = np.bincount(rng.integers(0, max(self.users, 1), self.users), minlength=self.users)
        self._cached = self._draws.astype(np.float64) if self._draws.size <= _CACHED else None

    def weights(self, resample: int) -> Floats:
        """How often each user was drawn [users]."""
        return self._draws[resample].astype(np.float64) if self._cached is None else np.asarray(self._cached[resample])

    def totals(self, values: NDArray[Any], user: NDArray[np.int64]) -> Floats:
        """Sums of the columns of ``values`` [n, m] under each resample [R, m]."""
        return self.totals_of_users(np.stack([np.bincount(user, column, self.users) for column in values.T], axis=1))

    def totals_of_users(self, sums: Floats) -> Floats:
        """Sums of what each user has, [users, m], under each resample [R, m]."""
        if self._cached is not None:
            totals: Floats = self._cached @ sums
            return totals
        result = np.empty((self.count, sums.shape[1]))
        for r in range(self.count):
            result[r] = self.weights(r) @ sums
        return result

    def ratio(self, numerator: NDArray[Any], denominator: NDArray[Any], user: NDArray[np.int64]) -> Floats:
        """Sum of ``numerator`` [n] over sum of ``denominator`` [n] under each resample [R]; NaN over 0."""
        return np.asarray(self.ratios([(numerator, denominator, user)])[0])

    def ratios(self, parts: Sequence[tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]]) -> Floats:
        """Several ratios in one pass over the draws [len(parts), R]."""
        columns = [np.bincount(user, values, self.users) for *sides, user in parts for values in sides]
        totals = self.totals_of_users(np.stack(columns, axis=1)).T
        return np.array([_divide(*totals[i : i + 2]) for i in range(0, len(columns), 2)])

    def auc(self, targets: NDArray[Any], scores: NDArray[Any], user: NDArray[np.int64]) -> Floats:
        """AUC under each resample [R].

        Rows are sorted once; a resample costs a gather and a sum over runs. Scores enter as at most 4,096 levels of
        equal mass (equal scores never apart, so fewer rows than that are exact); two of one level count half.
        """
        result = np.full(self.count, np.nan)
        if not (targets > 0).any() or (targets > 0).all():
            return result
        order = np.argsort(scores)
        high, level = targets[order] > 0, _levels(scores[order])
        rows = np.concatenate([user[order][~high], user[order][high]])  # negatives first, each class by level
        levels = np.concatenate([level[~high], level[high]])
        split_row = len(high) - int(high.sum())
        new = np.concatenate([[True], levels[1:] != levels[:-1]])
        new[split_row] = True
        runs = np.flatnonzero(new)
        split = int(np.searchsorted(runs, split_row))  # the first run of positives
        low_level, high_level = np.split(levels[runs], [split])
        under, up_to = np.searchsorted(low_level, high_level, "left"), np.searchsorted(low_level, high_level, "right")

        def fill(resamples: range) -> None:
            gathered, below = np.empty(len(rows)), np.zeros(split + 1)
            for r in resamples:
                sums = np.add.reduceat(np.take(self.weights(r), rows, out=gathered, mode="clip"), runs)
                np.cumsum(sums[:split], out=below[1:])
                pairs = below[-1] * sums[split:].sum()
                if pairs:
                    result[r] = sums[split:] @ (below[under] + below[up_to]) / 2 / pairs

        if len(rows) < THREADED:
            fill(range(self.count))
        else:
            with ThreadPoolExecutor(THREADS) as pool:
                list(pool.map(fill, [range(i, self.count, THREADS) for i in range(THREADS)]))
        return result

    def order_accuracy(self, pairs: RowPairs, user: NDArray[np.int64]) -> Floats:
        """Order accuracy under each resample [R], from each row's pairs (unit weights), to first order.

        With user u drawn w_u times, the pairs' weight is sum over pairs of w_u w_v = T + sum_u (w_u - 1) T_u +
        1/2 (w - 1)' T (w - 1), where T_u is that of u's rows; the last term, of order 1 / users, is left out, above and
        below the line (the projection of a U-statistic: van der Vaart 1998, ch. 12).
        """
        totals = self.totals(np.stack([pairs.right, pairs.comparable], axis=1), user)
        whole = np.array([pairs.right.sum(), pairs.comparable.sum()]) / 2
        right, comparable = (totals - whole).T
        return np.where(comparable > 0, np.clip(_divide(right, comparable), 0, 1), np.nan)


def interval(samples: Floats) -> tuple[tuple[float, float] | None, str | None]:
    """The 95% percentile interval, or None and why. Resamples without the metric are left out while they are few."""
    if not len(samples):
        return None, "no resamples were asked for"
    defined = samples[np.isfinite(samples)]
    missing = 1 - len(defined) / len(samples)
    if missing > MAX_UNDEFINED:
        return None, f"undefined in {missing:.0%} of the resamples: too few users carry it"
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return (float(low), float(high)), None


def difference(samples: Floats, other: Floats) -> Floats:
    """Samples [R] of the paired difference of two score sets measured under the same resamples."""
    return np.asarray(samples - other)


def over_seeds(samples: NDArray[Any], seed: int) -> Floats:
    """Samples [R] of a metric's mean over training seeds, seeds and users resampled together.

    ``samples`` [S, R] are the metric's for each seed under one :class:`Resamples`. In each resample S seeds are drawn
    with replacement and averaged. Two designs trained with the same seeds are paired by giving both the same ``seed``
    here and subtracting; with one training seed this is its samples unchanged.
    """
    seeds, count = samples.shape
    drawn = np.random.default_rng(seed).integers(0, seeds, (count, seeds))
    return np.asarray(samples[drawn, np.arange(count)[:, None]].mean(axis=1))


def _levels(ordered: NDArray[Any]) -> NDArray[np.int64]:
    """The level of each of the sorted scores [n]: as many as there are distinct ones, at most LEVELS."""
    new = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    distinct = np.cumsum(new) - 1
    if distinct[-1] < LEVELS:
        return distinct
    starts = np.flatnonzero(new)
    middle = (starts + np.append(starts[1:], len(ordered))) / 2  # of each run of equal scores
    return np.asarray((middle * (LEVELS / len(ordered))).astype(np.int64)[distinct])


def _divide(numerator: Floats, denominator: Floats) -> Floats:
    result = np.full(len(numerator), np.nan)
    np.divide(numerator, denominator, out=result, where=denominator != 0)
    return result
