"""Fitting calibration: against optima found otherwise, at its thresholds, and on the rows that it is fitted on."""

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.isotonic import IsotonicRegression

from data.config import Config
from models.calibration import Platt, Ratio, apply_curve, logit, sigmoid
from tests.night_log import night_config
from training.calibrate import MANY, Rows, calibrate, fit_curve, isotonic, platt, pool, ratio
from training.calibration_rows import DayRows, newest
from training.metrics import auc, ece, log_loss

SEED = 3


def binary(n: int = 4_000, rate: float = -1.0, bend: Any = lambda z: 0.6 * z - 0.7, days: int = 4, seed: int = SEED) -> Rows:
    """Raw predictions of logit z, and outcomes of logit ``bend(z)``."""
    rng = np.random.default_rng(seed)
    z = rng.normal(rate, 1.5, n)
    targets = (rng.random(n) < sigmoid(bend(z))).astype(np.float64)
    return Rows("probability", sigmoid(z).astype(np.float32).astype(np.float64), targets, np.arange(n) * days // n + 738_000)


def values(n: int = 4_000) -> Rows:
    rng = np.random.default_rng(SEED)
    predictions = rng.exponential(8, n)
    return Rows("value", predictions, rng.exponential(2.5 * predictions), np.arange(n) * 4 // n + 738_000)


def with_positives(rows: Rows, positives: int) -> Rows:
    """The same predictions, so many positives among the highest of them."""
    targets = np.zeros(len(rows))
    targets[np.argsort(-rows.predictions)[::2][:positives]] = 1
    return Rows(rows.space, rows.predictions, targets, rows.day)


def test_platt_is_the_optimum_of_its_corrected_targets() -> None:
    rows = binary()
    positives, negatives = rows.targets.sum(), (1 - rows.targets).sum()
    target = np.where(rows.targets > 0, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    z = logit(rows.predictions)

    def loss(point: Any) -> float:
        moved = point[0] * z + point[1]
        return float((np.logaddexp(0, moved) - target * moved).mean())

    best = minimize(loss, [1, 0], method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-14, "maxiter": 5_000}).x
    found = platt(rows)
    np.testing.assert_allclose([found.slope, found.intercept], best, atol=1e-5)
    assert (found.slope, found.intercept) == (pytest.approx(0.6, abs=0.06), pytest.approx(-0.7, abs=0.1))


def test_platt_of_what_tells_nothing_or_the_wrong_way_keeps_the_order_and_the_mean() -> None:
    rows = binary(bend=lambda z: -z)
    found = platt(rows)
    assert found.slope == 0.05
    assert apply_curve(found, rows.predictions).mean() == pytest.approx(rows.targets.mean(), abs=1e-3)
    separated = Rows("probability", rows.predictions, (rows.predictions > 0.5).astype(float), rows.day)
    assert platt(separated).slope == 3.0


def test_pooling_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(SEED)
    y, weights = rng.normal(np.arange(60) / 10, 2), rng.uniform(1, 5, 60)
    expected = IsotonicRegression().fit(np.arange(60.0), y, weights).predict(np.arange(60.0))
    np.testing.assert_allclose(pool(y, weights), expected, atol=1e-12)


@pytest.mark.parametrize("rows", [binary(20_000), values(20_000)], ids=["probability", "value"])
def test_isotonic_goes_through_the_means_of_its_blocks(rows: Rows) -> None:
    found = isotonic(rows)
    assert found is not None
    assert len(found.x) > 10
    calibrated = apply_curve(found, rows.predictions)
    assert calibrated.mean() == pytest.approx(rows.targets.mean(), rel=0.01)
    for part in np.array_split(np.argsort(rows.predictions), 5):
        assert calibrated[part].mean() == pytest.approx(rows.targets[part].mean(), rel=0.1)
    assert (calibrated > 0).all()


def test_isotonic_of_what_has_no_order_is_none_and_the_simple_curve_stands_in() -> None:
    rows = binary(bend=lambda z: -z)
    assert isotonic(rows) is None
    found = fit_curve(rows, "isotonic")
    assert (found.kind, found.reason) == ("platt", "isotonic would be constant")


def test_the_ratio_makes_the_means_agree() -> None:
    for rows in (binary(), with_positives(binary(), 7), values()):
        found = ratio(rows)
        assert apply_curve(found, rows.predictions).mean() == pytest.approx(rows.targets.mean(), rel=1e-6)
    exact = Rows("value", np.array([2.0, 6.0]), np.array([5.0, 15.0]), np.zeros(2, np.int64))
    assert ratio(exact).factor == 2.5


@pytest.mark.parametrize(
    ("positives", "method", "kind"),
    [
        (0, "auto", "none"),
        (1, "auto", "ratio"),
        (99, "auto", "ratio"),
        (100, "auto", "platt"),
        (99, "platt", "ratio"),
        (100, "platt", "platt"),
        (99, "isotonic", "ratio"),
        (999, "isotonic", "platt"),
        (1_000, "isotonic", "isotonic"),
        (1_000, "ratio", "ratio"),
        (4_000, "auto", "none"),
        (3_950, "auto", "ratio"),
    ],
)
def test_thresholds(positives: int, method: str, kind: str) -> None:
    found = fit_curve(with_positives(binary(8_000), positives) if positives < 3_900 else _rare_negatives(positives), method)
    assert (found.kind, found.positives) == (kind, positives)
    assert found.reason


def _rare_negatives(positives: int) -> Rows:
    rows = binary()
    return Rows(rows.space, rows.predictions, (np.arange(4_000) < positives).astype(float), rows.day)


@pytest.mark.parametrize(
    ("n", "method", "kind"), [(999, "isotonic", "ratio"), (1_000, "isotonic", "isotonic"), (0, "auto", "none")]
)
def test_thresholds_of_values(n: int, method: str, kind: str) -> None:
    assert fit_curve(values(n), method).kind == kind


def test_values_that_sum_to_nothing_have_no_ratio() -> None:
    rows = values()
    found = fit_curve(Rows("value", rows.predictions, np.zeros(len(rows)), rows.day), "auto")
    assert (found.kind, found.reason) == ("none", "the predictions or the targets don't sum to more than 0")


def test_auto_takes_isotonic_only_where_the_newest_day_wants_it() -> None:
    straight, bent = binary(40_000), binary(40_000, bend=lambda z: np.where(z < -1, 0.1 * z - 1.5, 2 * z + 0.4))
    line, curve = fit_curve(straight, "auto"), fit_curve(bent, "auto")
    assert (line.kind, curve.kind) == ("platt", "isotonic")
    assert "differs by" in line.reason
    one_day = Rows(bent.space, bent.predictions, bent.targets, np.zeros(len(bent), np.int64))
    assert fit_curve(one_day, "auto").kind == "platt"


@pytest.mark.parametrize("method", ["platt", "isotonic", "ratio", "auto"])
def test_rows_not_seen_are_calibrated_better_and_ordered_alike(method: str) -> None:
    rows, unseen = binary(30_000), binary(30_000, seed=SEED + 1)
    found = apply_curve(fit_curve(rows, method), unseen.predictions)
    y, raw = unseen.targets, unseen.predictions
    assert auc(y, found) == auc(y, raw)
    assert (ece(y, found) or 0) < (ece(y, raw) or 0) / (1.5 if method == "ratio" else 5)
    assert (log_loss(y, found) or 0) < (log_loss(y, raw) or 0)


def config(**calibration: Any) -> Config:
    return night_config(calibration=calibration)


def day_rows(number: int, n: int = 300, like: bool = True, settings: Config | None = None) -> DayRows:
    rng = np.random.default_rng(number)
    predictions = rng.uniform(0.1, 0.6, (n, 2)).astype(np.float32)
    targets = (rng.random((n, 2)) < predictions / 2).astype(np.float32)
    if not like:
        targets[:, 1] = np.nan
    return DayRows.of(date(2026, 5, number), predictions, targets, settings or config())


def test_each_objective_is_fitted_on_the_newest_days_on_which_it_is_known() -> None:
    days = [day_rows(n, like=n < 4) for n in range(1, 8)]
    found = calibrate(days, config(days=2))
    assert found.days == ("2026-05-02", "2026-05-03", "2026-05-06", "2026-05-07")
    assert [curve.rows for curve in found.curves] == [600, 600]
    assert found == calibrate(days[::-1], config(days=2))
    clicks = np.concatenate([day.targets[:, 0] for day in days[-2:]])
    assert found.curves[0].positives == clicks.sum()


def test_without_rows_there_is_a_reason() -> None:
    for found, reason in (
        (calibrate([], config()), "no rows were scored before they were trained on"),
        (calibrate([day_rows(1)], config(method="none")), "calibration.method is none"),
    ):
        assert found.is_identity
        assert {curve.reason for curve in found.curves} == {reason}


def test_predictions_that_are_not_finite_are_left_out() -> None:
    good, bad = day_rows(1), day_rows(1)
    bad.predictions[:10, 0] = np.nan
    good.targets[:10, 0] = np.nan
    assert calibrate([bad], config()).curves[0] == calibrate([good], config()).curves[0]


def test_a_large_day_keeps_a_sample_that_its_seed_decides() -> None:
    whole, small = day_rows(1), config(rows_per_day=100)
    sample, again = (day_rows(1, settings=small) for _ in range(2))
    assert len(whole.place) == 300
    assert len(set(sample.place.tolist())) == 100
    np.testing.assert_array_equal(sample.place, again.place)
    np.testing.assert_array_equal(sample.predictions, whole.predictions[sample.place])
    assert sample.place.tolist() != day_rows(2, settings=small).place.tolist()


def test_labels_that_close_later_are_filled_in() -> None:
    day = day_rows(1, like=False, settings=config(rows_per_day=50))
    known = np.full((300, 2), np.nan, np.float32)
    known[:, 1] = np.arange(300)
    closed = day.closed(known)
    np.testing.assert_array_equal(closed.targets[:, 1], day.place)
    np.testing.assert_array_equal(closed.targets[:, 0], day.targets[:, 0])


def test_days_are_kept_as_long_as_an_objective_needs_them() -> None:
    days = [day_rows(n, like=n < 3) for n in range(1, 8)]
    kept = newest(days, 2, [date(2026, 5, 4)])
    assert [day.day.day for day in kept] == [1, 2, 4, 6, 7]
    assert newest([], 2, []) == []


def test_rows_come_back_from_disk(tmp_path: Path) -> None:
    day = day_rows(1, like=False)
    day.save(tmp_path / "day=2026-05-01")
    back = DayRows.load(tmp_path / "day=2026-05-01")
    assert back.day == day.day
    for name in ("place", "predictions", "targets"):
        np.testing.assert_array_equal(getattr(back, name), getattr(day, name))
        assert getattr(back, name).dtype == getattr(day, name).dtype


def test_the_curves_are_of_the_kinds_that_the_thresholds_ask_for() -> None:
    found = calibrate([day_rows(1, n=4 * MANY)], config())
    assert [type(curve) for curve in found.curves] == [Platt, Platt]
    assert [type(curve) for curve in calibrate([day_rows(1)], config()).curves] == [Ratio, Ratio]
