"""Fit the calibration of each objective on predictions of before their rows were trained on (docs/calibration.md)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, isotonic_regression

from data.config import Config, Objective
from models.calibration import Calibration, Curve, Isotonic, Platt, Ratio, Space, Unchanged, apply_curve, logit, sigmoid
from training.calibration_rows import DayRows, known
from training.metrics import calibration_bins, log_losses

Floats = NDArray[np.float64]
Fit = Callable[["Rows", str], Curve]

FEW, MANY = 100, 1_000
"""Of the rarer class (of a regression: rows): with fewer only the ratio, from so many on isotonic too."""
SLOPES = 0.05, 3.0
"""Of Platt's line: with a flatter or steeper one float64 could no longer tell apart what float32 could."""
BINS, PER_BIN = 200, 20
"""Isotonic's bins: at most so many, with at least so many of the rarer class each on average."""
FLAT = 1e-6
"""Relative rise under which neighbouring blocks count as one: arithmetic alone makes 1e-16."""
ERRORS = 2.0
"""Standard errors by which isotonic must win on the newest day."""


@dataclass(frozen=True)
class Rows:
    """Rows on which one objective is known [n]: raw predictions, targets (1 and 0 of a binary objective), days."""

    space: Space
    predictions: Floats
    targets: Floats
    day: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def positives(self) -> int:
        return int((self.targets > 0).sum())

    @property
    def decisive(self) -> int:
        """What the thresholds count: the rarer class, or the rows of a regression."""
        return min(self.positives, len(self) - self.positives) if self.space == "probability" else len(self)

    def take(self, mask: NDArray[np.bool_]) -> "Rows":
        return Rows(self.space, self.predictions[mask], self.targets[mask], self.day[mask])


def calibrate(days: Sequence[DayRows], config: Config) -> Calibration:
    """The calibration by these days' rows: of each objective the newest ``calibration.days`` on which it is known."""
    settings, names = config.calibration, config.objective_names
    if settings.method == "none":
        return Calibration.identity(names, "calibration.method is none")
    chosen = [known(days, k)[-settings.days :] for k in range(len(names))]
    curves = [fit_curve(rows_of(chosen[k], o, k), settings.method) for k, o in enumerate(config.objectives)]
    used = sorted({str(day.day) for part in chosen for day in part})
    return Calibration(objectives=names, curves=tuple(curves), days=tuple(used))


def rows_of(days: Sequence[DayRows], objective: Objective, k: int) -> Rows:
    """What is known of objective k, without predictions that aren't finite."""
    space: Space = "probability" if objective.kind == "binary" else "value"
    predictions = np.concatenate([np.zeros(0), *(day.predictions[:, k].astype(np.float64) for day in days)])
    targets = np.concatenate([np.zeros(0), *(day.targets[:, k].astype(np.float64) for day in days)])
    number = np.repeat(np.array([day.day.toordinal() for day in days], np.int64), [len(day.targets) for day in days])
    if space == "probability":
        targets = np.where(np.isnan(targets), np.nan, targets > 0)
    return Rows(space, predictions, targets, number).take(np.isfinite(predictions) & np.isfinite(targets))


def fit_curve(rows: Rows, method: str) -> Curve:
    """The curve of one objective by ``calibration.method``."""
    missing = _why_not(rows)
    if missing is not None:
        return Unchanged(rows=len(rows), positives=rows.positives, reason=missing)
    if rows.space == "probability" and rows.decisive < FEW:
        return ratio(rows, f"{rows.decisive} of the rarer class, {FEW} needed for more than the ratio")
    simple: Fit = platt if rows.space == "probability" and method != "ratio" else ratio
    if method in ("ratio", "platt"):
        return simple(rows, f"method {method}")
    if rows.decisive < MANY:
        return simple(rows, f"{rows.decisive} of the rarer class or rows, {MANY} needed for isotonic")
    if method == "isotonic":
        return isotonic(rows, "method isotonic") or simple(rows, "isotonic would be constant")
    return _auto(rows, simple)


def platt(rows: Rows, reason: str = "") -> Platt:
    """The line on the logit with the least cross-entropy (convex; Newton's method with halved steps).

    The targets are Platt's: (P + 1) / (P + 2) of the P positives, 1 / (N + 2) of the N negatives. The slope stays within
    :data:`SLOPES`, so that order is kept; at its bound the intercept is fitted anew.
    """
    positives = rows.positives
    target = np.where(rows.targets > 0, (positives + 1) / (positives + 2), 1 / (len(rows) - positives + 2))
    z = logit(rows.predictions)
    slope, intercept = _newton(z, target)
    if not SLOPES[0] <= slope <= SLOPES[1]:
        slope = float(np.clip(slope, *SLOPES))
        intercept = _shift(slope * z, float(target.sum()))
    return Platt(slope=slope, intercept=intercept, rows=len(rows), positives=positives, reason=reason)


def ratio(rows: Rows, reason: str = "") -> Ratio:
    """The factor (of a probability's odds, or of the value) with which predictions sum to what came."""
    if rows.space == "probability":
        factor = float(np.exp(_shift(logit(rows.predictions), float(rows.targets.sum()))))
    else:
        factor = float(rows.targets.sum() / rows.predictions.sum())
    return Ratio(space=rows.space, factor=factor, rows=len(rows), positives=rows.positives, reason=reason)


