"""Calibration curves: values by hand, order kept, what isn't finite, and the file in the bundle."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from data.errors import BundleError
from models.calibration import CALIBRATION_FILE, Calibration, Curve, Isotonic, Platt, Ratio, Unchanged, apply_curve

NAMES = ("click", "like", "watch")


def probability_knots(**changes: Any) -> Isotonic:
    values = {"space": "probability", "x": (-2.0, 0.0, 1.0), "y": (-3.0, -1.0, 3.0), "below": 1.0, "above": 1.0}
    return Isotonic(**{**values, **changes})


def value_knots() -> Isotonic:
    return Isotonic(space="value", x=(2.0, 10.0), y=(4.0, 8.0), below=2.0, above=0.8)


def calibration() -> Calibration:
    curves = (
        Platt(slope=0.8, intercept=-0.5, rows=10, positives=3, reason="method platt"),
        probability_knots(),
        value_knots(),
    )
    return Calibration(objectives=NAMES, curves=curves, days=("2026-05-03",))


def odds(p: float) -> float:
    return p / (1 - p)


def one(curve: Curve, value: float) -> float:
    return float(apply_curve(curve, np.array([value], np.float32))[0])


def test_values_by_hand() -> None:
    assert odds(one(Platt(slope=2.0, intercept=math.log(3)), 0.2)) == pytest.approx(3 * odds(0.2) ** 2, rel=1e-6)
    assert odds(one(Ratio(space="probability", factor=0.5), 0.2)) == pytest.approx(odds(0.2) / 2, rel=1e-6)
    assert one(Ratio(space="value", factor=2.5), 4.0) == 10.0
    assert one(Unchanged(), 0.25) == 0.25
    assert [one(value_knots(), v) for v in (0.0, 1.0, 2.0, 6.0, 10.0, 20.0)] == [0.0, 2.0, 4.0, 6.0, 8.0, 16.0]
    assert odds(one(probability_knots(), 0.5)) == pytest.approx(math.exp(-1))
    assert odds(one(probability_knots(), 1 / (1 + math.exp(3)))) == pytest.approx(math.exp(-4), rel=1e-6)


@pytest.mark.parametrize(
    "curve",
    [
        Platt(slope=0.05, intercept=4.0),
        Platt(slope=3.0, intercept=-4.0),
        Ratio(space="probability", factor=1e-4),
        probability_knots(),
        probability_knots(y=(-3.0, -2.999, 3.0)),
        Ratio(space="value", factor=0.37),
        value_knots(),
    ],
    ids=lambda curve: f"{curve.kind} {curve.space}",
)
def test_order_never_changes_not_even_by_a_tie(curve: Curve) -> None:
    rng = np.random.default_rng(0)
    centres = rng.uniform(1e-6, 1 - 1e-4, 2_000) if curve.space == "probability" else rng.exponential(20, 2_000)  # type: ignore[union-attr]
    values = np.unique(np.concatenate([np.nextafter(c := np.float32(centres), np.float32(9)), c]))
    assert (np.diff(apply_curve(curve, values)) > 0).all()


@pytest.mark.parametrize(
    "curve", [Platt(slope=2.0, intercept=1.0), Ratio(space="probability", factor=7.0), probability_knots()]
)
def test_a_saturated_network_stays_within_0_and_1(curve: Curve) -> None:
    tiny, nearly = np.nextafter(np.float32(0), np.float32(1)), np.nextafter(np.float32(1), np.float32(0))
    found = apply_curve(curve, np.array([0, tiny, 0.5, nearly, 1], np.float32))
    assert ((found > 0) & (found < 1)).all()
    assert (np.diff(found) > 0).all()


def test_what_is_not_finite_stays_so_and_touches_nothing_else() -> None:
    bad = np.array([[np.nan, np.inf, -np.inf], [0.2, 0.2, 3.0]], np.float32)
    found = calibration().apply(bad)
    np.testing.assert_array_equal(found[0], bad[0])
    np.testing.assert_array_equal(found[1:], calibration().apply(bad[1:]))
    assert np.isfinite(found[1]).all()


def test_columns_are_calibrated_each_by_its_own_curve_and_rows_alone() -> None:
    predictions = np.random.default_rng(1).uniform(0.01, 0.9, (5, 3)).astype(np.float32)
    found = calibration().apply(predictions)
    for k, curve in enumerate(calibration().curves):
        np.testing.assert_array_equal(found[:, k], apply_curve(curve, predictions[:, k]))
    np.testing.assert_array_equal(found[2:3], calibration().apply(predictions[2:3]))
    assert calibration().apply(predictions[:0]).shape == (0, 3)
    with pytest.raises(ValueError, match=r"expected predictions \[n, 3\], got \(5, 2\)"):
        calibration().apply(predictions[:, :2])


def test_without_curves_predictions_are_the_same_array() -> None:
    predictions = np.ones((2, 3), np.float32)
    assert Calibration.identity(NAMES, "why").apply(predictions) is predictions


def test_the_file_brings_back_the_same_curves(tmp_path: Path) -> None:
    calibration().save(tmp_path)
    assert Calibration.load(tmp_path, NAMES) == calibration()
    assert Calibration.load(tmp_path / "nowhere", NAMES) == Calibration.identity(NAMES, "the bundle has no calibration")


@pytest.mark.parametrize(
    ("where", "value", "says"),
    [
        (("curves", 0, "slope"), -1.0, "greater than 0"),
        (("curves", 0, "slope"), None, "valid number"),
        (("curves", 0, "slope"), float("inf"), "finite"),
        (("curves", 0, "intercept"), float("nan"), "finite"),
        (("curves", 0, "kind"), "spline", "kind|tag"),
        (("curves", 1, "x"), [0.0, 0.0, 1.0], "x is not strictly increasing"),
        (("curves", 1, "y"), [0.0, 1.0], "3 x and 2 y"),
        (("curves", 2, "above"), 0.0, "greater than 0"),
        (("format",), 2, "format"),
        (("objectives",), ["click"], "1 objectives and 3 curves"),
        (("more",), 1, "more"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, where: tuple[Any, ...], value: Any, says: str) -> None:
    content = calibration().model_dump(mode="json")
    part: Any = content
    for key in where[:-1]:
        part = part[key]
    part[where[-1]] = value
    (tmp_path / CALIBRATION_FILE).write_text(json.dumps(content))
    with pytest.raises(BundleError, match=says):
        Calibration.load(tmp_path, NAMES)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1', "\x00", "[" * 100_000])
def test_a_torn_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / CALIBRATION_FILE).write_text(text)
    with pytest.raises(BundleError, match=CALIBRATION_FILE):
        Calibration.load(tmp_path, NAMES)


def test_a_file_of_other_objectives_is_refused(tmp_path: Path) -> None:
    calibration().save(tmp_path)
    with pytest.raises(BundleError, match="calibrates click, like, watch, expected click, watch, like"):
        Calibration.load(tmp_path, ("click", "watch", "like"))


def test_curves_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        calibration().curves[0].reason = "no"
