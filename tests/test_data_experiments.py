"""Experiments: files that are refused with a reason, and an assignment that is sticky, fair, independent and moves few."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, chisquare

from data.errors import ConfigError
from data.experiments import (
    UNTREATED,
    Arm,
    Experiment,
    arm_of,
    assign,
    fraction,
    load_experiment,
    load_experiments,
    logged_arm,
    slices,
)

FILE = """
name = "more_likes"
serves = "feed"
salt = "more-likes-1"
start = "2026-11-01"
end = "2026-11-14"

[[arms]]
name = "control"
control = true
share = 0.5

[[arms]]
name = "likes"
share = 0.5
weights = { like = 2.0 }
"""
USERS = [f"user-{i}" for i in range(20_000)]
NOON = 1_793_534_400_000  # 2026-11-01 12:00 UTC


def experiment(
    name: str = "a", shares: tuple[float, ...] = (0.5, 0.5), salt: str | None = None, **what: object
) -> Experiment:
    arms = [Arm(name="control", share=shares[0], control=True)]
    arms += [Arm.model_validate({"name": f"arm_{i}", "share": share, **what}) for i, share in enumerate(shares[1:], 1)]
    return Experiment(name=name, serves="feed", salt=salt or name, start="2026-11-01", end="2026-11-14", arms=tuple(arms))


def places(of: Experiment) -> np.ndarray:
    names = {arm.name: i for i, arm in enumerate(of.arms)}
    return np.array([-1 if (arm := assign(of, user)) is None else names[arm.name] for user in USERS])


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text(FILE)
    read = load_experiment(tmp_path / "x.toml")
    assert (read.control.name, [arm.name for arm in read.treatments], read.days) == ("control", ["likes"], 14)
    assert read.treatments[0].weights == {"like": 2.0}
    assert read.changes == {"weights"}


def test_a_weights_file_stands_beside_it(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text(FILE.replace("{ like = 2.0 }", '"likes.toml"'))
    (tmp_path / "likes.toml").write_text("[weights]\nlike = 3.0\n")
    assert load_experiment(tmp_path / "x.toml").treatments[0].weights == {"like": 3.0}
    pinned = 'combine = "weighted_sum"\n[weights]\nlike = 3.0\n[reference_means]\nlike = 0.1\n[about]\nversion = 2\n'
    (tmp_path / "likes.toml").write_text(pinned)
    arm = load_experiment(tmp_path / "x.toml").treatments[0]
    assert (arm.weights, arm.reference_means, arm.combine) == ({"like": 3.0}, {"like": 0.1}, "weighted_sum")
    (tmp_path / "likes.toml").write_text(pinned.replace("0.1", "0.0"))
    with pytest.raises(ConfigError, match=r"like: expected a finite number above 0, got 0\.0"):
        load_experiment(tmp_path / "x.toml")
    (tmp_path / "likes.toml").write_text("like = 3.0\n")
    with pytest.raises(ConfigError, match=r"likes.toml should have a table \[weights\], and .* beside it, got like"):
        load_experiment(tmp_path / "x.toml")


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("salt =", "slat =", "slat: unknown key"),
        ("share = 0.5\nweights", "share = 0.6\nweights", "at most 1, they add up to 1.1"),
        ("control = true", "control = false", "exactly one arm should have `control = true`, 0 have"),
        ("share = 0.5\nweights", "control = true\nshare = 0.5\nweights", "2 have"),
        ('"likes"', '"control"', "two arms of one name"),
        ("2026-11-14", "2026-10-14", "start should not be after end"),
        ("2026-11-14", "soon", "expected a day as YYYY-MM-DD, got 'soon'"),
        ("weights = { like = 2.0 }", "quotas = { tpoic = 3 }", "unknown generator 'tpoic'"),
        ("like = 2.0", "like = inf", "expected a finite number, got inf"),
        ("share = 0.5\nweights", "share = 0\nweights", "greater than 0, got 0"),
        ("[[arms]]", "[[arms", "is not valid TOML"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(tmp_path: Path, old: str, new: str, what: str) -> None:
    (tmp_path / "x.toml").write_text(FILE.replace(old, new))
    with pytest.raises(ConfigError) as error:
        load_experiment(tmp_path / "x.toml")
    assert what in str(error.value)
    assert "x.toml" in str(error.value)


def test_a_folder_holds_those_of_a_name(tmp_path: Path) -> None:
    assert load_experiments(tmp_path / "nowhere", "feed") == ()
    (tmp_path / "x.toml").write_text(FILE)
    (tmp_path / "y.toml").write_text(FILE.replace('"feed"', '"other"'))
    assert [e.name for e in load_experiments(tmp_path, "feed")] == ["more_likes"]


def test_two_experiments_that_change_the_same_cannot_run_together(tmp_path: Path) -> None:
    other = FILE.replace("more_likes", "b").replace("more-likes-1", "salt-b")
    (tmp_path / "x.toml").write_text(FILE)
    (tmp_path / "y.toml").write_text(other)
    with pytest.raises(ConfigError, match="'b' and 'more_likes' both change weights on some days"):
        load_experiments(tmp_path, "feed")
    (tmp_path / "y.toml").write_text(other.replace("2026-11-01", "2026-11-15").replace("2026-11-14", "2026-11-20"))
    assert len(load_experiments(tmp_path, "feed")) == 2
    (tmp_path / "y.toml").write_text(other.replace("weights = { like = 2.0 }", "quotas = { topic = 3 }"))
    assert len(load_experiments(tmp_path, "feed")) == 2
    (tmp_path / "y.toml").write_text(other.replace("salt-b", "more-likes-1").replace("weights = { like = 2.0 }", ""))
    with pytest.raises(ConfigError, match="should differ in name and salt"):
        load_experiments(tmp_path, "feed")


def test_the_assignment_is_the_same_for_ever() -> None:
    """These values are what users in running experiments were given: a change would reshuffle them all."""
    assert [round(fraction("salt", user), 6) for user in ("u1", "u2", "é")] == [0.66116, 0.435805, 0.405469]
    assert np.array_equal(places(experiment()), places(experiment()))


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.1, 0.9), (0.8, 0.2), (0.2, 0.3, 0.1), (0.01, 0.01), (0.1, 0.1, 0.1, 0.7)])
def test_arms_get_their_shares(shares: tuple[float, ...]) -> None:
    counts = np.bincount(places(experiment(shares=shares)) + 1, minlength=len(shares) + 1)
    expected = np.array([1 - sum(shares), *shares]) * len(USERS)
    used = expected > 1e-6
    assert counts[~used].sum() == 0
    assert chisquare(counts[used], expected[used]).pvalue > 1e-4


def test_different_salts_are_independent() -> None:
    table = np.zeros((2, 2))
    np.add.at(table, (places(experiment(salt="one")), places(experiment(salt="two"))), 1)
    assert chi2_contingency(table).pvalue > 1e-4
    same = np.zeros((2, 2))
    np.add.at(same, (places(experiment(salt="one")), places(experiment(name="b", salt="one"))), 1)
    assert same[0, 1] == same[1, 0] == 0


shares_of = st.lists(st.floats(0.01, 1), min_size=2, max_size=6).map(lambda v: [x / max(1, sum(v)) for x in v])


@settings(max_examples=200, deadline=None)
@given(shares_of)
def test_slices_have_their_shares_and_do_not_overlap(shares: list[float]) -> None:
    parts = slices(shares)
    for arm, share in enumerate(shares):
        assert sum(high - low for low, high, which in parts if which == arm) == pytest.approx(share, abs=1e-9)
    assert all(high <= low + 1e-12 for (_, high, _), (low, _, _) in pairwise(parts))
    assert parts[0][0] >= 0
    assert parts[-1][1] <= 1 + 1e-12


def left(before: list[float], after: list[float]) -> float:
    """The share of users who leave their arm, for another or for none."""
    edges = sorted({0.0, 1.0, *(e for shares in (before, after) for low, high, _ in slices(shares) for e in (low, high))})

    def owner(shares: list[float], x: float) -> int:
        return next((arm for low, high, arm in slices(shares) if low <= x < high), -1)

    middles = [((a + b) / 2, b - a) for a, b in pairwise(edges)]
    owners = [(owner(before, x), owner(after, x), width) for x, width in middles]
    return sum(width for old, new, width in owners if old not in (-1, new))


def shrunk(before: list[float], after: list[float]) -> float:
    """How many must leave."""
    return sum(max(0.0, old - new) for old, new in zip(before, after, strict=True))


@settings(max_examples=200, deadline=None)
@given(st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)), st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)))
def test_between_two_arms_only_those_who_must_leave_theirs(one: tuple[float, float], two: tuple[float, float]) -> None:
    before, after = ([x / max(1, sum(shares)) for x in shares] for shares in (one, two))
    assert left(before, after) == pytest.approx(shrunk(before, after), abs=1e-6)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0.01, 0.25), min_size=4, max_size=4), st.lists(st.floats(0.01, 0.25), min_size=4, max_size=4))
def test_among_small_arms_only_those_who_must_leave_theirs(before: list[float], after: list[float]) -> None:
    assert left(before, after) == pytest.approx(shrunk(before, after), abs=1e-6)


def test_a_request_is_served_by_all_its_experiments() -> None:
    weights = experiment("a", weights={"like": 2.0})
    quotas = experiment("b", shares=(0.3, 0.3), quotas={"topic": 5}, bundle=7)
    for user in USERS[:300]:
        treatment = arm_of([weights, quotas], user, NOON, "UTC")
        one, other = assign(weights, user), assign(quotas, user)
        assert one is not None
        assert treatment.weights == (one.weights or None)
        assert treatment.bundle == (None if other is None else other.bundle)
        assert treatment.quotas == (None if other is None or not other.quotas else other.quotas)
        assert logged_arm("a", treatment.experiment, treatment.arm) == one.name
        assert logged_arm("b", treatment.experiment, treatment.arm) == (None if other is None else other.name)
        assert logged_arm("c", treatment.experiment, treatment.arm) is None


def test_outside_its_days_nobody_is_in_it() -> None:
    hour = 3_600_000
    start, end = NOON - 12 * hour, NOON - 12 * hour + 14 * 24 * hour
    inside = [arm_of([experiment()], "u", t, "UTC") is not UNTREATED for t in (start - 1, start, end - 1, end)]
    assert inside == [False, True, True, False]
    assert arm_of([experiment()], "u", start - 1, "Europe/Berlin").experiment == "a"  # there it is an hour later
    assert arm_of([], "u", start, "UTC") is UNTREATED
    assert logged_arm("a", None, None) is None
