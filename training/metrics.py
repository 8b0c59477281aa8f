"""Metrics of one objective on rows: pure, weighted, and None where they are undefined.

Everywhere: ``targets``, ``scores`` and ``weights`` are [n], finite, of one row each; no weights means weight 1. A
binary target is positive where it is above 0. What is undefined is None: the reason is :mod:`training.measure`'s to say.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CALIBRATION_BINS = 15
PROBABILITY_FLOOR = 1e-7  # float32's resolution at 1: log loss clips predictions to [floor, 1 - floor]


def auc(targets: NDArray[Any], scores: NDArray[Any], weights: NDArray[Any] | None = None) -> float | None:
    """Area under the ROC curve: P(score of a positive > score of a negative), a tie counting half.

    None with one class only.
    """
    areas = slate_aucs(targets, scores, np.zeros(len(targets), np.int64), weights)
    return float(areas.auc[0]) if len(areas.auc) else None


def gauc(
    targets: NDArray[Any], scores: NDArray[Any], slate: NDArray[np.int64], weights: NDArray[Any] | None = None
) -> float | None:
    """AUC within a slate, slates weighted by their impressions, those of one class left out (DESIGN.md, GAUC)."""
    areas = slate_aucs(targets, scores, slate, weights)
    return float(np.average(areas.auc, weights=areas.weight)) if len(areas.auc) else None


@dataclass(frozen=True)
class SlateAucs:
    """The AUC of each slate that has both classes [S], its weight of impressions [S], one of its rows [S], and the
    share of all impressions that stand in such slates."""

    auc: Floats
    weight: Floats
    row: NDArray[np.int64]
    share: float


def slate_aucs(
    targets: NDArray[Any], scores: NDArray[Any], slate: NDArray[np.int64], weights: NDArray[Any] | None = None
) -> SlateAucs:
    """AUC within each slate. O(n log n): one sort by slate and score, then sums over runs of equal score."""
    n = len(targets)
    weight = _weights(n, weights)
    if not n or not weight.sum():
        empty = np.zeros(0)
        return SlateAucs(empty, empty, np.zeros(0, np.int64), 0.0)
    order = np.lexsort((scores, slate))
    slates, ordered, weight = slate[order], scores[order], weight[order]
    positive = weight * (targets[order] > 0)
    slate_start = np.flatnonzero(np.concatenate([[True], slates[1:] != slates[:-1]]))
    new_tie = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    new_tie[slate_start] = True
    tie_start = np.flatnonzero(new_tie)
    ties_of_slate = np.searchsorted(tie_start, slate_start)

    positives = np.add.reduceat(positive, tie_start)
    negatives = np.add.reduceat(weight - positive, tie_start)
    slate_positives = np.add.reduceat(positives, ties_of_slate)
    slate_negatives = np.add.reduceat(negatives, ties_of_slate)
    below = np.cumsum(negatives) - negatives
    below -= np.repeat(below[ties_of_slate], np.diff(np.append(ties_of_slate, len(tie_start))))
    won = np.add.reduceat(positives * (below + negatives / 2), ties_of_slate)

    both = (slate_positives > 0) & (slate_negatives > 0)
    impressions = slate_positives + slate_negatives
    areas = np.clip(won[both] / (slate_positives[both] * slate_negatives[both]), 0.0, 1.0)
    return SlateAucs(areas, impressions[both], order[slate_start[both]], float(impressions[both].sum() / impressions.sum()))


def log_losses(targets: NDArray[Any], predictions: NDArray[Any]) -> Floats:
    """Cross-entropy of each row [n], in nats, predictions clipped to [1e-7, 1 - 1e-7]."""
    p = np.clip(predictions.astype(np.float64), PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR)
    return np.where(targets > 0, -np.log(p), -np.log1p(-p))


def log_loss(targets: NDArray[Any], predictions: NDArray[Any], weights: NDArray[Any] | None = None) -> float | None:
    """Mean cross-entropy in nats."""
    return _mean(log_losses(targets, predictions), weights)


def mse(targets: NDArray[Any], predictions: NDArray[Any], weights: NDArray[Any] | None = None) -> float | None:
    """Mean squared error, in squared natural units."""
    return _mean((predictions.astype(np.float64) - targets) ** 2, weights)


def mae(targets: NDArray[Any], predictions: NDArray[Any], weights: NDArray[Any] | None = None) -> float | None:
    """Mean absolute error, in natural units."""
    return _mean(np.abs(predictions.astype(np.float64) - targets), weights)


def predicted_over_actual(
    targets: NDArray[Any], predictions: NDArray[Any], weights: NDArray[Any] | None = None
) -> float | None:
    """Sum of predictions over sum of targets; 1 is calibrated in the large. None where the targets sum to 0."""
    weight = _weights(len(targets), weights)
    actual = float(weight @ targets.astype(np.float64))
    return float(weight @ predictions.astype(np.float64)) / actual if actual else None


def calibration_bins(
    predictions: NDArray[Any], weights: NDArray[Any] | None = None, bins: int = CALIBRATION_BINS
) -> NDArray[np.int64]:
    """The bin of each row [n], from 0: bins of equal mass in the order of prediction.

    Rows of equal prediction share a bin, so there are fewer than ``bins`` where many are equal (one for a constant).
    Bins are numbered without gaps.
    """
    weight = _weights(len(predictions), weights)
    values, inverse = np.unique(predictions, return_inverse=True)
    mass = np.bincount(inverse, weight, len(values))
    total = mass.sum()
    if not total:
        return np.zeros(len(predictions), np.int64)
    middle = (np.cumsum(mass) - mass / 2) / total  # of each distinct prediction, in shares of the mass
    rough = np.minimum((middle * bins).astype(np.int64), bins - 1)
    return np.unique(rough, return_inverse=True)[1].reshape(-1)[inverse]


def ece(
    targets: NDArray[Any], predictions: NDArray[Any], weights: NDArray[Any] | None = None, bins: int = CALIBRATION_BINS
) -> float | None:
    """Expected calibration error: sum over bins of (the bin's share) * |mean prediction - mean target|.

    15 bins of equal mass (:func:`calibration_bins`). Noise alone makes it positive: about the standard error of a
    bin's mean, so it shrinks with rows even for a perfect model.
    """
    weight = _weights(len(targets), weights)
    if not weight.sum():
        return None
    bin_of = calibration_bins(predictions, weight, bins)
    gaps = np.bincount(bin_of, weight * (predictions.astype(np.float64) - targets))
    return float(np.abs(gaps).sum() / weight.sum())


def _mean(values: Floats, weights: NDArray[Any] | None) -> float | None:
    weight = _weights(len(values), weights)
    total = weight.sum()
    return float(weight @ values / total) if total else None


def _weights(n: int, weights: NDArray[Any] | None) -> Floats:
    return np.ones(n) if weights is None else np.asarray(weights, np.float64)
