"""From served items and events to rows of the log, by values worked out by hand."""

import math
from typing import Any

import numpy as np
import pytest

from data.columns import Batch
from data.config import Config
from data.feedback.outcomes import log_rows
from data.feedback.requests import Happened, Request, Shown, as_arrays
from data.feedback.windows import closed_labels, final_at, impression_window, read_labels
from tests.feedback_world import HOUR, feedback_config, start_of
from tests.small_log import FIRST_DAY, rows_of

CONFIG = feedback_config()
T = 1_709_300_000_000


def request(*happened: tuple[str, str, float | None, int], config: Config = CONFIG, as_of: int = 100 * HOUR) -> Batch:
    """Rows of a request at T for videos a, b, c, answered 50 ms later, after events (video, type, value, ms since T)."""
    one = Request("r", "small", "u", T, T + 50, "q", {"tab": "1", "battery": 0.5}, True, [])
    one.items = [Shown(video, place, 0.5, place == 1) for place, video in enumerate("abc")]
    for number, (video, kind, value, after) in enumerate(happened):
        one.add(Happened(f"e{number}", video, kind, value, T + after))
    return log_rows(config, *as_arrays(config, [one]), T + as_of)


def row(*happened: tuple[str, str, float | None, int], **options: Any) -> dict[str, Any]:
    (only,) = rows_of(request(*happened, **options))
    return only


def test_an_item_nobody_saw_is_no_impression() -> None:
    assert len(request()) == 0
    assert rows_of(request(("b", "view", None, 5)))[0]["video_id"] == "b"


def test_a_row_has_what_the_request_had() -> None:
    seen = row(("b", "view", None, 5))
    expected = {"user_id": "u", "request_id": "r", "query_video_id": "q", "timestamp": T, "tab": "1", "battery": 0.5}
    assert expected.items() <= seen.items()
    assert (seen["position"], seen["propensity"], seen["is_exploration"]) == (1, 0.5, 1)
    assert seen["seen_at"] == seen["visible_at"] == T + 5


def test_any_event_makes_an_impression_and_a_later_view_does_not_move_it() -> None:
    assert row(("a", "like", None, 30))["seen_at"] == T + 30
    assert row(("a", "like", None, 30), ("a", "view", None, 90))["seen_at"] == T + 30


@pytest.mark.parametrize(("after", "value"), [(HOUR, 1.0), (HOUR + 1, 0.0)])
def test_a_binary_label_is_one_if_an_event_came_within_the_window(after: int, value: float) -> None:
    found = row(("a", "view", None, 5), ("a", "click", None, after))
    assert (found["click"], found["click_visible_at"]) == (value, T + HOUR)


def test_a_positive_is_known_from_its_first_event_on() -> None:
    found = row(("a", "view", None, 5), ("a", "click", None, 70), ("a", "click", None, 90), as_of=71)
    assert (found["click"], found["click_visible_at"]) == (1.0, T + 70)


def test_an_absent_outcome_is_known_when_its_window_has_closed_and_no_earlier() -> None:
    view = ("a", "view", None, 5)
    at_the_end, after = (row(view, as_of=time) for time in (HOUR, HOUR + 1))
    assert math.isnan(at_the_end["click"])
    assert math.isnan(at_the_end["click_visible_at"])
    assert (after["click"], after["click_visible_at"]) == (0.0, T + HOUR)


def test_a_label_without_an_absent_value_stays_null() -> None:
    assert math.isnan(row(("a", "view", None, 5))["watch"])


def test_a_number_is_the_sum_of_all_its_events_once_the_window_has_closed() -> None:
    events = [
        ("a", "watch", 0.1, 5),
        ("a", "watch", 0.2, 5),
        ("a", "watch", 0.3, 2 * HOUR),
        ("a", "watch", 9.0, 2 * HOUR + 1),
    ]
    done = row(*events)
    assert (done["watch"], done["watch_visible_at"]) == (0.1 + 0.2 + 0.3, T + 2 * HOUR)
    assert math.isnan(row(*events, as_of=2 * HOUR)["watch"])


def test_a_rating_is_the_last_one_by_time_then_id() -> None:
    assert row(("a", "stars", 5.0, 9), ("a", "stars", 2.0, 4))["rating"] == 5.0
    assert row(("a", "stars", 5.0, 9), ("a", "stars", 2.0, 9))["rating"] == 2.0


