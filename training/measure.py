"""The figures of one objective on one set of rows: every metric with its interval, or null with its reason."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from models.calibration import Predictions
from training import bootstrap, metrics
from training.bootstrap import Resamples
from training.metrics import Floats
from training.pairs import row_pairs, slate_order

Kind = Literal["binary", "regression"]

BINARY = ("auc", "auc_slate", "gauc", "gauc_share", "log_loss", "ece")
REGRESSION = ("mse", "mae", "order_accuracy", "slate_order_accuracy", "slate_order_share")
BOTH = ("predicted_over_actual",)
METRICS = (*BINARY, *REGRESSION, *BOTH)
WITHOUT_INTERVAL = ("gauc_share", "slate_order_share")
COMPARED = ("auc", "gauc", "log_loss", "ece", "mse", "mae", "order_accuracy", "slate_order_accuracy")
"""Metrics whose paired difference to a baseline is reported."""


@dataclass(frozen=True)
class Rows:
    """Rows on which one objective is defined, m of them: natural-unit ``targets`` and ``predictions`` [m], predictions
    as of the slate's first row, the row's slate, and its user's index in the resamples."""

    targets: NDArray[np.float32]
    predictions: Predictions
    slate_predictions: Predictions
    slate: NDArray[np.int64]
    user: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, rows: NDArray[Any]) -> "Rows":
        return Rows(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    def scored_by(self, predictions: Predictions, slate_predictions: Predictions) -> "Rows":
        """The same rows with other predictions."""
        return replace(self, predictions=predictions, slate_predictions=slate_predictions)


@dataclass(frozen=True)
class Estimate:
    """A metric's value and its samples under the resamples [R]; or None and the reason."""

    value: float | None
    samples: Floats | None = None
    reason: str | None = None


Estimates = Mapping[str, Estimate]


@dataclass(frozen=True)
class Ratio:
    """A metric that is a ratio of two sums: its value, and both sides' terms [n] with their users [n]."""

    value: float
    numerator: NDArray[Any]
    denominator: NDArray[Any]
    user: NDArray[np.int64]


def measure(kind: Kind, rows: Rows, resamples: Resamples) -> dict[str, Estimate]:
    """Every metric of :data:`METRICS` on these rows."""
    reason = _why_nothing(rows)
    if reason is not None:
        return {name: Estimate(None, reason=reason) for name in METRICS}
    if kind == "binary":
        found, other = _binary(rows, resamples), dict.fromkeys(REGRESSION, Estimate(None, reason="binary"))
    else:
        found, other = _regression(rows, resamples), dict.fromkeys(BINARY, Estimate(None, reason="regression"))
    found["predicted_over_actual"] = _predicted_over_actual(kind, rows)
    ratios = {name: part for name, part in found.items() if isinstance(part, Ratio)}
    samples = resamples.ratios([(part.numerator, part.denominator, part.user) for part in ratios.values()])
    measured = {name: Estimate(part.value, samples[i]) for i, (name, part) in enumerate(ratios.items())}
    return other | {name: measured[name] if isinstance(part, Ratio) else part for name, part in found.items()}


def figures(estimates: Estimates, rows: Rows) -> dict[str, Any]:
    """The JSON of these estimates: each metric, its ``_interval``, the counts, and ``undefined``."""
    result: dict[str, Any] = {
        "count": len(rows),
        "positives": int((rows.targets > 0).sum()),
        "users": _distinct(rows.user),
        "actual_mean": float(rows.targets.mean(dtype=np.float64)) if len(rows) else None,
        "predicted_mean": _finite(rows.predictions.mean(dtype=np.float64)) if len(rows) else None,
    }
    return result | _values(estimates, result["users"], METRICS)


def raw_figures(kind: Kind, rows: Rows) -> dict[str, float | None]:
    """What calibration is about, of rows with the network's own predictions; None where the figures have no value."""
    values: dict[str, float | None] = dict.fromkeys(("ece", "log_loss", "predicted_over_actual"))
    if _why_nothing(rows) is not None:
        return values
    if kind == "binary":
        values |= {"ece": metrics.ece(rows.targets, rows.predictions)}
        values |= {"log_loss": metrics.log_loss(rows.targets, rows.predictions)}
    return values | {"predicted_over_actual": metrics.predicted_over_actual(rows.targets, rows.predictions)}


def comparison(model: Estimates, baseline: Estimates, rows: Rows) -> dict[str, Any]:
    """The JSON of a baseline measured on ``rows``, with ``difference``: model minus baseline, users paired."""
    differences: dict[str, Estimate] = {}
    for name in COMPARED:
        ours, theirs = model[name], baseline[name]
        if ours.value is None or theirs.value is None or ours.samples is None or theirs.samples is None:
            differences[name] = Estimate(None, reason=theirs.reason or ours.reason)
        else:
            samples = bootstrap.difference(ours.samples, theirs.samples)
            differences[name] = Estimate(ours.value - theirs.value, samples)
    own = figures(baseline, rows)
    return own | {"difference": _values(differences, own["users"], COMPARED)}


def calibration(kind: Kind, rows: Rows, resamples: Resamples) -> list[dict[str, Any]]:
    """Predicted against actual in bins of equal mass: per bin its means, counts, and the actual mean's interval."""
    if _why_nothing(rows) is not None:
        return []
    bin_of = metrics.calibration_bins(rows.predictions)
    parts = [rows.take(bin_of == b) for b in range(int(bin_of.max()) + 1)]
    samples = resamples.ratios([(part.targets, np.ones(len(part)), part.user) for part in parts])
    return [
        {
            "predicted": float(part.predictions.mean(dtype=np.float64)),
            "actual": float(part.targets.mean(dtype=np.float64)),
            "actual_interval": _interval(samples[b], _distinct(part.user))[0],
            "count": len(part),
            "positives": int((part.targets > 0).sum()),
        }
        for b, part in enumerate(parts)
    ]


def _why_nothing(rows: Rows) -> str | None:
    if not len(rows):
        return "no rows"
    bad = ~(np.isfinite(rows.predictions) & np.isfinite(rows.slate_predictions))
    return f"{int(bad.sum())} of {len(rows)} predictions are not finite" if bad.any() else None


def _binary(rows: Rows, resamples: Resamples) -> dict[str, Estimate | Ratio]:
    y, p = rows.targets, rows.predictions
    auc = _auc(rows, p, resamples)
    moves = not np.array_equal(p, rows.slate_predictions)
    return {
        "auc": auc,
        "auc_slate": _auc(rows, rows.slate_predictions, resamples) if moves else auc,
        **_gauc(rows),
        "log_loss": _mean(metrics.log_losses(y, p), rows),
        "ece": Estimate(metrics.ece(y, p), _ece_samples(rows, resamples)),
    }


def _regression(rows: Rows, resamples: Resamples) -> dict[str, Estimate | Ratio]:
    error = rows.predictions.astype(np.float64) - rows.targets
    return {
        "mse": _mean(error**2, rows),
        "mae": _mean(np.abs(error), rows),
        "order_accuracy": _order(rows, resamples),
        **_slate_order(rows),
    }


def _auc(rows: Rows, scores: Predictions, resamples: Resamples) -> Estimate:
    value = metrics.auc(rows.targets, scores)
    if value is None:
        return Estimate(None, reason=_one_class(rows))
    return Estimate(value, resamples.auc(rows.targets, scores, rows.user))


def _gauc(rows: Rows) -> dict[str, Estimate | Ratio]:
    slates = metrics.slate_aucs(rows.targets, rows.slate_predictions, rows.slate)
    share = Estimate(slates.share)
    if not len(slates.auc):
        return {"gauc": Estimate(None, reason="no slate has both classes"), "gauc_share": share}
    value = float(np.average(slates.auc, weights=slates.weight))
    return {"gauc": Ratio(value, slates.auc * slates.weight, slates.weight, rows.user[slates.row]), "gauc_share": share}


def _order(rows: Rows, resamples: Resamples) -> Estimate:
    pairs = row_pairs(rows.targets, rows.predictions, np.zeros(len(rows), np.int64), np.ones(len(rows)))
    comparable = pairs.comparable.sum()
    if not comparable:
        return Estimate(None, reason="all targets are equal")
    return Estimate(float(pairs.right.sum() / comparable), resamples.order_accuracy(pairs, rows.user))


def _slate_order(rows: Rows) -> dict[str, Estimate | Ratio]:
    slates = slate_order(rows.targets, rows.slate_predictions, rows.slate)
    share = Estimate(float(slates.weight.sum() / len(rows)))
    if not len(slates.accuracy):
        reason = "no slate has two different targets"
        return {"slate_order_accuracy": Estimate(None, reason=reason), "slate_order_share": share}
    value = float(np.average(slates.accuracy, weights=slates.weight))
    order = Ratio(value, slates.accuracy * slates.weight, slates.weight, rows.user[slates.row])
    return {"slate_order_accuracy": order, "slate_order_share": share}


def _mean(values: Floats, rows: Rows) -> Ratio:
    return Ratio(float(values.mean()), values, np.ones(len(values)), rows.user)


def _predicted_over_actual(kind: Kind, rows: Rows) -> Estimate | Ratio:
    value = metrics.predicted_over_actual(rows.targets, rows.predictions)
    if value is None:
        return Estimate(None, reason="no positives" if kind == "binary" else "the targets sum to 0")
    return Ratio(value, rows.predictions, rows.targets, rows.user)


def _ece_samples(rows: Rows, resamples: Resamples) -> Floats:
    """ECE under each resample, the bins being those of the whole sample."""
    bin_of = metrics.calibration_bins(rows.predictions)
    count = int(bin_of.max()) + 1
    gap = rows.predictions.astype(np.float64) - rows.targets
    gaps = np.bincount(rows.user * count + bin_of, gap, resamples.users * count).reshape(resamples.users, count)
    own = np.bincount(rows.user, minlength=resamples.users)
    totals = resamples.totals_of_users(np.column_stack([gaps, own]))
    totals, rows_drawn = totals[:, :-1], totals[:, -1]
    result = np.full(len(totals), np.nan)
    np.divide(np.abs(totals).sum(axis=1), rows_drawn, out=result, where=rows_drawn > 0)
    return result


def _one_class(rows: Rows) -> str:
    return "one class only: no positives" if not (rows.targets > 0).any() else "one class only: no negatives"


def _values(estimates: Estimates, users: int, names: tuple[str, ...]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    undefined: dict[str, str] = {}
    for name in names:
        estimate = estimates[name]
        result[name] = estimate.value
        if estimate.value is None:
            undefined[name] = estimate.reason or "undefined"
        if name in WITHOUT_INTERVAL:
            continue
        result[f"{name}_interval"] = None
        if estimate.value is not None and estimate.samples is not None:
            result[f"{name}_interval"], reason = _interval(estimate.samples, users)
            if reason is not None:
                undefined[f"{name}_interval"] = reason
    return result | {"undefined": undefined}


def _interval(samples: Floats, users: int) -> tuple[list[float] | None, str | None]:
    if len(samples) and users < 2:
        return None, "one user: nothing to resample"
    bounds, reason = bootstrap.interval(samples)
    return (None if bounds is None else list(bounds)), reason


def _distinct(user: NDArray[np.int64]) -> int:
    return int(np.count_nonzero(np.bincount(user)))


def _finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
