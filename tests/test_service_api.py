"""Rank and recommend over HTTP, on the small log."""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from threadpoolctl import threadpool_info

from service.schemas import Answer, ColumnsAnswer
from service.settings import Settings
from tests.service_fakes import (
    NOW,
    VERSION,
    BrokenScorer,
    Failing,
    Fixed,
    Hanging,
    client_of,
    encoder,
    metric,
    serving,
    sources,
)

SEEN = encoder().seen("u1")
KNOWN = encoder().video_ids


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with client_of() as client:
        yield client


def ask(client: TestClient, path: str = "/v1/rank", **body: Any) -> Answer:
    answer = client.post(path, json={"user_id": "u1"} | body)
    assert answer.status_code == 200, answer.text
    return Answer.model_validate(answer.json())


def ids(answer: Answer) -> list[str]:
    return [item.video_id for item in answer.items]


def test_a_product_takes_one_thread(client: TestClient) -> None:
    assert {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"} == {1}


def test_rank_scores_by_hand(client: TestClient) -> None:
    row = encoder().state.knowledge.vocabularies["video_id"].get("v1")
    assert row is not None
    click = 1 / (2 + row + 2)  # rows 0 and 1 of a table are the unseen and the null
    answer = ask(client, candidates=["v1"])
    (item,) = answer.items
    assert item.predictions["click"] == pytest.approx(click, rel=1e-6)
    assert item.predictions["watch"] == 10 * (row + 2)  # given a click: as predicted
    # weights click 1, like 0.5; means click 0.5, like 0.25; like is always 0.25
    assert item.score == pytest.approx(1.0 * click / 0.5 + 0.5 * 0.25 / 0.25, rel=1e-6)
    assert (item.position, item.generators, item.explanation) == (0, [], None)
    assert (answer.model_version, answer.degraded) == (VERSION, [])
    assert len(answer.request_id) == 32


def test_float32_predictions_are_written_short(client: TestClient) -> None:
    text = client.post("/v1/rank", json={"user_id": "u1", "candidates": ["v1"]}).text
    row = encoder().video_row("v1") + 2
    assert f'"click":{str(float(f"{1 / (2 + row):.8g}"))[:9]}' in text
    assert all(len(part) < 24 for part in text.split('"predictions":{')[1].split("}")[0].split(","))


def test_rank_answers_every_candidate_best_first(client: TestClient) -> None:
    answer = ask(client, candidates=KNOWN)
    assert sorted(ids(answer)) == sorted(KNOWN)
    assert [item.position for item in answer.items] == list(range(len(KNOWN)))
    scores = [item.score for item in answer.items]
    assert scores == sorted(scores, reverse=True)


def test_rank_returns_seen_ones_and_leaves_out_only_the_excluded(client: TestClient) -> None:
    assert SEEN
    wanted = sorted(SEEN)
    answer = ask(client, candidates=wanted, exclude=[wanted[0], "not among them"], query_video_id=wanted[1])
    assert sorted(ids(answer)) == wanted[1:]


def test_ids_may_be_integers(client: TestClient) -> None:
    answer = ask(client, user_id=17, candidates=[12, "v1", -3], exclude=[12])
    assert ids(answer) == ["-3", "v1"]


def test_unknown_ones_are_served_and_counted() -> None:
    with client_of() as client:
        answer = ask(client, user_id="nobody", candidates=["v1", "new1", "new2"])
        # Unknown videos have the learnt default, and tie: by id
        assert ids(answer) == ["new1", "new2", "v1"]
        assert answer.degraded == []
        assert metric(client, "watchnext_unknown_users_total") == 1
        assert metric(client, "watchnext_unknown_videos_total") == 2
        ask(client, candidates=["v1"])
        assert metric(client, "watchnext_unknown_users_total") == 1


def test_weights_override_key_by_key(client: TestClient) -> None:
    default = ask(client, candidates=KNOWN, weights={"click": 1.0})
    assert ids(default) == ids(ask(client, candidates=KNOWN))
    reverse = ask(client, candidates=KNOWN, weights={"click": -1})
    assert ids(reverse) == list(reversed(ids(default)))
    (one,) = ask(client, candidates=["v1"], weights={"click": 0}).items
    assert one.score == pytest.approx(0.5)  # what like's configured weight brings


def test_limit(client: TestClient) -> None:
    everything = ids(ask(client, candidates=KNOWN))
    assert ids(ask(client, candidates=KNOWN, limit=3)) == everything[:3]
    assert ids(ask(client, candidates=KNOWN, limit=2000)) == everything


def test_explain_adds_up(client: TestClient) -> None:
    weights = {"click": 1.5, "watch": 0.25, "like": -2}
    for item in ask(client, candidates=KNOWN, explain=True, weights=weights).items:
        assert item.explanation is not None
        assert item.score is not None
        contributions = item.explanation.contributions
        assert list(contributions) == ["click", "watch", "like"]
        assert math.fsum(value or 0 for value in contributions.values()) == pytest.approx(item.score)
        # watch is given a click: 0.25 * click * watch / (20 * 0.5)
        values = item.predictions
        assert contributions["watch"] == pytest.approx(0.25 * (values["click"] or 0) * (values["watch"] or 0) / 10)
        assert item.explanation.gates == {"click": [0.5, 0.5], "watch": [0.5, 0.5], "like": [0.5, 0.5]}


def test_columns_say_what_items_say(client: TestClient) -> None:
    body = {"user_id": "u1", "candidates": [*KNOWN, "new"], "limit": 3, "explain": True, "scored": True}
    items = ask(client, **body)
    answer = ColumnsAnswer.model_validate_json(client.post("/v1/rank", json=body | {"format": "columns"}).content)
    slate = answer.slate
    assert slate.video_id == ids(items)
    assert slate.score == [item.score for item in items.items]
    for name, column in slate.predictions.items():
        assert column == [item.predictions[name] for item in items.items]
    assert slate.generators == [item.generators for item in items.items]
    assert slate.explanation == [item.explanation for item in items.items]
    assert answer.candidates == items.candidates
    assert answer.candidates is not None
    assert answer.candidates.video_id[:3] == slate.video_id
    assert sorted(answer.candidates.video_id) == sorted(body["candidates"])
    assert answer.candidates.predictions["click"][:3] == slate.predictions["click"]


def test_of_all_candidates_only_the_slate_counts_as_served(client: TestClient) -> None:
    body = {"user_id": "u1", "candidates": KNOWN, "limit": 2, "scored": True, "format": "columns"}
    answer = client.post("/v1/rank", json=body).json()
    events = [
        {"event_id": f"e{place}", "request_id": answer["request_id"], "video_id": answer["candidates"]["video_id"][place]}
        for place in (1, 2)
    ]
    told = client.post("/v1/events", json={"events": [event | {"type": "view"} for event in events]}).json()
    assert [event["status"] for event in told["events"]] == ["accepted", "orphan"]


def test_columns_without_a_score_are_null() -> None:
    with client_of(serving(BrokenScorer())) as client:
        body = {"user_id": "u1", "candidates": KNOWN, "format": "columns"}
        assert None in client.post("/v1/rank", json=body).json()["slate"]["score"]


def test_all_excluded_is_an_empty_slate() -> None:
    with client_of() as client:
        assert ask(client, candidates=["v1"], exclude=["v1"]).items == []
        assert metric(client, "watchnext_empty_slates_total", route="rank") == 1


def test_two_thousand_candidates(client: TestClient) -> None:
    assert len(ask(client, candidates=[f"x{i}" for i in range(2000)]).items) == 2000


def test_an_item_does_not_depend_on_the_others(client: TestClient) -> None:
    together = {item.video_id: item for item in ask(client, candidates=[*KNOWN, "new"]).items}
    for video_id in [*KNOWN[:5], "new"]:
        (alone,) = ask(client, candidates=[video_id]).items
        assert (alone.score, alone.predictions) == (together[video_id].score, together[video_id].predictions)


def test_recommend_keeps_away_from_seen_watched_blocked_and_excluded(tmp_path: Path) -> None:
    free = [video_id for video_id in KNOWN if video_id not in SEEN]
    blocked, excluded, watching, watched, *left = free
    (tmp_path / "blocked.txt").write_text(f"\n {blocked} \n\n")
    past = [{"video_id": watched, "timestamp": NOW - 5000, "outcomes": {"watch": 10}}]
    with client_of(blocked_file=tmp_path / "blocked.txt") as client:
        body: dict[str, Any] = {"exclude": [excluded], "query_video_id": watching, "history": past, "limit": 2000}
        assert sorted(ids(ask(client, "/v1/recommend", **body))) == sorted(left)
        replaced = ask(client, "/v1/recommend", **body, history_replaces=True)
        assert sorted(ids(replaced)) == sorted(left)
        # rank leaves out only what its own `exclude` names
        assert ids(ask(client, "/v1/rank", candidates=[blocked], history=past)) == [blocked]


def test_recommend_to_a_stranger_is_twenty_by_default(client: TestClient) -> None:
    answer = ask(client, "/v1/recommend", user_id="nobody")
    assert len(answer.items) == 20
    assert {tuple(item.generators) for item in answer.items} == {("everything",)}


def test_recommend_brings_nothing_that_does_not_exist_yet(client: TestClient) -> None:
    features = encoder()
    late = int(features.valid_from.argmax())
    starts = int(features.valid_from[late])
    assert starts > 0
    body: dict[str, Any] = {"user_id": "nobody", "limit": 2000}
    assert KNOWN[late] not in ids(ask(client, "/v1/recommend", **body, timestamp=starts - 1))
    assert KNOWN[late] in ids(ask(client, "/v1/recommend", **body, timestamp=starts))


def test_provenance_is_merged() -> None:
    brought = sources(Fixed("one", [0, 1]), Fixed("two", [1, 2]))
    with client_of(serving(brought=brought)) as client:
        answer = ask(client, "/v1/recommend", user_id="nobody")
        assert {item.video_id: item.generators for item in answer.items} == {
            KNOWN[0]: ["one"],
            KNOWN[1]: ["one", "two"],
            KNOWN[2]: ["two"],
        }


def test_failing_and_late_generators_are_left_out_named_and_counted() -> None:
    hanging = Hanging()
    brought = (*sources(Failing(), Fixed("good", [0, 1])), *sources(hanging, deadline_ms=20))
    with client_of(serving(brought=brought), threads=2) as client:
        first = ask(client, "/v1/recommend", user_id="nobody")
        assert sorted(ids(first)) == sorted(KNOWN[:2])
        assert first.degraded == ["generator failing: failed", "generator hanging: late"]
        ask(client, "/v1/recommend", user_id="nobody")
        # Its two threads hang: it is left out without a wait, and the others still work
        third = ask(client, "/v1/recommend", user_id="nobody")
        assert third.degraded == ["generator failing: failed", "generator hanging: busy"]
        assert sorted(ids(third)) == sorted(KNOWN[:2])
        counts = {
            (name, reason): metric(client, "watchnext_generators_left_out_total", generator=name, reason=reason)
            for name, reason in [("failing", "failed"), ("hanging", "late"), ("hanging", "busy")]
        }
        assert counts == {("failing", "failed"): 3, ("hanging", "late"): 2, ("hanging", "busy"): 1}
        hanging.release.set()


def test_no_generator_at_all_is_an_empty_slate() -> None:
    with client_of(serving(brought=sources(Failing()))) as client:
        answer = ask(client, "/v1/recommend")
        assert (answer.items, answer.degraded) == ([], ["generator failing: failed"])
        assert metric(client, "watchnext_empty_slates_total", route="recommend") == 1


def test_generators_keep_to_their_quota_and_to_the_catalogue() -> None:
    brought = sources(Fixed("greedy", range(20)), quota=4) + sources(Fixed("idle", range(20)), quota=0)
    with client_of(serving(brought=brought)) as client:
        answer = ask(client, "/v1/recommend", user_id="nobody")
        assert sorted(ids(answer)) == sorted(KNOWN[:4])
        assert {tuple(item.generators) for item in answer.items} == {("greedy",)}


def test_predictions_that_are_not_finite_sink_and_are_counted() -> None:
    with client_of(serving(BrokenScorer())) as client:
        answer = ask(client, candidates=KNOWN, explain=True)
        sunk = [item for item in answer.items if item.score is None]
        assert len(sunk) == sum(row % 2 == 1 for row in range(2, len(KNOWN) + 2))
        assert answer.items[-len(sunk) :] == sunk
        assert ids(answer)[-len(sunk) :] == sorted(item.video_id for item in sunk)
        assert all(item.predictions["watch"] is None and item.predictions["click"] is not None for item in sunk)
        assert answer.degraded == [f"{len(sunk)} of {len(KNOWN)} candidates have no finite score"]
        assert metric(client, "watchnext_not_finite_total") == len(sunk)


def test_history_and_context_change_features_only_as_asked(client: TestClient) -> None:
    past = [{"video_id": "v2", "timestamp": NOW - 1000 * n, "outcomes": {"watch": 9.5, "click": True}} for n in range(1, 4)]
    plain = ask(client, candidates=["v1"], context={"tab": 1, "battery": 0.5}, history=past)
    text = ask(client, candidates=["v1"], context={"tab": "1", "battery": 0.5}, history=list(reversed(past)))
    assert plain.items == text.items


def test_absent_context_is_counted() -> None:
    with client_of() as client:
        ask(client, candidates=["v1"], context={"tab": "1"})
        assert metric(client, "watchnext_null_context_total", feature="battery") == 1
        assert metric(client, "watchnext_null_context_total", feature="tab") == 0


def test_counts_that_are_not_of_this_morning_are_counted() -> None:
    as_of = encoder().as_of
    with client_of() as client:
        for timestamp, stale in ((as_of, 0), (as_of + 86_399_999, 0), (as_of + 86_400_000, 1)):
            ask(client, candidates=["v1"], timestamp=timestamp)
            assert metric(client, "watchnext_stale_counts_total") == stale


def test_requests_at_once_answer_as_one_by_one(client: TestClient) -> None:
    bodies = [{"user_id": f"u{n % 12}", "candidates": KNOWN[n % 7 :], "timestamp": NOW + n} for n in range(40)]
    alone = [ask(client, **body).items for body in bodies]
    with ThreadPoolExecutor(8) as pool:
        together = [answer.items for answer in pool.map(lambda body: ask(client, **body), bodies)]
    assert together == alone


def test_blocked_file_that_is_missing_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="cannot read WATCHNEXT_BLOCKED_FILE"), client_of(blocked_file=tmp_path / "none"):
        pass


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setenv("WATCHNEXT_THREADS", "3")
    monkeypatch.setenv("WATCHNEXT_NAME", "kuairand")
    settings = Settings()
    assert (settings.threads, settings.name, settings.home_folder().root) == (3, "kuairand", home)