def test_nothing_becomes_an_impression_after_the_longest_window_that_features_read() -> None:
    assert read_labels(CONFIG) == {"click", "watch", "like"}
    assert impression_window(CONFIG) == 6 * HOUR
    assert len(request(("a", "view", None, 6 * HOUR))) == 1
    assert len(request(("a", "view", None, 6 * HOUR + 1), ("a", "stars", 3.0, 7 * HOUR))) == 0
    assert row(("a", "view", None, 1), ("a", "stars", 3.0, 7 * HOUR))["rating"] == 3.0


def test_an_outcome_is_not_known_before_its_impression() -> None:
    late = row(("a", "view", None, 3 * HOUR))
    assert (late["click"], late["click_visible_at"], late["visible_at"]) == (0.0, T + 3 * HOUR, T + 3 * HOUR)


def test_only_what_came_before_is_known() -> None:
    assert len(request(("a", "view", None, 5), as_of=5)) == 0
    known = row(("a", "view", None, 5), ("a", "like", None, 7), as_of=7)
    assert math.isnan(known["like"])


def test_with_served_impressions_the_first_places_are_seen_when_the_slate_was_taken_in() -> None:
    config = feedback_config(events={"impression": "served", "above_fold": 2})
    rows = rows_of(request(("a", "view", None, 90), ("c", "click", None, 80), config=config))
    assert [(r["video_id"], r["seen_at"] - T) for r in rows] == [("a", 50), ("b", 50), ("c", 80)]
    assert len(request(config=config, as_of=50)) == 0


def test_rows_come_in_the_logs_order_whatever_the_slates() -> None:
    one = Request("r2", "small", "u", T, T, None, {}, True, [Shown("b", 0, None, None), Shown("a", 1, None, None)])
    two = Request("r1", "small", "u", T - 1, T, None, {}, True, [Shown("z", 0, None, None)])
    for number, (which, video) in enumerate([(one, "b"), (one, "a"), (two, "z"), (one, "never shown")]):
        which.add(Happened(str(number), video, "view", None, T + 1))
    rows = log_rows(CONFIG, *as_arrays(CONFIG, [one, two]), T + 2)
    assert rows.strings("video_id").tolist() == ["z", "a", "b"]


def test_items_of_requests_of_one_user_and_time_stand_between_each_other() -> None:
    one = Request("r1", "small", "u", T, T, None, {}, True, [Shown("c", 0, 0.1, None), Shown("a", 1, 0.2, None)])
    two = Request("r2", "small", "u", T, T, None, {}, True, [Shown("b", 0, 0.3, True), Shown("c", 1, 0.4, None)])
    told = [(two, "b", "like"), (one, "c", "watch"), (one, "a", "view"), (two, "c", "watch"), (two, "c", "watch")]
    for number, (which, video, kind) in enumerate(told):
        which.add(Happened(f"e{number}", video, kind, 2.0**number, T + 9 - number))
    rows = rows_of(log_rows(CONFIG, *as_arrays(CONFIG, [two, one]), T + 3 * HOUR))
    found = [(r["video_id"], r["request_id"], r["position"], r["propensity"], r["seen_at"] - T) for r in rows]
    assert found == [("a", "r1", 1, 0.2, 7), ("b", "r2", 0, 0.3, 9), ("c", "r1", 0, 0.1, 8), ("c", "r2", 1, 0.4, 5)]
    np.testing.assert_equal([r["watch"] for r in rows], [math.nan, math.nan, 2.0, 24.0])
    np.testing.assert_equal([r["like"] for r in rows], [math.nan, 1.0, math.nan, math.nan])


def test_a_day_is_final_by_what_features_read_and_closes_label_by_label() -> None:
    end = start_of(CONFIG, 1)
    assert final_at(CONFIG, FIRST_DAY) == end + 6 * HOUR
    assert closed_labels(CONFIG, FIRST_DAY, end + 6 * HOUR) == ("click", "watch", "like")
    assert closed_labels(CONFIG, FIRST_DAY, end + 40 * HOUR) == ("click", "watch", "like", "rating")
    assert closed_labels(CONFIG, FIRST_DAY, end + HOUR - 1) == ()
    patient = feedback_config(events={"final_after": 60.0})
    assert final_at(patient, FIRST_DAY) == end + 6 * HOUR + 60_000
