"""The figures of scored days: metrics, reasons, slices, baselines, gates; and the rows on disk."""

import json
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.columns import Strings
from data.config import Config, parse_config
from training.baselines import PastRates
from training.figures import Scored, evaluate
from training.measure import COMPARED, METRICS, WITHOUT_INTERVAL


def _config(resamples: int = 40, slices: tuple[str, ...] = ("tab",)) -> Config:
    values: dict[str, Any] = {
        "name": "test",
        "dataset": "test",
        "seed": 3,
        "log": {"context": {"tab": {"type": "category"}}},
        "labels": {"click": {"type": "binary"}, "seconds": {"type": "number"}},
        "features": [{"kind": "category", "name": "user", "column": "user_id"}],
        "objectives": [
            {"name": "click", "label": "click", "family": "engagement", "kind": "binary"},
            {"name": "watch_time", "label": "seconds", "family": "engagement", "kind": "regression"},
        ],
        "evaluation": {"bootstrap": resamples, "slices": list(slices)},
    }
    return parse_config(values, "test")


def _day(number: int, n: int = 300, **changes: Any) -> Scored:
    rng = np.random.default_rng(number)
    user = rng.integers(0, 40, n)
    p = rng.random(n)
    seconds = rng.exponential(20 * p)
    targets = np.stack([rng.random(n) < p, np.where(rng.random(n) < 0.2, np.nan, seconds)], 1).astype(np.float32)
    predictions = np.stack([p, 20 * p], 1).astype(np.float32)
    day = Scored(
        day=date(2026, 5, number),
        predictions=predictions,
        slate_predictions=(predictions * rng.uniform(0.9, 1, (n, 1))).astype(np.float32),
        targets=targets,
        user=user.astype(np.int64),
        slate=(user // 2).astype(np.int64),
        is_exploration=rng.random(n) < 0.2,
        new_user=user > 35,
        new_video=rng.random(n) < 0.1,
        slices={"tab": Strings.of([None if i % 50 == 0 else f"t{i % 3}" for i in range(n)])},
        baselines={"constant": np.tile(np.float32([0.5, 10]), (n, 1))},
        utilisation=np.array([[0.5, 0.5, 0.0], [0.2, 0.8, 0.0]]),
    )
    return replace(day, **changes)


def _first(n: int, **changes: Any) -> Scored:
    """A day of which only the first n rows are left."""
    day = _day(3, **changes)
    rows = {name: getattr(day, name)[:n] for name in ("predictions", "slate_predictions", "targets", "user", "slate")}
    flags = {name: getattr(day, name)[:n] for name in ("is_exploration", "new_user", "new_video")}
    slices = {name: column.take(np.arange(n)) for name, column in day.slices.items()}
    return replace(day, **rows, **flags, slices=slices, baselines={k: v[:n] for k, v in day.baselines.items()})


def test_every_figure_has_value_interval_or_reason() -> None:
    figures = evaluate([_day(3), _day(4)], _config())
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    groups = [figures["objectives"], *figures["by_day"].values()]
    groups += [group for values in figures["slices"].values() for group in values.values()]
    for group in groups:
        for objective in group.values():
            for name in METRICS:
                assert (objective[name] is None) == (name in objective["undefined"]), name
                if objective[name] is not None and name not in WITHOUT_INTERVAL:
                    known = objective[f"{name}_interval"] is not None
                    assert known != (f"{name}_interval" in objective["undefined"])
            for baseline in objective["baselines"].values():
                for name in COMPARED:
                    assert (baseline["difference"][name] is None) == (name in baseline["difference"]["undefined"])


def test_values_and_counts_of_the_window_and_its_days() -> None:
    days = [_day(3), _day(4)]
    figures = evaluate(days[::-1], _config())
    click, watch = figures["objectives"]["click"], figures["objectives"]["watch_time"]
    y = np.concatenate([day.targets for day in days])
    p = np.concatenate([day.predictions for day in days])
    assert figures["days"] == ["2026-05-03", "2026-05-04"]
    assert click["count"] == 600
    assert click["positives"] == int(y[:, 0].sum())
    known = ~np.isnan(y[:, 1])
    assert watch["count"] == int(known.sum())
    assert watch["mae"] == pytest.approx(np.abs(p[known, 1] - y[known, 1]).mean(), rel=1e-6)
    assert watch["undefined"]["auc"] == watch["undefined"]["gauc"] == "regression"
    assert click["undefined"]["mse"] == "binary"
    low, high = click["auc_interval"]
    assert low < click["auc"] < high
    assert click["auc_slate"] != click["auc"]
    counts = [figures["by_day"][day]["click"]["count"] for day in figures["days"]]
    assert counts == [300, 300]


def test_raw_figures_stand_beside_those_of_what_is_served() -> None:
    days = [_day(3), _day(4)]
    plain = evaluate(days, _config())["objectives"]
    for objective in plain.values():
        assert objective["raw"] == {key: objective[key] for key in ("ece", "log_loss", "predicted_over_actual")}
        assert objective["raw_calibration"] == []
    served = [replace(d, predictions=d.predictions.astype(float) / 2, raw_predictions=d.predictions) for d in days]
    halved = evaluate(served, _config())["objectives"]
    for name, objective in halved.items():
        assert objective["raw"] == plain[name]["raw"]
        assert objective["raw_calibration"] == plain[name]["calibration"]
        half = plain[name]["predicted_over_actual"] / 2
        assert objective["predicted_over_actual"] == pytest.approx(half)
        for metric in ("auc", "order_accuracy"):
            assert objective[metric] == plain[name][metric]
    assert halved["click"]["ece"] > 3 * halved["click"]["raw"]["ece"]


def test_slates_of_one_number_on_two_days_are_two() -> None:
    # pooled, slate 0 would have both classes
    small = {"click": [1.0, 0.0]}
    days = []
    for number, target in zip((3, 4), small["click"], strict=True):
        day = _day(number, n=1)
        days.append(replace(day, targets=np.float32([[target, 1]]), slate=np.zeros(1, np.int64)))
    click = evaluate(days, _config())["objectives"]["click"]
    assert click["auc"] is not None
    assert click["gauc"] is None
    assert click["undefined"]["gauc"] == "no slate has both classes"
    assert click["gauc_share"] == 0


def test_gauc_is_of_the_slate_time_scores() -> None:
    day = _day(3)
    reversed_in_slates = replace(day, slate_predictions=-day.predictions)
    here, there = (
        evaluate([d], _config(0))["objectives"]["click"]
        for d in (replace(day, slate_predictions=day.predictions), reversed_in_slates)
    )
    assert there["gauc"] == pytest.approx(1 - here["gauc"])
    assert there["auc_slate"] == pytest.approx(1 - here["auc"])
    assert there["auc"] == here["auc"]


@pytest.mark.parametrize(
    ("target", "reason"), [(0.0, "one class only: no positives"), (1.0, "one class only: no negatives")]
)
def test_one_class(target: float, reason: str) -> None:
    targets = _day(3).targets.copy()
    targets[:, 0] = target
    click = evaluate([_day(3, targets=targets)], _config())["objectives"]["click"]
    assert click["auc"] is None
    assert click["undefined"]["auc"] == reason
    assert click["log_loss"] > 0
    assert ("predicted_over_actual" in click["undefined"]) == (target == 0)
    difference = click["baselines"]["constant"]["difference"]
    assert difference["auc"] is None
    assert difference["undefined"]["auc"] == reason


def test_an_objective_without_rows_and_no_rows_at_all() -> None:
    day = _day(3)
    masked = day.targets.copy()
    masked[:, 1] = np.nan
    watch = evaluate([replace(day, targets=masked)], _config())["objectives"]["watch_time"]
    assert watch["count"] == 0
    assert watch["undefined"]["mae"] == "no rows"
    assert watch["calibration"] == []
    for empty in (evaluate([], _config()), evaluate([_first(0)], _config())):
        assert empty["objectives"]["click"]["undefined"]["auc"] == "no rows"
        assert empty["gates"]["polarized"] is None


def test_equal_targets_of_a_regression_have_no_order() -> None:
    targets = np.ones((300, 2), np.float32)
    watch = evaluate([_day(3, targets=targets)], _config())["objectives"]["watch_time"]
    assert watch["undefined"]["order_accuracy"] == "all targets are equal"
    assert watch["undefined"]["slate_order_accuracy"] == "no slate has two different targets"


def test_predictions_that_are_not_finite_are_named() -> None:
    predictions = _day(3).predictions.copy()
    predictions[:2, 0] = np.inf, np.nan
    click = evaluate([_day(3, predictions=predictions)], _config())["objectives"]["click"]
    assert click["undefined"]["auc"] == "2 of 300 predictions are not finite"
    assert click["predicted_mean"] is None


def test_one_user_has_no_interval() -> None:
    click = evaluate([_day(3, user=np.zeros(300, np.int64))], _config())["objectives"]["click"]
    assert click["auc"] is not None
    assert click["auc_interval"] is None
    assert click["undefined"]["auc_interval"].startswith("one user")


def test_slices() -> None:
    day = _day(3)
    slices = evaluate([day], _config())["slices"]
    assert slices["new_user"]["new"]["click"]["count"] == day.new_user.sum()
    assert slices["new_video"]["new"]["click"]["count"] == day.new_video.sum()
    assert slices["exploration"]["exploration"]["click"]["count"] == day.is_exploration.sum()
    assert list(slices["tab"]) == ["t0", "t1", "t2", "(none)"]  # equally often: by name
    assert slices["tab"]["(none)"]["click"]["count"] == 6
    assert "exploration" not in evaluate([replace(day, is_exploration=None)], _config())["slices"]


def test_rare_values_of_a_slice_are_pooled_over_days_of_different_codes() -> None:
    one = _day(3, slices={"tab": Strings.of([f"v{i % 20:02}" for i in range(300)])})
    two = _day(4, slices={"tab": Strings.of([f"v{(i + 7) % 20:02}" for i in range(300)])})
    tab = evaluate([one, two], _config(0))["slices"]["tab"]
    assert list(tab) == [*(f"v{i:02}" for i in range(10)), "(other)"]
    assert tab["v00"]["click"]["count"] == 30
    assert tab["(other)"]["click"]["count"] == 300


def test_a_slice_column_that_was_not_scored_counts_as_none() -> None:
    assert list(evaluate([_day(3, slices={})], _config(0))["slices"]["tab"]) == ["(none)"]


def test_baselines_stand_beside_with_a_paired_difference() -> None:
    day = _day(3)
    click = evaluate([day], _config())["objectives"]["click"]
    constant = click["baselines"]["constant"]
    assert constant["auc"] == 0.5
    assert constant["difference"]["auc"] == pytest.approx(click["auc"] - 0.5)
    low, high = constant["difference"]["auc_interval"]
    assert 0 < low < high
    assert constant["difference"]["log_loss"] < 0
    itself = replace(day, baselines={"champion": day.predictions}, slate_baselines={"champion": day.slate_predictions})
    champion = evaluate([itself], _config())["objectives"]["click"]["baselines"]["champion"]
    assert champion["difference"]["auc_interval"] == [0, 0]
    assert champion["difference"]["gauc_interval"] == [0, 0]
    assert champion["gauc"] == click["gauc"]


def test_a_baseline_of_some_rows_is_compared_on_those() -> None:
    first, second = _day(3, baselines={}), _day(4)
    click = evaluate([first, second], _config())["objectives"]["click"]
    alone = evaluate([second], _config())["objectives"]["click"]
    assert click["baselines"]["constant"]["count"] == 300
    assert click["baselines"]["constant"]["difference"]["auc"] == pytest.approx(alone["auc"] - 0.5)
    nowhere = evaluate([_day(3, baselines={"champion": np.full((300, 2), np.nan, np.float32)})], _config())
    assert nowhere["objectives"]["click"]["baselines"]["champion"]["undefined"]["auc"] == "no rows"


def test_calibration_bins_hold_all_rows() -> None:
    bins = evaluate([_day(3)], _config())["objectives"]["click"]["calibration"]
    assert [b["count"] for b in bins] == [20] * 15
    predicted = [b["predicted"] for b in bins]
    assert predicted == sorted(predicted)
    assert all(0 <= b["actual"] <= 1 for b in bins)


def test_gates_weigh_days_by_rows() -> None:
    one = _day(3)
    two = replace(_day(4, n=100), utilisation=np.array([[0.1, 0.5, 0.4], [0.2, 0.8, 0.0]]))
    gates = evaluate([one, two], _config(0))["gates"]
    np.testing.assert_allclose(gates["utilisation"]["click"], [0.4, 0.5, 0.1])
    assert gates["dead_experts"] == []
    assert evaluate([one], _config(0))["gates"]["dead_experts"] == [2]
    assert evaluate([one], _config(0))["gates"]["polarized"] is True


def test_twice_the_same() -> None:
    assert evaluate([_day(3)], _config()) == evaluate([_day(3)], _config())


@pytest.mark.parametrize("exploration", [True, False])
def test_save_and_load(tmp_path: Path, exploration: bool) -> None:
    day = _day(3, slate_baselines={"constant": np.ones((300, 2), np.float32)})
    if not exploration:
        day = replace(day, is_exploration=None, predictions=day.predictions / 3.0, raw_predictions=day.predictions)
    day.save(tmp_path / "deep" / "day.npz")
    back = Scored.load(tmp_path / "deep" / "day.npz")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["day.npz"]
    for name in (
        "predictions",
        "slate_predictions",
        "targets",
        "user",
        "slate",
        "new_user",
        "new_video",
        "utilisation",
        "raw",
    ):
        np.testing.assert_array_equal(getattr(back, name), getattr(day, name))
        assert getattr(back, name).dtype == getattr(day, name).dtype
    assert back.day == day.day
    assert back.slices["tab"].tolist() == day.slices["tab"].tolist()
    assert (back.is_exploration is None) == (day.is_exploration is None)
    assert (back.raw_predictions is None) == (day.raw_predictions is None)
    assert evaluate([back], _config()) == evaluate([day], _config())


def test_rows_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(ValueError, match="300 rows and 2 objectives"):
        _day(3, user=np.zeros(299, np.int64))
    with pytest.raises(ValueError, match="utilisation"):
        _day(3, utilisation=np.ones((3, 2)))


def test_past_rates_by_hand() -> None:
    past = PastRates(2, strength=2.0)
    assert np.isnan(past.constant(1)).all()
    assert np.isnan(past.video(np.array([0]))).all()
    past.add(np.array([0, 0, 3, -1]), np.float32([[1, 10], [1, np.nan], [0, 20], [0, np.nan]]))
    np.testing.assert_allclose(past.constant(2), [[0.5, 15], [0.5, 15]])
    # video 0: (2 + 0.5 * 2) / (2 + 2) and (10 + 15 * 2) / (1 + 2); videos 1, 9 and -1 are not met
    expected = [[0.75, 40 / 3], [0.5, 15], [0.5, 15], [0.5, 15]]
    np.testing.assert_allclose(past.video(np.array([0, 1, 9, -1])), expected, rtol=1e-6)
    past.add(np.array([9]), np.float32([[1, 30]]))
    np.testing.assert_allclose(past.video(np.array([9]))[0], [(1 + 0.6 * 2) / 3, (30 + 20 * 2) / 3], rtol=1e-6)
    assert set(past.baselines(np.array([0]))) == {"constant", "video_rate"}
