"""Order accuracy: of two rows whose targets differ, how often the one with the larger target has the larger score."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def order_accuracy(targets: NDArray[Any], scores: NDArray[Any], weights: NDArray[Any] | None = None) -> float | None:
    """Pairs in the right order over pairs whose targets differ; a tie of scores counts half, one of targets not at all.

    A pair weighs the product of its rows' weights. For a binary target this is the AUC. None without such a pair.
    """
    weight = np.ones(len(targets)) if weights is None else np.asarray(weights, np.float64)
    pairs = row_pairs(targets, scores, np.zeros(len(targets), np.int64), weight)
    comparable = float(weight @ pairs.comparable)
    return float(weight @ pairs.right) / comparable if comparable > 0 else None


@dataclass(frozen=True)
class SlateOrder:
    """Order accuracy of each slate with a comparable pair [S], its weight of impressions [S] and one of its rows [S]."""

    accuracy: Floats
    weight: Floats
    row: Ints


def slate_order(targets: NDArray[Any], scores: NDArray[Any], slate: Ints, weights: NDArray[Any] | None = None) -> SlateOrder:
    """Order accuracy within each slate; those without two different targets are left out."""
    weight = np.ones(len(targets)) if weights is None else np.asarray(weights, np.float64)
    slates, first, code = np.unique(slate, return_index=True, return_inverse=True)
    pairs = row_pairs(targets, scores, slate, weight)
    sums = [np.bincount(code, values, len(slates)) for values in (weight * pairs.right, weight * pairs.comparable, weight)]
    right, comparable, impressions = np.asarray(sums, np.float64)
    use = comparable > 0
    return SlateOrder(right[use] / comparable[use], impressions[use], first[use].astype(np.int64))


@dataclass(frozen=True)
class RowPairs:
    """Of each row's partners (rows of its group), the weight of those with another target [n], and of those among them
    in the right order with it [n], a tie of scores half."""

    comparable: Floats
    right: Floats


def row_pairs(targets: NDArray[Any], scores: NDArray[Any], group: Ints, weight: Floats) -> RowPairs:
    """Count each row's partners exactly, in O(n log n).

    Rows are put in the order of group and target. Two rows in this order are in the right order when at the highest
    bit where their scores' ranks differ the later has 1: so for each bit, rows are partitioned stably by the bits above
    it, and for each one the zeros before it, for each zero the ones after it, are summed.
    """
    if not len(targets):
        return RowPairs(np.zeros(0), np.zeros(0))
    by_score = np.lexsort((scores, group))
    new_group, new_score = _starts(group[by_score]), _starts(group[by_score], scores[by_score])
    rank = np.empty(len(targets), np.int64)  # dense, among the group's, from 0
    climbed = np.cumsum(new_score & ~new_group)
    rank[by_score] = climbed - climbed[new_group][np.cumsum(new_group) - 1]
    tied_scores = np.empty(len(targets))
    tied_scores[by_score] = _sums(weight[by_score], new_score)

    order = np.lexsort((-rank, targets, group))  # equal targets by falling score: never counted as right
    g, y, r, w = group[order], targets[order], rank[order], weight[order]
    same_target = _sums(w, _starts(g, y))
    tied = tied_scores[order] - _sums(w, _starts(g, y, r))  # with other targets
    comparable, right = np.empty((2, len(targets)))
    comparable[order] = np.maximum(_sums(w, _starts(g)) - same_target, 0)
    right[order] = _rising(g, r, w) + np.maximum(tied, 0) / 2
    return RowPairs(comparable, right)


def _rising(group: Ints, rank: Ints, weight: Floats) -> Floats:
    """Per row [n], the weight of the rows of its group that are before it with a smaller rank, or after it with a
    larger one. ``group`` is sorted."""
    result = np.zeros(len(rank))
    row = np.arange(len(rank))
    for bit in range(int(rank.max()).bit_length() - 1, -1, -1):
        above = rank >> (bit + 1)
        starts = np.flatnonzero(_starts(group, above))
        sizes = np.diff(np.append(starts, len(rank)))
        one = ((rank >> bit) & 1).astype(bool)
        zeros = _running(np.where(one, 0.0, weight), starts, sizes)
        ones_weight = np.where(one, weight, 0.0)
        ones_after = np.repeat(np.add.reduceat(ones_weight, starts), sizes) - _running(ones_weight, starts, sizes)
        result[row] += np.where(one, zeros, ones_after)
        order = _partition(one, starts, sizes)
        group, rank, weight, row = group[order], rank[order], weight[order], row[order]
    return result


def _partition(one: NDArray[np.bool_], starts: Ints, sizes: Ints) -> Ints:
    """The order that puts, within each run, zeros before ones, both as they came."""
    start = np.repeat(starts, sizes)
    zeros = _running((~one).astype(np.int64), starts, sizes)  # in this run, up to and with this row
    run_zeros = np.repeat(np.add.reduceat((~one).astype(np.int64), starts), sizes)
    row = np.arange(len(one))
    order = np.empty(len(one), np.int64)
    order[np.where(one, run_zeros + row - zeros, start + zeros - 1)] = row
    return order


def _running(values: NDArray[Any], starts: Ints, sizes: Ints) -> NDArray[Any]:
    """Sums from a run's start up to and with each row [n]."""
    total = np.cumsum(values)
    return np.asarray(total - np.repeat(total[starts] - values[starts], sizes))


def _starts(*keys: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether a row differs from the one before it in any of ``keys`` [n]."""
    new = np.zeros(len(keys[0]), bool)
    new[0] = True
    for key in keys:
        new[1:] |= key[1:] != key[:-1]
    return new


def _sums(weight: Floats, new: NDArray[np.bool_]) -> Floats:
    """The weight of the run that each row is in [n]; runs start where ``new``."""
    starts = np.flatnonzero(new)
    sums: Floats = np.repeat(np.add.reduceat(weight, starts), np.diff(np.append(starts, len(weight))))
    return sums
