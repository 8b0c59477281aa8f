"""Events over HTTP, the log of what was served, and what the next slate makes of both."""

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from starlette.testclient import TestClient

from data.errors import WatchNextError
from data.features.request import RequestFeatures
from data.feedback.store import Feedback, FeedbackError
from models.scorer import Scores
from service.events_api import MAX_EVENTS
from service.serving import Serving
from tests.service_fakes import CONFIG, NOW, VERSION, FakeScorer, client_of, encoder, metric, serving
from tests.small_log import small_config

MINUTE = 60_000
UNSEEN = [video for video in encoder().video_ids if video not in encoder().seen("u1")]


class Hand:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.time = NOW

    def __call__(self) -> int:
        return self.time


@pytest.fixture
def clock() -> Hand:
    return Hand()


@pytest.fixture
def client(home: Path, clock: Hand) -> Iterator[TestClient]:
    with client_of(clock=clock) as client:
        yield client


def rank(client: TestClient, **body: Any) -> dict[str, Any]:
    reply = client.post("/v1/rank", json={"user_id": "u1", "candidates": ["v1", "v2", "v3"], **body})
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def recommend(client: TestClient, **body: Any) -> list[str]:
    reply = client.post("/v1/recommend", json={"user_id": "u1", "limit": 2000, **body})
    assert reply.status_code == 200, reply.text
    return [item["video_id"] for item in reply.json()["items"]]


def send(client: TestClient, *events: dict[str, Any]) -> list[tuple[str, str | None]]:
    reply = client.post("/v1/events", json={"events": list(events)})
    assert reply.status_code == 202, reply.text
    fates = reply.json()["events"]
    assert [fate["event_id"] for fate in fates] == [event["event_id"] for event in events]
    return [(fate["status"], fate["reason"]) for fate in fates]


def event(number: int, answer: dict[str, Any], kind: str, video: str = "v1", **more: Any) -> dict[str, Any]:
    return {"event_id": f"e{number}", "request_id": answer["request_id"], "video_id": video, "type": kind, **more}


def rows(home: Path, statement: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(home / "watchnext.db") as connection:
        return connection.execute(statement).fetchall()


def test_every_fate(client: TestClient, clock: Hand) -> None:
    answer = rank(client)
    clock.time += MINUTE
    fates = send(
        client,
        event(1, answer, "view"),
        event(2, answer, "click", timestamp=NOW + 5),
        event(2, answer, "click"),
        event(3, answer, "watch", value=12.5, user_id="u1"),
        event(4, answer, "watch", value=-1),
        event(5, answer, "watch"),
        event(6, answer, "applause"),
        event(7, answer, "like", video="v9"),
        event(8, {"request_id": "never"}, "like"),
        event(9, answer, "like", user_id="u2"),
        event(10, answer, "like", timestamp=NOW - 10**9),
        event(11, answer, "view", timestamp=NOW + 10**9),
    )
    assert fates == [
        ("accepted", None),
        ("accepted", None),
        ("duplicate", None),
        ("accepted", None),
        ("rejected", "negative"),
        ("rejected", "value"),
        ("rejected", "type"),
        ("orphan", "video"),
        ("orphan", "request"),
        ("orphan", "user"),
        ("accepted", "early"),
        ("accepted", "future"),
    ]
    clock.time += CONFIG.window("like") + 1
    assert send(client, event(12, answer, "like"), event(1, answer, "view")) == [("late", None), ("duplicate", None)]
    counts = {s: metric(client, "watchnext_events_total", status=s) for s in ("accepted", "duplicate", "rejected", "orphan")}
    assert counts == {"accepted": 5, "duplicate": 2, "rejected": 3, "orphan": 3}
    assert metric(client, "watchnext_events_total", status="late") == 1


def test_what_was_accepted_is_on_disk(client: TestClient, home: Path) -> None:
    answer = rank(client)
    send(client, event(1, answer, "view"), event(2, answer, "applause"))
    assert rows(home, "select event_id, user_id, type, received_at, fate from events") == [
        ("e1", "u1", "view", NOW, "accepted")
    ]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ([], "body"),
        ({}, "events"),
        ({"events": []}, "events"),
        ({"events": [{}] * (MAX_EVENTS + 1)}, "events"),
        ({"events": [{"request_id": "r", "video_id": "v", "type": "view"}]}, "events[0].event_id"),
        ({"events": [{"event_id": "e", "request_id": "r", "video_id": "v", "type": ""}]}, "events[0].type"),
        ({"events": [{"event_id": "e", "request_id": "", "video_id": "v", "type": "view"}]}, "events[0].request_id"),
        ({"events": [{"event_id": "x" * 257, "request_id": "r", "video_id": "v", "type": "view"}]}, "events[0].event_id"),
        ({"events": [{"event_id": "e", "request_id": "r", "video_id": "v", "type": "view", "kind": 1}]}, "events[0].kind"),
        ({"events": [{"event_id": "e", "request_id": "r", "video_id": 1.5, "type": "view"}]}, "events[0].video_id"),
        (
            {"events": [{"event_id": "e", "request_id": "r", "video_id": "v", "type": "x", "value": "7"}]},
            "events[0].value",
        ),
        (
            {"events": [{"event_id": "e", "request_id": "r", "video_id": "v", "type": "x", "timestamp": 1.5}]},
            "events[0].timestamp",
        ),
    ],
)
def test_a_malformed_batch_names_the_field(client: TestClient, body: Any, field: str) -> None:
    reply = client.post("/v1/events", json=body)
    assert reply.status_code == 422
    assert reply.headers["content-type"] == "application/problem+json"
    assert [error["field"] for error in reply.json()["errors"]] == [field]


