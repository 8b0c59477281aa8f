"""Calibration: what stands between the network's predictions and those that are served, combined and reported.

One strictly increasing function per objective, so that the order by it, and with it AUC and GAUC, stays as it is. A
probability p is moved on its logit z, in natural units everything else:

    platt     z' = slope z + intercept        Platt, Advances in Large Margin Classifiers, 1999
    ratio     z' = z + log(factor), of a value factor * value
    isotonic  piecewise linear through the knots, beyond them with the slopes given
    none      as it is

Fitted by :mod:`training.calibrate`, kept as ``calibration.json`` in the bundle. This file is imported by the serving
process.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from data.errors import BundleError

CALIBRATION_FILE = "calibration.json"
FORMAT = 1
LEAST, MOST = 2.0**-150, 1 - 2.0**-25
"""What a float32 of 0 and of 1 stand for: half way to its neighbour. Calibrated probabilities stay within (0, 1)."""
MAX_BYTES = 16 << 20

Floats = NDArray[np.float64]
Predictions = NDArray[np.floating[Any]]
Number = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Space = Literal["probability", "value"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Curve(_Frozen):
    """What it was fitted on, and why it is of this kind."""

    rows: int = Field(0, ge=0)
    positives: int = Field(0, ge=0)
    reason: str = ""


class Unchanged(_Curve):
    """The identity."""

    kind: Literal["none"] = "none"


class Ratio(_Curve):
    """Times ``factor``: the odds of a probability, or a value."""

    kind: Literal["ratio"] = "ratio"
    space: Space
    factor: Positive

    def moved(self, values: Floats) -> Floats:
        return values + np.log(self.factor) if self.space == "probability" else values * self.factor


class Platt(_Curve):
    """A line on the logit."""

    kind: Literal["platt"] = "platt"
    space: Literal["probability"] = "probability"
    slope: Positive
    intercept: Number

    def moved(self, values: Floats) -> Floats:
        return self.slope * values + self.intercept


class Isotonic(_Curve):
    """Lines through the knots (x, y), both strictly increasing; on logits where the space is that of probabilities."""

    kind: Literal["isotonic"] = "isotonic"
    space: Space
    x: Annotated[tuple[Number, ...], Field(min_length=2, strict=False)]
    y: Annotated[tuple[Number, ...], Field(min_length=2, strict=False)]
    below: Positive  # slope before the first knot
    above: Positive  # and after the last

    @model_validator(mode="after")
    def _increasing(self) -> "Isotonic":
        if len(self.x) != len(self.y):
            raise ValueError(f"{len(self.x)} x and {len(self.y)} y: expected as many")
        for name, knots in (("x", self.x), ("y", self.y)):
            if not (np.diff(knots) > 0).all():
                raise ValueError(f"{name} is not strictly increasing")
        return self

    def moved(self, values: Floats) -> Floats:
        x, y = np.array(self.x), np.array(self.y)
        inside: Floats = np.interp(values, x, y)
        low, high = np.minimum(values - x[0], 0.0), np.maximum(values - x[-1], 0.0)
        return inside + self.below * low + self.above * high


Curve = Annotated[Unchanged | Ratio | Platt | Isotonic, Field(discriminator="kind")]


class Calibration(_Frozen):
    """A curve per objective, in the bundle's order, and the days whose predictions they were fitted on."""

    format: Literal[1] = FORMAT
    objectives: Annotated[tuple[str, ...], Field(strict=False)]
    curves: Annotated[tuple[Curve, ...], Field(strict=False)]
    days: Annotated[tuple[str, ...], Field(strict=False)] = ()

    @model_validator(mode="after")
    def _consistent(self) -> "Calibration":
        if len(self.objectives) != len(self.curves):
            raise ValueError(f"{len(self.objectives)} objectives and {len(self.curves)} curves: expected as many")
        return self

    @classmethod
    def identity(cls, objectives: Sequence[str], reason: str) -> "Calibration":
        """Predictions as they are, and why."""
        return cls(objectives=tuple(objectives), curves=tuple(Unchanged(reason=reason) for _ in objectives))

    @property
    def is_identity(self) -> bool:
        return all(curve.kind == "none" for curve in self.curves)

    def apply(self, predictions: Predictions) -> Predictions:
        """Calibrated predictions [n, K] of predictions [n, K] in natural units.

        float64, as two float32 that differ may be closer afterwards than float32 can tell; the same array where there is
        nothing to do. What isn't finite stays as it is. Of an objective with ``given`` both are conditional.
        """
        if predictions.ndim != 2 or predictions.shape[1] != len(self.curves):
            raise ValueError(f"expected predictions [n, {len(self.curves)}], got {predictions.shape}")
        if self.is_identity:
            return predictions
        columns = [apply_curve(curve, predictions[:, k]) for k, curve in enumerate(self.curves)]
        return np.stack(columns, axis=1)

    def save(self, folder: Path) -> None:
        """Write ``calibration.json``."""
        text = json.dumps(self.model_dump(mode="json"), indent=1, sort_keys=True, allow_nan=False)
        (folder / CALIBRATION_FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, objectives: Sequence[str]) -> "Calibration":
        """Read ``calibration.json`` of a bundle's ``assets.extra``; bundles of before there was one have the identity.

        Raises:
            BundleError: it is damaged, of another format or of other objectives.
        """
        path = folder / CALIBRATION_FILE
        if not path.exists():
            return cls.identity(objectives, "the bundle has no calibration")
        found = _read(path)
        if found.objectives != tuple(objectives):
            raise BundleError(f"{path} calibrates {', '.join(found.objectives)}, expected {', '.join(objectives)}")
        return found


def apply_curve(curve: Unchanged | Ratio | Platt | Isotonic, values: Predictions) -> Floats:
    """One objective's calibrated predictions [n]."""
    raw = values.astype(np.float64)
    if curve.kind == "none":
        return raw
    with np.errstate(invalid="ignore", over="ignore"):
        moved = sigmoid(curve.moved(logit(raw))) if curve.space == "probability" else curve.moved(raw)
    return np.where(np.isfinite(raw), moved, raw)


def logit(probabilities: Floats) -> Floats:
    """log(p / (1 - p)), p brought within [LEAST, MOST]."""
    p = np.clip(probabilities, LEAST, MOST)
    return np.log(p) - np.log1p(-p)


def sigmoid(values: Floats) -> Floats:
    """1 / (1 + exp(-z))."""
    small = np.exp(-np.abs(values))
    return np.where(values >= 0, 1.0, small) / (1.0 + small)


def _read(path: Path) -> Calibration:
    try:
        data = path.read_bytes()
        if len(data) > MAX_BYTES:
            raise BundleError(f"{path} has {len(data)} bytes, expected at most {MAX_BYTES}")
        return Calibration.model_validate(json.loads(data))
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror}") from None
    except ValidationError as error:
        detail = error.errors()[0]
        where = ".".join(str(part) for part in detail["loc"])
        raise BundleError(f"{path} is not a calibration of format {FORMAT}: {where} {detail['msg']}") from None
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path} is damaged: {error}") from None
