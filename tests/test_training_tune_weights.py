"""Settings, the front, the rule, the weights file and the page, from numbers worked out by hand."""

import re
import tomllib
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from data.config import load_config
from data.errors import ConfigError
from data.experiments import load_experiment
from data.home import Home
from data.weights import read_weights
from models.ranking import Ranking
from training.off_policy import Estimate, Evidence
from training.off_policy_intervals import LeftOut
from training.tune_weights import Judged, choose, front, settings, signs
from training.tune_weights_page import render, says, table
from training.weights_file import write_weights
from watchnext import app

RANKING = Ranking(
    "weighted_product", ("click", "like", "dismiss"), (None, 0, None), np.array([1.0, 0.5, -0.5]), np.array([0.5, 0.1, 0.02])
)
EVIDENCE = Evidence(*(np.full(2, value) for value in (900.0, 300.0, 1.01, 0.001, 0.01)))


def test_settings_start_from_the_present_and_keep_signs_and_size() -> None:
    found = settings(np.array([1.0, 0.0, -0.5]), 40, 3)
    assert found[0].tolist() == [1, 0, -0.5]
    assert (found[:, :2] >= 0).all()
    assert (found[:, 2] <= 0).all()
    assert np.abs(found).sum(axis=1) == pytest.approx(1.5, rel=1e-3)
    assert len(np.unique(found, axis=0)) == 40
    assert (found[1:, 1] > 0).all()  # what has no weight yet is tried
    assert (settings(np.array([1.0, 0.0, -0.5]), 40, 3) == found).all()
    assert (settings(np.array([1.0, 0.0, -0.5]), 80, 3)[:40] == found).all()  # more settings change no number
    assert (settings(np.array([1.0, 0.0, -0.5]), 40, 4)[1:] != found[1:]).any()
    assert settings(np.zeros(2), 3, 1)[1:].sum() > 0


def test_the_front_is_what_nothing_beats() -> None:
    points = np.array([[1, 4], [2, 3], [2, 2], [3, 1], [1, 4], [0, 4]], np.float64)
    assert front(points).tolist() == [True, True, False, True, True, False]


def judged(index: int, change: list[float] | None, error: float = 0.01) -> Judged:
    """A setting that moves the objectives by these shares, with an error each."""
    estimate = Estimate(np.zeros(3), EVIDENCE)
    if change is None:
        return Judged(index, np.zeros(3), estimate, None)
    parts = np.tile(np.where(np.arange(400) % 2, 1.0, -1.0)[:, None], (1, 3)) * error / 400**0.5
    return Judged(index, np.zeros(3), estimate, LeftOut(np.array(change), np.array(change) + parts))


def test_the_rule_goes_by_what_is_sure() -> None:
    present = judged(0, [0, 0, 0], 0.0)
    sure, bold = judged(1, [0.05, -0.001, 0.0], 0.002), judged(2, [0.10, 0.0, 0.0], 0.04)
    assert choose([present, sure, bold], RANKING, "click", {}) == 1  # 0.046 for sure, against 0.02
    assert choose([present, sure, bold], RANKING, "click", {"like": -0.01}) == 1
    assert choose([present, sure, bold], RANKING, "click", {"like": -0.001}) == 0  # it may lose more
    assert choose([present, bold, judged(3, None)], RANKING, "click", {}) == 2
    assert choose([present, judged(1, [0.01, 0, 0])], RANKING, "click", {}) == 0  # not sure of anything
    less = judged(1, [0.0, 0.0, -0.2])
    assert choose([present, less], RANKING, "dismiss", {}) == 1  # fewer dismissals are more
    assert choose([present, judged(1, [0.3, 0.0, 0.2])], RANKING, "click", {"dismiss": -0.05}) == 0