def test_a_number_that_is_none_is_malformed(client: TestClient) -> None:
    text = '{"events": [{"event_id": "e", "request_id": "r", "video_id": "v", "type": "x", "value": NaN}]}'
    reply = client.post("/v1/events", content=text, headers={"content-type": "application/json"})
    assert (reply.status_code, reply.json()["errors"][0]["field"]) == (422, "events[0].value")


def test_before_a_bundle_events_are_to_be_sent_again() -> None:
    def none(_: Any) -> Serving:
        raise WatchNextError("not yet")

    body = {"events": [{"event_id": "e", "request_id": "r", "video_id": "v", "type": "view"}]}
    with client_of(none) as client:
        reply = client.post("/v1/events", json=body)
        assert (reply.status_code, "retry-after" in reply.headers) == (503, True)


def test_a_disk_that_fails_is_said_and_ranking_goes_on(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise FeedbackError("disk I/O error")

    answer = rank(client)
    for method in ("accept", "profile"):
        monkeypatch.setattr(Feedback, method, fail)
    reply = client.post("/v1/events", json={"events": [event(1, answer, "view")]})
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
    assert "disk I/O" not in reply.text
    again = rank(client)
    assert again["degraded"] == ["profile: left out"]
    assert len(again["items"]) == 3
    assert metric(client, "watchnext_profiles_left_out_total") == 1


def test_the_log_tells_all_that_was_served(client: TestClient, home: Path, clock: Hand) -> None:
    context = {"tab": 1, "battery": 0.25}
    answer = rank(client, context=context, query_video_id="v9", weights={"like": 2.0}, explain=True, limit=2)
    send(client, event(1, answer, "view"))  # written behind the slate
    (row,) = rows(
        home,
        "select request_id, name, user_id, timestamp, answered_at, route, query_video_id, context, weights, model_version,"
        " experiment, arm, rebuildable, candidates from served",
    )
    assert row[:7] == (answer["request_id"], "small", "u1", NOW, NOW, "rank", "v9")
    assert (json.loads(row[7]), json.loads(row[8])) == (context, {"click": 1.0, "watch": 0.0, "like": 2.0})
    assert row[9:] == (VERSION, None, None, 1, None)
    items = rows(
        home,
        "select position, video_id, score, predictions, generators, propensity, is_exploration from served_items"
        " order by position",
    )
    assert [(position, video) for position, video, *_ in items] == [
        (item["position"], item["video_id"]) for item in answer["items"]
    ]
    for (_, _, score, predictions, generators, propensity, explored), item in zip(items, answer["items"], strict=True):
        assert score == item["score"]
        assert json.loads(predictions) == pytest.approx(item["predictions"], rel=1e-6)
        assert (generators, propensity, explored) == ("", 1.0, 0)
        assert (item["explanation"]["propensity"], item["explanation"]["is_exploration"]) == (1.0, False)


@pytest.mark.parametrize(
    ("body", "rebuildable"),
    [
        ({}, 1),
        ({"timestamp": NOW - 5}, 1),
        ({"timestamp": NOW + 1}, 0),
        ({"timestamp": encoder().state.boundary - 1}, 0),
        ({"history": [{"video_id": "v1", "timestamp": NOW - 5}]}, 0),
        ({"history_replaces": True}, 0),
    ],
)
def test_what_the_log_can_rebuild(client: TestClient, home: Path, body: dict[str, Any], rebuildable: int) -> None:
    send(client, event(1, rank(client, **body), "view"))
    assert rows(home, "select rebuildable from served") == [(rebuildable,)]


def test_a_defect_of_the_log_fails_no_answer(monkeypatch: pytest.MonkeyPatch, client: TestClient) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("a secret of the inside")

    monkeypatch.setattr(Feedback, "log_served", fail)
    assert len(rank(client)["items"]) == 3
    assert metric(client, "watchnext_served_log_failures_total") == 1


def test_predictions_that_are_not_finite_are_logged_as_null(home: Path) -> None:
    class Broken(FakeScorer):
        def score(self, *blocks: Any) -> Scores:
            scores = super().score(*blocks)
            scores.predictions[0, 1] = np.nan
            return scores

    config = small_config(ranking={"combine": "weighted_sum", "weights": {"click": 1.0}}, exploration={"sample": 1.0})
    with client_of(replace(serving(Broken()), config=config)) as client:
        send(client, event(1, rank(client), "view"))
    (score, predictions), *_ = rows(home, "select score, predictions from served_items where video_id = 'v1'")
    assert (score, json.loads(predictions)["watch"]) == (None, None)
    ((candidates,),) = rows(home, "select candidates from served")
    whole = orjson.loads(candidates)
    assert whole["video_ids"] == ["v1", "v2", "v3"]
    assert whole["scores"][0] is None
    assert whole["predictions"]["watch"][0] is None
    assert whole["predictions"]["like"] == [0.25] * 3


def test_a_sampled_request_logs_what_was_not_shown_too(home: Path) -> None:
    config = small_config(ranking={"combine": "weighted_sum", "weights": {"click": 1.0}}, exploration={"sample": 1.0})
    with client_of(replace(serving(), config=config)) as client:
        answer = client.post("/v1/recommend", json={"user_id": "nobody", "limit": 1}).json()
    ((candidates,),) = rows(home, "select candidates from served")
    whole = orjson.loads(candidates)
    assert sorted(whole["video_ids"]) == sorted(encoder().video_ids)
    place = whole["video_ids"].index(answer["items"][0]["video_id"])
    assert whole["scores"][place] == answer["items"][0]["score"] == max(whole["scores"])
    assert whole["generators"][place] == ["everything"]


def test_recommend_explores_and_rank_does_not_unless_asked(home: Path) -> None:
    config = small_config(exploration={"share": 1.0, "sample": 0.0})
    known = encoder().video_ids
    with client_of(replace(serving(), config=config)) as client:

        def explored(path: str, **body: Any) -> set[bool]:
            body = {"user_id": "nobody", "explain": True} | ({"candidates": known} if path == "/v1/rank" else {}) | body
            items = client.post(path, json=body).json()["items"]
            return {item["explanation"]["is_exploration"] for item in items}

        assert explored("/v1/recommend") == {True}
        assert explored("/v1/recommend", explore=False) == {False}
        assert explored("/v1/rank") == {False}
        assert explored("/v1/rank", explore=True) == {True}
        assert metric(client, "watchnext_explored_slots_total") == 20 + len(known)
    logged = rows(
        home,
        "select position, propensity from served_items join served using (request_id)"
        " where is_exploration and route = 'rank' order by position",
    )
    score = len(known)
    assert [propensity for _, propensity in logged] == pytest.approx([1 / (score - place) for place, _ in logged])


def test_explored_slates_keep_away_from_what_must_not_be_returned() -> None:
    config = small_config(exploration={"share": 1.0})
    with client_of(replace(serving(), config=config)) as client:
        assert set(recommend(client, exclude=UNSEEN[:2])) == set(UNSEEN[2:])


def test_what_was_viewed_is_not_recommended_again(client: TestClient, clock: Hand) -> None:
    before = client.post("/v1/recommend", json={"user_id": "u1", "limit": 2000}).json()
    assert {item["video_id"] for item in before["items"]} == set(UNSEEN)
    first, second, *_ = UNSEEN
    clock.time += 1
    send(client, event(1, before, "view", first), event(2, before, "like", second))
    clock.time += 1
    assert set(recommend(client)) == set(UNSEEN[2:])
    assert set(recommend(client, history_replaces=True)) == set(UNSEEN[2:])
    assert set(recommend(client, user_id="nobody")) == set(encoder().video_ids)  # of others nothing changes


def test_a_restart_forgets_nothing(home: Path, clock: Hand) -> None:
    with client_of(clock=clock) as client:
        before = client.post("/v1/recommend", json={"user_id": "u1", "limit": 2000}).json()
        send(client, event(1, before, "view", UNSEEN[0]))
    clock.time += 1
    with client_of(clock=clock) as client:
        assert set(recommend(client)) == set(UNSEEN[1:])
        assert send(client, event(1, before, "view", UNSEEN[0])) == [("duplicate", None)]


class Watching:
    """The encoder of a service, and what it was asked and said last."""

    def __init__(self) -> None:
        self.said: list[RequestFeatures] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(encoder(), name)

    def request(self, *args: Any) -> RequestFeatures:
        self.said.append(encoder().request(*args))
        return self.said[-1]


def test_events_are_in_the_features_of_the_next_request(home: Path, clock: Hand) -> None:
    watching = Watching()
    with client_of(replace(serving(), features=watching), clock=clock) as client:  # type: ignore[arg-type]
        answer = rank(client)
        clock.time += 1
        send(client, event(1, answer, "like"), event(2, answer, "click"))
        rank(client)  # at the very moment of the events: not after them
        clock.time += 1
        rank(client)
        clock.time += 30_000  # the feedback delay of a click
        rank(client)
        own = {"video_id": "v2", "timestamp": clock.time - MINUTE, "outcomes": {"click": 1}}
        rank(client, history=[own])
        rank(client, user_id="u2")
    first, same, liked, clicked, brought, other = watching.said[-6:]
    assert np.array_equal(first.user.ints, same.user.ints)
    assert not np.array_equal(same.user.ints, liked.user.ints)
    assert first.watched == same.watched == liked.watched
    assert clicked.watched == ("v1", *first.watched)[: len(clicked.watched)]
    assert brought.watched[:1] == ("v2",)  # in place of what the events told
    assert other.watched == encoder().request("u2", {}, clock.time).watched


def test_arms_of_experiments_are_logged_and_change_the_weights(home: Path) -> None:
    (home / "experiments").mkdir(parents=True)
    (home / "experiments" / "likes.toml").write_text(
        'name = "likes"\nserves = "small"\nsalt = "s"\nstart = "2024-03-01"\nend = "2024-12-31"\n'
        '[[arms]]\nname = "control"\ncontrol = true\nshare = 0.5\n'
        '[[arms]]\nname = "more"\nshare = 0.5\nweights = { like = 7.0, gone = 1.0 }\n'
    )
    with client_of() as client:
        for number in range(12):
            answer = rank(client, user_id=f"u{number}")
            assert rank(client, user_id=f"u{number}", weights={"like": 3.0})["items"]
        send(client, event(1, answer, "view"))
    logged = rows(home, "select user_id, experiment, arm, weights from served")
    assert len(logged) == 24
    assert {arm for _, _, arm, _ in logged} == {"control", "more"}
    assert {experiment for _, experiment, _, _ in logged} == {"likes"}
    assert len({(user, arm) for user, _, arm, _ in logged}) == 12
    weights = {(arm, json.loads(text)["like"]) for _, _, arm, text in logged}
    assert weights == {("control", 0.5), ("control", 3.0), ("more", 7.0), ("more", 3.0)}