def isotonic(rows: Rows, reason: str = "") -> Isotonic | None:
    """Isotonic regression over bins of equal mass, each with one more row of the overall mean; None where it is constant.

    The knots are the middles of the pooled blocks, so that lines between them increase strictly, without a step on which
    a rounding in the network would grow. Beyond them a logit is shifted as the last knot is, and a value scaled.
    """
    bins = max(2, min(BINS, rows.decisive // PER_BIN))
    bin_of = calibration_bins(rows.predictions, bins=bins)
    count = np.bincount(bin_of).astype(np.float64)
    x = np.bincount(bin_of, rows.predictions) / count
    y = (np.bincount(bin_of, rows.targets) + rows.targets.mean()) / (count + 1)
    fitted = pool(y, count + 1)
    starts = np.flatnonzero(np.concatenate([[True], np.diff(fitted) > FLAT * np.abs(fitted[1:])]))
    x, y = (np.add.reduceat(v * count, starts) / np.add.reduceat(count, starts) for v in (x, fitted))
    below, above = 1.0, 1.0
    if rows.space == "probability":
        x, y = logit(x), logit(y)
    else:
        below, above = (_slope(x[end], y[end], rows) for end in (0, -1))
    if len(x) < 2 or not (np.diff(x) > 0).all() or not (np.diff(y) > 0).all():
        return None
    knots = {"x": tuple(x.tolist()), "y": tuple(y.tolist()), "below": below, "above": above}
    return Isotonic(space=rows.space, rows=len(rows), positives=rows.positives, reason=reason, **knots)  # type: ignore[arg-type]


def pool(values: Floats, weights: Floats) -> Floats:
    """The non-decreasing values [n] nearest to these in weighted squares (pool adjacent violators, Barlow et al., 1972)."""
    return np.asarray(isotonic_regression(values, weights=weights, increasing=True).x, np.float64)


def _auto(rows: Rows, simple: Fit) -> Curve:
    """Isotonic where, fitted without the newest day, it has the smaller loss on it; then fitted on all days."""
    last = int(rows.day.max())
    earlier, held = rows.take(rows.day < last), rows.take(rows.day == last)
    if _why_not(earlier) is not None or earlier.decisive < MANY:
        return simple(rows, f"fewer than {MANY} before the newest day: nothing to choose isotonic by")
    other = isotonic(earlier)
    if other is None:
        return simple(rows, "isotonic would be constant")
    gain = _losses(simple(earlier, ""), held) - _losses(other, held)
    mean, error = float(gain.mean()), float(gain.std() / np.sqrt(len(gain)))
    day = date.fromordinal(last)
    says = f"on {day} isotonic's loss differs by {-mean:+.2g}, standard error {error:.2g}"
    chosen = isotonic(rows, says) if mean > ERRORS * error else None
    return chosen or simple(rows, says)


def _losses(curve: Curve, rows: Rows) -> Floats:
    calibrated = apply_curve(curve, rows.predictions)
    return log_losses(rows.targets, calibrated) if rows.space == "probability" else (calibrated - rows.targets) ** 2


def _why_not(rows: Rows) -> str | None:
    """Why nothing can be fitted on the rows, or None."""
    if not len(rows):
        return "no rows were scored before they were trained on"
    if rows.space == "probability":
        if not rows.decisive:
            return "no positives" if not rows.positives else "no negatives"
    elif not min(rows.targets.sum(), rows.predictions.sum()) > 0:
        return "the predictions or the targets don't sum to more than 0"
    return None


def _newton(z: Floats, target: Floats) -> tuple[float, float]:
    """Slope and intercept of the least cross-entropy between target and sigmoid(slope z + intercept)."""
    point = np.array([1.0, 0.0])
    loss = _cross_entropy(z, target, point)
    for _ in range(100):
        p = sigmoid(point[0] * z + point[1])
        gap, spread = p - target, p * (1 - p)
        gradient = np.array([(gap * z).sum(), gap.sum()])
        mixed = (spread * z).sum()
        curvature = np.array([[(spread * z * z).sum(), mixed], [mixed, spread.sum()]]) + 1e-9 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        for _ in range(30):
            found = _cross_entropy(z, target, point - step)
            if found <= loss:
                break
            step = step / 2
        else:
            break
        point, done, loss = point - step, loss - found <= 1e-12 * abs(loss), found
        if done:
            break
    return float(point[0]), float(point[1])


def _cross_entropy(z: Floats, target: Floats, point: Floats) -> float:
    moved = point[0] * z + point[1]
    return float((np.logaddexp(0.0, moved) - target * moved).sum())


def _shift(z: Floats, total: float) -> float:
    """What is to be added to logits so that their probabilities sum to ``total``, which is between 0 and n."""
    return float(brentq(lambda shift: sigmoid(z + shift).sum() - total, -1_000.0, 1_000.0, xtol=1e-12))


def _slope(x: float, y: float, rows: Rows) -> float:
    """Beyond the knots of values: the end knot's scale, or that of all rows where it is none."""
    return float(y / x) if min(x, y) > 0 else float(rows.targets.sum() / rows.predictions.sum())
