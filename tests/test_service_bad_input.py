"""Bad input is the client's fault, and says so: 4xx, problem details, the field named; never a 500."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from service.problems import MEDIA_TYPE, ProblemDetails
from service.schemas import Answer, ColumnsAnswer
from tests.service_fakes import NOW, client_of

JSON = {"content-type": "application/json"}
GOOD: dict[str, Any] = {"user_id": "u1", "candidates": ["v1", "v2"]}


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with client_of(body_limit=300_000) as client:
        yield client


def item(**changes: Any) -> dict[str, Any]:
    return {"history": [{"video_id": "v1", "timestamp": NOW - 1000, "outcomes": {"click": 1}} | changes]}


FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"candidates": []}, "candidates"),
    ({"candidates": ["a", "b", "a"]}, "candidates"),
    ({"candidates": ["1", 1]}, "candidates"),
    ({"candidates": [f"v{i}" for i in range(2001)]}, "candidates"),
    ({"candidates": ["v1", "x" * 257]}, "candidates[1]"),
    ({"candidates": ["v1", ""]}, "candidates[1]"),
    ({"candidates": ["v1", True]}, "candidates[1]"),
    ({"candidates": ["v1", 1.5]}, "candidates[1]"),
    ({"candidates": ["v1", 1.0]}, "candidates[1]"),
    ({"candidates": ["v1", None]}, "candidates[1]"),
    ({"candidates": ["v1", ["v2"]]}, "candidates[1]"),
    ({"candidates": ["v1", "nul\0"]}, "candidates[1]"),
    ({"candidates": "v1"}, "candidates"),
    ({"candidates": {"v1": 1}}, "candidates"),
    ({"candidates": None}, "candidates"),
    ({"user_id": None}, "user_id"),
    ({"user_id": True}, "user_id"),
    ({"user_id": 1.0}, "user_id"),
    ({"user_id": ""}, "user_id"),
    ({"user_id": "x" * 257}, "user_id"),
    ({"user_id": int("9" * 300)}, "user_id"),
    ({"query_video_id": False}, "query_video_id"),
    ({"query_video_id": "x" * 257}, "query_video_id"),
    ({"weights": {"clicks": 1}}, "weights.clicks"),
    ({"weights": {"click": 1001}}, "weights.click"),
    ({"weights": {"click": -1000.5}}, "weights.click"),
    ({"weights": {"click": "1"}}, "weights.click"),
    ({"weights": {"click": True}}, "weights.click"),
    ({"weights": {"click": None}}, "weights.click"),
    ({"weights": [1]}, "weights"),
    ({"weights": {"": 1}}, "weights."),
    ({"context": {"nothing": 1}}, "context.nothing"),
    ({"context": {"tab": 1.5}}, "context.tab"),
    ({"context": {"tab": True}}, "context.tab"),
    ({"context": {"tab": ["1"]}}, "context.tab"),
    ({"context": {"tab": "x" * 257}}, "context.tab"),
    ({"context": {"battery": "full"}}, "context.battery"),
    ({"context": {"battery": True}}, "context.battery"),
    ({"context": {"battery": 10**400}}, "context.battery"),
    ({"context": {"battery": {}}}, "context.battery"),
    ({"context": {"position": 0}}, "context.position"),
    ({"context": "tab"}, "context"),
    (item(video_id=True), "history[0].video_id"),
    (item(video_id="x" * 257), "history[0].video_id"),
    (item(timestamp=NOW + 1), "history[0].timestamp"),
    (item(timestamp="yesterday"), "history[0].timestamp"),
    (item(timestamp=float(NOW)), "history[0].timestamp"),
    (item(outcomes={"share": 1}), "history[0].outcomes.share"),
    (item(outcomes={"click": 0.5}), "history[0].outcomes.click"),
    (item(outcomes={"click": "1"}), "history[0].outcomes.click"),
    (item(outcomes={"watch": 1e13}), "history[0].outcomes.watch"),
    (item(outcomes={"watch": True}), "history[0].outcomes.watch"),
    (item(outcomes={"watch": []}), "history[0].outcomes.watch"),
    (item(context={"nothing": 1}), "history[0].context.nothing"),
    (item(context={"battery": "x"}), "history[0].context.battery"),
    (item(position=3), "history[0].position"),
    ({"history": [{"video_id": "v1"}]}, "history[0].timestamp"),
    ({"history": [{"video_id": "v1", "timestamp": NOW}] * 1001}, "history"),
    ({"history": ["v1"]}, "history[0]"),
    ({"history_replaces": "yes"}, "history_replaces"),
    ({"history_replaces": 1}, "history_replaces"),
    ({"exclude": ["x" * 257]}, "exclude[0]"),
    ({"exclude": [1.5]}, "exclude[0]"),
    ({"exclude": ["v"] * 10_001}, "exclude"),
    ({"limit": 0}, "limit"),
    ({"limit": 2001}, "limit"),
    ({"limit": -1}, "limit"),
    ({"limit": 1.0}, "limit"),
    ({"limit": True}, "limit"),
    ({"limit": "5"}, "limit"),
    ({"timestamp": 0}, "timestamp"),
    ({"timestamp": 1_700_000_000}, "timestamp"),  # seconds
    ({"timestamp": 4_102_444_800_001}, "timestamp"),
    ({"timestamp": 10**30}, "timestamp"),
    ({"timestamp": 1.7e12}, "timestamp"),
    ({"timestamp": True}, "timestamp"),
    ({"timestamp": "2024-01-01"}, "timestamp"),
    ({"explain": "yes"}, "explain"),
    ({"explain": 1}, "explain"),
    ({"model": "../../etc/passwd"}, "model"),
]


@pytest.mark.parametrize(("changes", "field"), FIELDS)
def test_rank_names_the_field(client: TestClient, changes: dict[str, Any], field: str) -> None:
    refused(client, "/v1/rank", GOOD | changes, field)


@pytest.mark.parametrize(("changes", "field"), [pair for pair in FIELDS if "candidates" not in pair[0]])
def test_recommend_names_the_field(client: TestClient, changes: dict[str, Any], field: str) -> None:
    refused(client, "/v1/recommend", {"user_id": "u1"} | changes, field)


def test_what_is_missing_is_named(client: TestClient) -> None:
    refused(client, "/v1/rank", {"user_id": "u1"}, "candidates")
    refused(client, "/v1/recommend", {}, "user_id")


def test_recommend_takes_no_candidates(client: TestClient) -> None:
    refused(client, "/v1/recommend", GOOD, "candidates")


def refused(client: TestClient, path: str, body: Any, field: str) -> None:
    problem = problem_of(client.post(path, json=body), 422)
    assert field in [error.field for error in problem.errors]
    assert field in problem.detail


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("field", ["weights.click", "context.battery", "history[0].outcomes.watch"])
def test_not_a_finite_number(client: TestClient, number: str, field: str) -> None:
    changes: dict[str, dict[str, Any]] = {
        "weights.click": {"weights": {"click": "HERE"}},
        "context.battery": {"context": {"battery": "HERE"}},
        "history[0].outcomes.watch": item(outcomes={"watch": "HERE"}),
    }
    content = json.dumps(GOOD | changes[field]).replace('"HERE"', number)
    problem = problem_of(client.post("/v1/rank", content=content, headers=JSON), 422)
    assert [error.field for error in problem.errors] == [field]
    assert "finite" in problem.detail


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"nonsense",
        b'{"user_id": "u1", "candidates": ["v1"]} extra',
        b'{"user_id": "u1", "candidates": ["v1"],}',
        b"\xff\xfe",
        b'{"user_id": "\\ud800"}',
        b"[" * 100_000,
        b'{"user_id": ' + b"9" * 10_000 + b"}",
    ],
)
def test_not_json(client: TestClient, content: bytes) -> None:
    assert "not valid JSON" in problem_of(client.post("/v1/rank", content=content, headers=JSON), 400).detail


@pytest.mark.parametrize("content", [b"", b"null", b"[]", b'"text"', b"1", b"true"])
def test_not_an_object(client: TestClient, content: bytes) -> None:
    assert problem_of(client.post("/v1/rank", content=content, headers=JSON), 422).errors[0].field == "body"


@pytest.mark.parametrize(
    "headers", [{}, {"content-type": "text/plain"}, {"content-type": "application/x-www-form-urlencoded"}]
)
def test_not_declared_as_json(client: TestClient, headers: dict[str, str]) -> None:
    problem_of(client.post("/v1/rank", content=json.dumps(GOOD), headers=headers), 415)


def test_charset_may_be_said(client: TestClient) -> None:
    answer = client.post("/v1/rank", content=json.dumps(GOOD), headers={"content-type": "application/json; charset=utf-8"})
    assert answer.status_code == 200


def test_body_over_the_limit(client: TestClient) -> None:
    body = json.dumps(GOOD | {"exclude": ["x" * 200] * 2000}).encode()
    assert len(body) > 300_000
    problem = problem_of(client.post("/v1/rank", content=body, headers=JSON), 413)
    assert "300000" in problem.detail


def test_body_over_the_limit_in_chunks(client: TestClient) -> None:
    chunks = iter([b'{"user_id": "'] + [b"x" * 10_000] * 40)
    problem_of(client.post("/v1/rank", content=chunks, headers=JSON), 413)


def test_body_in_chunks_within_the_limit(client: TestClient) -> None:
    body = json.dumps(GOOD).encode()
    answer = client.post("/v1/rank", content=iter([body[:7], body[7:]]), headers=JSON)
    assert [item["video_id"] for item in answer.json()["items"]] == ["v1", "v2"]


def test_unknown_path_and_method(client: TestClient) -> None:
    problem_of(client.get("/v2/rank"), 404)
    problem_of(client.post("/v1/rank/", json=GOOD), 404)
    answer = client.get("/v1/rank")
    problem_of(answer, 405)
    assert answer.headers["allow"] == "POST"


def test_long_values_are_not_repeated_in_full(client: TestClient) -> None:
    answer = client.post("/v1/rank", json=GOOD | {"user_id": "x" * 100_000, "y" * 100_000: 1})
    problem_of(answer, 422)
    assert len(answer.content) < 2_000


def problem_of(answer: Any, status: int) -> ProblemDetails:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == MEDIA_TYPE
    problem = ProblemDetails.model_validate(answer.json())
    assert problem.status == status
    return problem


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
IDS = st.sampled_from(["v0", "v1", "v24", "new", "", 3, -1, True, 1.5]) | st.text(max_size=3)
ITEMS = st.fixed_dictionaries(
    {"video_id": IDS, "timestamp": st.integers(NOW - 10**8, NOW + 10)},
    optional={
        "outcomes": st.dictionaries(st.sampled_from(["click", "watch", "like", "x"]), st.floats() | ANYTHING, max_size=3),
        "context": st.dictionaries(st.sampled_from(["tab", "battery", "x"]), st.floats() | ANYTHING, max_size=2),
    },
)
BODIES = st.fixed_dictionaries(
    {"user_id": IDS | ANYTHING},
    optional={
        "candidates": st.lists(IDS, max_size=5) | ANYTHING,
        "context": st.dictionaries(st.sampled_from(["tab", "battery", "x"]), st.text() | ANYTHING, max_size=2) | ANYTHING,
        "query_video_id": IDS | ANYTHING,
        "weights": st.dictionaries(st.sampled_from(["click", "watch", "like", "x"]), st.floats() | ANYTHING, max_size=3),
        "history": st.lists(ITEMS, max_size=4) | ANYTHING,
        "history_replaces": st.booleans() | ANYTHING,
        "exclude": st.lists(IDS, max_size=4) | ANYTHING,
        "limit": st.integers(-1, 3) | ANYTHING,
        "timestamp": st.sampled_from([NOW, NOW - 10**9, 946_684_800_000, 4_102_444_800_000]) | ANYTHING,
        "explain": st.booleans() | ANYTHING,
        "format": st.sampled_from(["items", "columns"]) | ANYTHING,
        "scored": st.booleans() | ANYTHING,
    },
)


VIDEOS = st.sampled_from(["v0", "v1", "v24", "new", 3, -1])
NUMBERS = st.floats(-1e3, 1e3)
GOOD_ITEMS = st.fixed_dictionaries(
    {"video_id": VIDEOS, "timestamp": st.integers(946_684_800_000, NOW - 10**9)},
    optional={
        "outcomes": st.fixed_dictionaries({}, optional={"click": st.sampled_from([0, 1, True, None]), "watch": NUMBERS}),
        "context": st.fixed_dictionaries({}, optional={"tab": st.text(max_size=3), "battery": st.none() | NUMBERS}),
    },
)
GOOD_FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "context": st.fixed_dictionaries({}, optional={"tab": st.none() | st.text(max_size=3), "battery": NUMBERS}),
    "query_video_id": st.none() | VIDEOS,
    "weights": st.dictionaries(st.sampled_from(["click", "watch", "like"]), NUMBERS),
    "history": st.lists(GOOD_ITEMS, max_size=5),
    "history_replaces": st.booleans(),
    "exclude": st.lists(VIDEOS, max_size=4),
    "limit": st.integers(1, 2000),
    "timestamp": st.integers(NOW - 10**9, 4_102_444_800_000),
    "explain": st.booleans(),
    "format": st.sampled_from(["items", "columns"]),
    "scored": st.booleans(),
}


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(
    user=st.sampled_from(["u1", "nobody"])
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=3),
    candidates=st.none() | st.lists(VIDEOS, min_size=1, max_size=5, unique=True),
    fields=st.fixed_dictionaries({}, optional=GOOD_FIELDS),
)
def test_every_good_body_is_answered(
    client: TestClient, user: str, candidates: list[Any] | None, fields: dict[str, Any]
) -> None:
    path = "/v1/recommend" if candidates is None else "/v1/rank"
    body = {"user_id": user} | fields | ({} if candidates is None else {"candidates": candidates})
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    if fields.get("format") == "columns":
        shown = ColumnsAnswer.model_validate_json(answer.content, strict=True).slate.video_id
    else:
        shown = [item.video_id for item in Answer.model_validate_json(answer.content, strict=True).items]
    excluded = {str(video) for video in fields.get("exclude", [])}
    assert not excluded & set(shown)
    if candidates is not None:
        assert len(shown) == min(len({str(v) for v in candidates} - excluded), fields.get("limit", 2000))


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(["/v1/rank", "/v1/recommend"]), body=BODIES | ANYTHING)
def test_no_body_is_a_defect(client: TestClient, path: str, body: Any) -> None:
    answer = client.post(path, content=json.dumps(body), headers=JSON)
    assert answer.status_code in (200, 400, 422), answer.text
    assert answer.status_code == 200 or answer.headers["content-type"] == MEDIA_TYPE


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=50))
def test_no_bytes_are_a_defect(client: TestClient, content: bytes) -> None:
    assert client.post("/v1/rank", content=content, headers=JSON).status_code in (400, 422)