@pytest.mark.parametrize(
    ("maximise", "keep", "says"),
    [
        ("clik", {}, "unknown objective 'clik': expected one of click, like, dismiss"),
        ("click", {"likes": -0.1}, "unknown objective 'likes'"),
        ("click", {"like": 0.1}, "--keep like: expected a share from -1 to 0 that may be lost at most, got 0.1"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(maximise: str, keep: dict[str, float], says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        choose([judged(0, [0, 0, 0])], RANKING, maximise, keep)


def test_nothing_is_chosen_without_an_estimate_of_the_present() -> None:
    with pytest.raises(ConfigError, match="no estimate for the current weights"):
        choose([judged(0, None), judged(1, [1, 1, 1])], RANKING, "click", {})


ABOUT = {"days": ["2026-11-01", "2026-11-02"], "rule": 'by "hand"', "none": None, "estimates": {"like": {"dr": 0.5}}}
EXPERIMENT = """
name = "tuned"
serves = "small"
salt = "s"
start = "2026-11-03"
end = "2026-11-09"
[[arms]]
name = "control"
control = true
share = 0.5
[[arms]]
name = "new"
share = 0.5
weights = "%s"
"""


def test_weights_files_are_new_versions_that_both_readers_take(home: Path) -> None:
    one = write_weights(Home(home), "small", date(2026, 11, 2), RANKING, ABOUT)
    two = write_weights(Home(home), "small", date(2026, 11, 2), replace(RANKING, weights=np.array([2.0, 0.0, -1.0])), {})
    assert [path.name for path in sorted(one.parent.iterdir())] == ["2026110201.toml", "2026110202.toml"]
    assert two.name == "2026110202.toml"
    whole = tomllib.loads(one.read_text())
    assert whole["about"] == {
        "name": "small",
        "version": 2026110201,
        "days": ["2026-11-01", "2026-11-02"],
        "rule": 'by "hand"',
        "estimates": {"like": {"dr": 0.5}},
    }
    assert read_weights(one) == {
        "combine": "weighted_product",
        "weights": {"click": 1.0, "like": 0.5, "dismiss": -0.5},
        "reference_means": {"click": 0.5, "like": 0.1, "dismiss": 0.02},
    }
    (home / "experiments").mkdir()
    (home / "experiments" / "x.toml").write_text(EXPERIMENT % "../weights/small/2026110202.toml")
    arm = load_experiment(home / "experiments" / "x.toml").treatments[0]
    assert (arm.weights["click"], arm.reference_means["dismiss"], arm.combine) == (2.0, 0.02, "weighted_product")


def test_the_configuration_takes_a_weights_file(home: Path) -> None:
    path = write_weights(Home(home), "tiny", date(2026, 11, 2), RANKING, ABOUT)
    preset = (Path(__file__).parent.parent / "training" / "presets" / "tiny.toml").read_text()
    bare = re.sub(r"(?ms)^\[ranking.*?(?=^\[(?!ranking))", "", preset)
    assert "[ranking" not in bare
    file = home / "tiny.toml"
    at = bare.index("\nname = ")
    file.write_text(f'{bare[:at]}\nranking = "{path.relative_to(home)}"{bare[at:]}')
    read = load_config(file).ranking
    assert (read.weights["like"], read.reference_means["click"], read.combine) == (0.5, 0.5, "weighted_product")
    file.write_text(f'{bare[:at]}\nranking = "gone.toml"{bare[at:]}')
    with pytest.raises(ConfigError, match=r"cannot read .*gone.toml"):
        load_config(file)


def figures(**changes: Any) -> dict[str, Any]:
    def setting(index: int, reason: str | None, on: bool) -> dict[str, Any]:
        known = reason is None
        one = {"foreseen": 1.0 + index, "foreseen_change": 0.1 * index}
        one |= {"dr": 1.0 if known else None, "dr_interval": [0.9, 1.1] if known else None}
        one |= {"snips": 1.0 if known else None, "snips_interval": [0.9, 1.1] if known else None}
        one |= {"change": 0.02 if known else None, "change_interval": [0.01, 0.03] if known else None}
        evidence = {"effective": 900.0, "effective_by_slot": [950.0, 900.0], "effective_users": 300.0}
        evidence |= {"mean_weight": 1.0, "clipped": 0.0, "cut": 0.0}
        weights = {"click": 1.0, "<b>like</b>": 0.5}
        return {"index": index, "weights": weights, "front": on, "reason": reason, **evidence} | {
            "objectives": {"click": one, "<b>like</b>": one}
        }

    few = "12 effective samples, fewer than 200"
    return {
        "name": "feed",
        "as_of": 0,
        "days": ["2026-11-01", "2026-11-02"],
        "requests": 1000,
        "users": 300,
        "sampled": 1200,
        "left_out": {"outcomes still open": 200},
        "slots": 2,
        "cut": 3,
        "candidates": 30.0,
        "explored": 0.2,
        "depends": "above",
        "explore": None,
        "seed": 1,
        "least": 200,
        "combine": "weighted_product",
        "objectives": [
            {"name": n, "family": "engagement", "kind": "binary", "better": 1.0} for n in ("click", "<b>like</b>")
        ],
        "axes": ["click", "<b>like</b>"],
        "settings": [setting(0, None, False), setting(1, None, True), setting(2, few, True), setting(3, few, False)],
        "chosen": None,
        "rule": None,
    } | changes


def test_the_page_is_self_contained_and_escapes_names() -> None:
    page = render(figures(chosen=1, rule="by hand"))
    assert "<b>like</b>" not in page
    assert "&lt;b&gt;like&lt;/b&gt;" in page
    assert not re.search(r"https?://|<script|<link|@import|url\(", page)
    assert page.count("<svg") == 2
    assert "200 (outcomes still open)" in page


def test_the_page_says_what_there_is_no_estimate_for() -> None:
    assert says(figures()) == "2 of 4 settings are near enough to what was served for an estimate. Nothing was chosen yet."
    nothing = figures()
    for one in nothing["settings"]:
        one["reason"] = "12 effective samples, fewer than 200"
        for value in one["objectives"].values():
            value |= dict.fromkeys(("dr", "dr_interval", "snips", "snips_interval", "change", "change_interval"))
    assert says(nothing) == ("Nothing can be estimated, not even the present weights: 12 effective samples, fewer than 200.")
    assert "Nothing to draw: no setting has 200 effective samples." in render(nothing)
    assert len(table(nothing).rows) == 3  # the present one and the front


def test_less_is_better_where_the_weight_is_below_zero() -> None:
    assert signs(RANKING).tolist() == [1, 1, -1]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--choose", "1", "--maximise", "like"], "expected --choose NUMBER alone, or --maximise with any --keep"),
        (["--keep", "like=-0.1"], "expected --choose NUMBER alone, or --maximise with any --keep"),
        (["--maximise", "like", "--keep", "click"], "expected OBJECTIVE=SHARE, such as like=-0.01, got 'click'"),
        (["--axes", "like"], "expected two objectives as A,B, got 'like'"),
        (["--axes", "like,liek"], "unknown objective 'liek': expected one of click"),
        ([], "no request of 'tiny' can be judged: expected sampled ones"),
    ],
)
def test_the_command_says_what_it_wants(home: Path, words: list[str], says: str) -> None:
    home.mkdir()
    result = CliRunner().invoke(app, ["tune-weights", "tiny", *words])
    assert result.exit_code == 2
    assert says in result.stderr
