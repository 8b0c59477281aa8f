"""The canary's bands, what is counted for them, and who is in its share: values worked out by hand."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.bands import Figures, left
from service.canary import position
from service.inputs import to_query
from service.observability import Metrics
from service.pipeline import Slate, rank
from service.runtime import Runtime
from service.schemas import RankRequest
from service.serving import Serving
from service.settings import Settings
from service.shadow import rank_correlation, top_overlap
from service.tallies import PLACES, REMEMBERED, Tallies
from tests.service_fakes import NOW, BrokenScorer, serving

SETTINGS = Settings(canary_minimum=100)


def figures(**changes: Any) -> Figures:
    usual: dict[str, Any] = {
        "slates": 1000,
        "latency": 0.010,
        "candidates": 100_000,
        "unknown_videos": 1_000,
        "unknown_users": 50,
        "context": 2_000,
        "nulls": 100,
        "views": 10_000,
        "predicted": {"click": 1_000.0, "dismiss": 100.0},
        "positives": {"click": 1_000, "dismiss": 100},
    }
    return Figures(**(usual | changes))


def test_equal_sides_are_within_every_band() -> None:
    assert left(figures(), figures(), SETTINGS) is None
    assert left(Figures(), Figures(), Settings(canary_minimum=1)) is None  # nothing known, nothing said


@pytest.mark.parametrize(
    ("changes", "band"),
    [
        ({"errors": 21}, "errors"),  # 21 of 1021 is 2.06%
        ({"latency": 0.0201}, "latency"),
        ({"unknown_videos": 11_001}, "unknown_videos"),
        ({"unknown_users": 151}, "unknown_users"),
        ({"nulls": 301}, "null_features"),
        ({"positives": {"click": 1_600, "dismiss": 100}, "predicted": {"click": 1_600.0, "dismiss": 100.0}}, "rate_click"),
        ({"positives": {"click": 600, "dismiss": 100}, "predicted": {"click": 600.0, "dismiss": 100.0}}, "rate_click"),
        ({"positives": {"click": 1_000, "dismiss": 200}, "predicted": {"click": 1_000.0, "dismiss": 200.0}}, "rate_dismiss"),
        ({"predicted": {"click": 1_600.0, "dismiss": 100.0}}, "predicted_click"),
        ({"predicted": {"click": 600.0, "dismiss": 100.0}}, "predicted_click"),
    ],
)
def test_each_band_is_left_by_what_is_just_outside(changes: dict[str, Any], band: str) -> None:
    found = left(figures(), figures(**changes), SETTINGS)
    assert found is not None
    assert found[0] == band
    assert "champion" in found[1]


@pytest.mark.parametrize(
    "changes",
    [
        {"errors": 20},  # 20 of 1020 is 1.96%
        {"latency": 0.0199},
        {"latency": 0.001},
        {"unknown_videos": 10_999},
        {"nulls": 299},
        {"positives": {"click": 1_450, "dismiss": 100}, "predicted": {"click": 1_450.0, "dismiss": 100.0}},
        {"predicted": {"click": 1_450.0, "dismiss": 100.0}},
        {"positives": {"click": 1_000}, "predicted": {"click": 1_000.0}},  # an objective that only one has
    ],
)
def test_and_not_by_what_is_just_inside(changes: dict[str, Any]) -> None:
    assert left(figures(), figures(**changes), SETTINGS) is None


@pytest.mark.parametrize("champion", [True, False])
def test_too_few_of_either_side_are_not_judged(champion: bool) -> None:
    many, few = figures(errors=0), figures(slates=0, errors=99, views=99, positives={"click": 99, "dismiss": 0})
    assert left(*((few, many) if champion else (many, few)), SETTINGS) is None


def test_a_rate_must_be_clearly_outside() -> None:
    """Of 200 views each, 6 clicks against 12 is a ratio of 0.52, and well within chance."""
    few = figures(views=200, positives={"click": 12}, predicted={"click": 12.0})
    fewer = figures(views=200, positives={"click": 6}, predicted={"click": 6.0})
    assert left(few, fewer, SETTINGS) is None
    ten = (
        {"positives": {"click": 120}, "predicted": {"click": 120.0}},
        {"positives": {"click": 60}, "predicted": {"click": 60.0}},
    )
    assert left(figures(views=2_000, **ten[0]), figures(views=2_000, **ten[1]), SETTINGS) is not None


def test_chance_alone_seldom_withdraws_a_canary_that_is_looked_at_all_the_time() -> None:
    random, withdrawn = np.random.default_rng(7), 0
    for _ in range(100):
        clicks = random.random((2, 5_000)) < 0.05
        sums = clicks.cumsum(axis=1)
        for views in range(200, 5_000, 50):
            one, other = (
                figures(views=views, positives={"click": int(s[views])}, predicted={"click": 0.05 * views}) for s in sums
            )
            if left(one, other, Settings()) is not None:
                withdrawn += 1
                break
    assert withdrawn <= 5


def test_half_the_clicks_are_noticed() -> None:
    random, noticed = np.random.default_rng(8), 0
    for _ in range(50):
        one, other = (int((random.random(5_000) < rate).sum()) for rate in (0.05, 0.025))
        before = figures(views=5_000, positives={"click": one}, predicted={"click": 250.0})
        noticed += (
            left(before, figures(views=5_000, positives={"click": other}, predicted={"click": 125.0}), SETTINGS) is not None
        )
    assert noticed >= 45


def test_no_click_at_all_is_noticed() -> None:
    none = figures(positives={"click": 0, "dismiss": 100})
    assert (left(figures(), none, SETTINGS) or ("",))[0] == "rate_click"


@given(st.text(max_size=300), st.text(max_size=40))
def test_a_place_is_the_same_every_time_and_within_0_and_1(user: str, salt: str) -> None:
    assert 0 <= position(salt, user) == position(salt, user) < 1


def test_places_are_uniform_and_another_salt_gives_others() -> None:
    users = [f"u{i}" for i in range(20_000)]
    one, other = (np.array([position(salt, user) for user in users]) for salt in ("a", "b"))
    counts = np.histogram(one, 10, (0, 1))[0]
    assert ((counts - 2_000) ** 2 / 2_000).sum() < 27.9  # chi-square with 9 degrees of freedom, p = 0.001
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.03
    assert {u for u, p in zip(users, one, strict=True) if p < 0.05} < {u for u, p in zip(users, one, strict=True) if p < 0.1}


# What is counted


@dataclass
class Happened:
    request_id: str
    video_id: str
    type: str


@pytest.fixture
def runtime(tmp_path: Any) -> Any:
    runtime = Runtime(Settings(home=tmp_path), Metrics(), frozenset())
    yield runtime
    runtime.lane.close()
    runtime.gatherer.close()


def slate_of(bundle: Serving, runtime: Runtime, request_id: str = "r1", **body: Any) -> Slate:
    request = RankRequest.model_validate({"user_id": "u1", "candidates": ["v1", "v2", "nobody's"]} | body)
    return rank(to_query(request, None, bundle, NOW, request_id), bundle, runtime)


def test_slates_and_outcomes_by_hand(runtime: Runtime) -> None:
    champion = serving()
    other = serving()
    object.__setattr__(other, "version", champion.version + 1)
    tallies = Tallies(champion, other)
    first = slate_of(champion, runtime)
    tallies.answered(first, champion, 0.010)
    tallies.answered(slate_of(champion, runtime, "r2", user_id="stranger", context={"tab": "1"}), champion, 0.030)
    click = dict(zip(first.candidates.video_ids, first.scores.predictions[:, 0].tolist(), strict=True))
    tallies.events(
        [
            Happened("r1", "v1", "view"),
            Happened("r1", "v1", "click"),
            Happened("r1", "v1", "click"),  # once an item
            Happened("r1", "v2", "like"),  # a view too: clients lose some
            Happened("r1", "v2", "view"),
            Happened("r1", "v9", "view"),  # was not in the slate
            Happened("r9", "v1", "click"),  # nobody knows this request
            Happened("r1", "v1", "watch"),  # a number
        ]
    )
    got = tallies.figures(champion.version)
    assert (got.slates, got.errors, got.requests, got.views) == (2, 0, 2, 2)
    assert (got.candidates, got.unknown_videos, got.unknown_users) == (6, 2, 1)
    assert (got.context, got.nulls) == (2 * len(champion.config.log.context), 2 * len(champion.config.log.context) - 1)
    assert got.latency == pytest.approx(0.029)
    assert got.positives == {"click": 1, "like": 1}
    assert got.predicted["click"] == pytest.approx(click["v1"] + click["v2"])
    assert got.predicted["like"] == pytest.approx(0.5)
    assert tallies.figures(other.version) == Figures(
        latency=pytest.approx(math.nan, nan_ok=True), predicted={"click": 0, "like": 0}, positives={"click": 0, "like": 0}
    )


def test_a_score_that_is_not_finite_is_an_error(runtime: Runtime) -> None:
    champion = serving(BrokenScorer())
    tallies = Tallies(champion, champion)
    tallies.answered(slate_of(champion, runtime), champion, 0.01)
    tallies.failed(champion.version)
    tallies.failed(1)  # some other version
    got = tallies.figures(champion.version)
    assert (got.slates, got.errors) == (0, 2)


def test_what_is_remembered_is_bounded(runtime: Runtime) -> None:
    champion = serving()
    tallies = Tallies(champion, champion)
    long = slate_of(champion, runtime, candidates=[f"v{i}" for i in range(100)])
    tallies.answered(long, champion, 0.01)
    shown = [long.candidates.video_ids[place] for place in long.filled.shown.tolist()]
    tallies.events([Happened("r1", shown[PLACES - 1], "view"), Happened("r1", shown[PLACES], "view")])
    assert tallies.figures(champion.version).views == 1
    slate = slate_of(champion, runtime)
    for number in range(REMEMBERED):
        object.__setattr__(slate.query, "request_id", f"later {number}")
        tallies.answered(slate, champion, 0.01)
    tallies.events([Happened("r1", shown[0], "view")])
    assert tallies.figures(champion.version).views == 1
    assert len(tallies._shown) == REMEMBERED


# What a shadow is compared by


def test_rank_correlation_by_hand() -> None:
    def of(*values: float) -> Any:
        return np.array(values)

    assert rank_correlation(of(1, 2, 3), of(10, 20, 900)) == pytest.approx(1)
    assert rank_correlation(of(1, 2, 3), of(3, 2, 1)) == pytest.approx(-1)
    assert rank_correlation(of(1, 2, 3, 4), of(1, 3, 2, 4)) == pytest.approx(0.8)
    assert rank_correlation(of(1, 1, 2), of(1, 2, 3)) == pytest.approx(0.8660254)  # ranks 0.5, 0.5, 2
    assert rank_correlation(of(1, 1), of(1, 2)) is None
    assert rank_correlation(of(1), of(1)) is None
    assert rank_correlation(of(), of()) is None
    assert rank_correlation(of(1, 2, -np.inf), of(1, 2, -np.inf)) == pytest.approx(1)  # what is not finite ranks last


def test_top_overlap_by_hand() -> None:
    one, other = np.array([4.0, 3.0, 2.0, 1.0]), np.array([1.0, 3.0, 4.0, 2.0])
    assert [top_overlap(one, other, top) for top in (1, 2, 3, 4, 10)] == [0, 0.5, 2 / 3, 1, 1]
    assert top_overlap(np.zeros(0), np.zeros(0), 10) == 1
