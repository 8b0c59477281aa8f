"""training/gate.py: what promotes a challenger, what doesn't, and what decides nothing."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from data.columns import Strings
from data.config import Config
from data.errors import BundleError, ConfigError
from data.home import Home
from tests.night_log import FIRST, night_config
from training.decision import decision_path, read_decision, render, write_decision
from training.figures import Scored
from training.gate import Check, Decision, Facts, better, decide

ROWS, GOOD_FACTS = 3000, Facts(50, 0, 0.2, 1.0, 1.0, 1000, 1.0)
HEALTHY, COLLAPSED = np.array([[0.5, 0.5], [0.4, 0.6]]), np.array([[0.99, 0.01], [0.4, 0.6]])


def config(**gate: Any) -> Config:
    return night_config(gate={"margin": -0.01, "polarized": "refuse", "latency_ratio": 1.5, **gate})


def scored(skill: float = 2.0, seed: int = 0, scale: float = 1.0, utilisation: Any = HEALTHY, rows: int = ROWS) -> Scored:
    """Rows of one truth; predictions follow it the better the higher ``skill``, and are ``scale`` times too high."""
    truth = np.random.default_rng(1)
    odds = truth.normal(0, 1, (ROWS, 2)) - 1
    targets = (truth.random((ROWS, 2)) < 1 / (1 + np.exp(-skill_of_day(odds)))).astype(np.float32)
    noise = np.random.default_rng(seed + 2).normal(0, 1, (ROWS, 2))
    mixed = (skill * odds + (2 - min(skill, 2)) * noise) / 2 - (1 - skill / 2)
    predictions = (scale / (1 + np.exp(-2 * mixed))).astype(np.float32)
    user = truth.integers(0, 200, ROWS)
    tab = Strings((np.arange(ROWS) % 2).astype(np.int32), ["app", "web"])
    whole = Scored(
        FIRST, predictions, predictions, targets, user, np.arange(ROWS) // 5, None,
        np.arange(ROWS) % 10 == 0, np.zeros(ROWS, bool), {"tab": tab}, {}, np.asarray(utilisation),
    )  # fmt: skip
    return whole if rows == ROWS else take(whole, np.arange(rows))


def skill_of_day(odds: Any) -> Any:
    return 2 * odds


def take(day: Scored, rows: Any) -> Scored:
    names = ("predictions", "slate_predictions", "targets", "user", "slate", "new_user", "new_video")
    slices = {name: column.take(rows) for name, column in day.slices.items()}
    return replace(day, slices=slices, **{name: getattr(day, name)[rows] for name in names})


def check(decision: Decision, kind: str, on: str) -> Check:
    return next(check for check in decision.checks if (check.kind, check.on) == (kind, on))


def failed(decision: Decision) -> list[tuple[str, str]]:
    return [(check.kind, check.on) for check in decision.checks if check.verdict == "fail"]


def test_a_challenger_as_good_as_the_champion_is_promoted() -> None:
    decision = decide([scored(2.0)], [scored(1.9, seed=5)], GOOD_FACTS, config())
    assert (decision.promoted, decision.reasons) == (True, [])
    order = check(decision, "order", "click")
    assert order.verdict == "pass"
    assert order.figures["interval"][0] < order.figures["difference"] < order.figures["interval"][1]


def test_a_worse_challenger_is_not_and_the_reason_has_the_figures() -> None:
    decision = decide([scored(1.0)], [scored(2.0)], GOOD_FACTS, config())
    assert not decision.promoted
    assert failed(decision) == [("order", "click"), ("order", "like")]
    assert "against the champion" in decision.reasons[0]
    assert "margin -0.0100" in decision.reasons[0]


@pytest.mark.parametrize(("margin", "promoted"), [(-0.001, False), (-0.2, True)])
def test_the_lower_end_must_be_above_the_margin(margin: float, promoted: bool) -> None:
    assert decide([scored(1.7)], [scored(1.7, seed=5)], GOOD_FACTS, config(margin=margin)).promoted is promoted


def test_an_objective_can_have_a_margin_of_its_own() -> None:
    decision = decide([scored(1.0)], [scored(2.0)], GOOD_FACTS, config(margins={"click": -0.5}))
    assert failed(decision) == [("order", "like")]


def test_too_few_positives_decide_nothing_and_promote_nobody() -> None:
    few = np.flatnonzero(np.arange(ROWS) < 40)
    decision = decide([take(scored(), few)], [take(scored(1.9), few)], GOOD_FACTS, config(least_positives=50))
    assert {c.verdict for c in decision.checks if c.kind == "order"} == {"undecided"}
    assert not decision.promoted
    assert failed(decision) == [("decided objectives", "the day")]
    assert "0 of 2 decided" in decision.reasons[0]


def test_undecided_is_no_pass_but_no_failure_either() -> None:
    def without_likes(day: Scored) -> Scored:
        targets = day.targets.copy()
        targets[:, 1] = 0
        return replace(day, targets=targets)

    decision = decide([without_likes(scored())], [without_likes(scored(1.9))], GOOD_FACTS, config())
    assert decision.promoted
    assert check(decision, "order", "like").says == "0 positives, at least 30 decide"
    strict = decide([without_likes(scored())], [without_likes(scored(1.9))], GOOD_FACTS, config(least_decided=2))
    assert failed(strict) == [("decided objectives", "the day")]


def test_a_day_of_shuffled_labels_decides_nothing() -> None:
    order = np.random.default_rng(3).permutation(ROWS)

    def shuffled(day: Scored) -> Scored:
        return replace(day, targets=day.targets[order])

    decision = decide([shuffled(scored())], [shuffled(scored(1.9))], GOOD_FACTS, config(margin=-0.5))
    assert check(decision, "order", "click").says == "the day tells neither challenger nor champion from chance"
    assert not decision.promoted


def test_named_slices_are_judged_too() -> None:
    worse_on_web = scored()
    predictions = worse_on_web.predictions.copy()
    predictions[1::2] = predictions[1::2][::-1]
    worse_on_web = replace(worse_on_web, predictions=predictions, slate_predictions=predictions)
    loose = config(margin=-0.3, slices=["tab"])
    decision = decide([worse_on_web], [scored()], GOOD_FACTS, loose)
    assert failed(decision) == [("order", "click where tab is web"), ("order", "like where tab is web")]
    assert decide([scored()], [scored()], GOOD_FACTS, config(slices=["new_users", "tab"])).promoted
    named = decide([scored()], [scored()], GOOD_FACTS, config(slices=["new_users"]))
    assert check(named, "order", "click where new_users is new").verdict == "pass"


def test_a_slice_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown slice 'city': expected one of new_users, new_videos, tab"):
        decide([scored()], [scored()], GOOD_FACTS, config(slices=["city"]))


def test_without_a_champion_the_order_is_held_against_chance() -> None:
    first = replace(GOOD_FACTS, latency_ratio=None, size_ratio=None)
    assert decide([scored()], None, first, config()).promoted
    backwards = scored()
    backwards = replace(backwards, predictions=1 - backwards.predictions, slate_predictions=1 - backwards.predictions)
    decision = decide([backwards], None, first, config(calibration=[0.01, 100]))
    assert failed(decision) == [("order", "click"), ("order", "like")]


def test_predictions_far_from_the_actual_fail() -> None:
    decision = decide([scored(scale=3.0)], [scored()], GOOD_FACTS, config())
    assert failed(decision) == [("calibration", "click"), ("calibration", "like")]


def test_predictions_that_are_not_finite_fail() -> None:
    broken = scored()
    broken.predictions[7, 0] = np.nan
    decision = decide([broken], [scored()], GOOD_FACTS, config())
    assert ("calibration", "click") in failed(decision)
    assert "1 of 3000 predictions are not finite" in " ".join(decision.reasons)


def test_polarized_gates_are_refused_unless_the_champion_has_them() -> None:
    polarized = scored(utilisation=COLLAPSED)
    assert failed(decide([polarized], [scored(1.9)], GOOD_FACTS, config())) == [("gates", "the trunk")]
    as_before = decide([polarized], [scored(1.9, utilisation=COLLAPSED)], GOOD_FACTS, config())
    assert (as_before.promoted, check(as_before, "gates", "the trunk").verdict) == (True, "warn")
    assert decide([polarized], [scored(1.9)], GOOD_FACTS, config(polarized="warn")).promoted


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"rows_over": 1}, "served equals offline"),
        ({"latency_ratio": 1.6}, "latency"),
        ({"size_ratio": 2.1}, "size"),
    ],
)
def test_what_is_measured_on_the_bundle_counts(changes: dict[str, Any], kind: str) -> None:
    decision = decide([scored()], [scored(1.9)], replace(GOOD_FACTS, **changes), config())
    assert [found for found, _ in failed(decision)] == [kind]


def test_the_better_of_two_challengers() -> None:
    assert better([scored(2.0)], [scored(1.0)], config())
    assert not better([scored(1.0)], [scored(2.0)], config())
    assert not better([scored(rows=20)], [scored(1.0, rows=20)], config())  # nothing is decided: the warm start stays


def test_a_decision_is_a_file_and_a_page(tmp_path: Any) -> None:
    decision = decide([scored(1.0)], [scored()], GOOD_FACTS, config(slices=["tab"]))
    content = {
        "name": "night",
        "version": 2024030101,
        "champion": 2024022901,
        "day": "2024-03-01",
        "trained": ["2024-02-29"],
    }
    content |= {"full": None, "quarantined": ["2024-02-28"], "night": "k", **decision.as_json()}
    path = decision_path(Home(tmp_path), "night", 2024030101)
    assert read_decision(path) is None
    page = write_decision(content, path)
    assert read_decision(path) == content
    text = page.read_text()
    assert text == render(content)
    assert "not promoted" in text
    assert decision.reasons[0].replace("+", "&#43;") in text or decision.reasons[0] in text
    assert "effective experts click 2.0000, like 1.9601" in text
    assert "src=" not in text
    assert "<link" not in text
    path.write_text("{")
    with pytest.raises(BundleError, match="cannot read the decision"):
        read_decision(path)
