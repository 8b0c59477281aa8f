"""The short way answers what the framework answers, and is the way of every good request."""

import json
from collections.abc import Iterator
from typing import Any

import fastapi.routing
import pytest
from starlette.testclient import TestClient

from service.direct import Direct
from tests.service_fakes import NOW, client_of, metric

JSON = {"content-type": "application/json"}
GOOD: dict[str, Any] = {"user_id": "u1", "candidates": ["v1", "v2", "v0"], "timestamp": NOW}
BODIES: list[Any] = [
    GOOD,
    GOOD | {"candidates": ["v2", 7, "ü"], "context": {"tab": "1"}, "explain": True, "format": "columns", "scored": True},
    GOOD | {"weights": {"nothing": 1}},
    GOOD | {"candidates": ["v1", "v1"]},
    GOOD | {"candidates": ["v1", "", None, "x" * 257]},
    GOOD | {"candidates": [f"v{n}" for n in range(2_001)]},
    GOOD | {"candidates": list(range(2_001))},
    GOOD | {"timestamp": "now", "unknown": {"a": [1]}},
    {"user_id": "u1"},
    [1, 2],
    None,
    "text",
]
RAW: list[tuple[bytes, dict[str, str]]] = [
    *((json.dumps(body).encode(), JSON) for body in BODIES),
    (json.dumps(GOOD).encode(), {"content-type": "application/json; charset=utf-8"}),
    (json.dumps(GOOD).encode(), {"content-type": "application/problem+json"}),
    (json.dumps(GOOD).encode(), {}),
    (b"", JSON),
    (b"{", JSON),
    (b'{"user_id": NaN}', JSON),
    (b'{"user_id": "u1", "user_id": "u2", "candidates": ["v1"], "timestamp": %d}' % NOW, JSON),
    (b'{"user_id": "\xff"}', JSON),
    (b"[" * 300, JSON),
]


@pytest.fixture(scope="module")
def clients() -> Iterator[tuple[TestClient, TestClient]]:
    """Of the service, and of one that has only the framework's way."""
    with client_of() as ours, client_of() as plain:
        app: Any = plain.app
        app.user_middleware = [layer for layer in app.user_middleware if layer.cls is not Direct]
        app.middleware_stack = app.build_middleware_stack()
        yield ours, plain


def said(client: TestClient, path: str, body: bytes, headers: dict[str, str]) -> Any:
    answer = client.post(path, content=body, headers=headers)
    told = answer.json()
    assert len(answer.headers["x-request-id"]) == 32
    assert told.pop("request_id", None) in (None, answer.headers["x-request-id"])
    kept = {name: value for name, value in answer.headers.items() if name != "x-request-id"}
    return answer.status_code, kept, told


@pytest.mark.parametrize("path", ["/v1/rank", "/v1/recommend"])
@pytest.mark.parametrize(("body", "headers"), RAW)
def test_both_ways_answer_the_same(
    clients: tuple[TestClient, TestClient], path: str, body: bytes, headers: dict[str, str]
) -> None:
    ours, plain = clients
    assert said(ours, path, body, headers) == said(plain, path, body, headers)


EVENT = {"event_id": "e", "request_id": "r", "video_id": "v1", "type": "view"}
EVENTS: list[Any] = [
    {"events": [EVENT, EVENT | {"event_id": "ü", "value": 1.5, "user_id": 7, "timestamp": NOW}]},
    {"events": [EVENT | {"event_id": "other", "type": "no such"}, EVENT]},
    {"events": [EVENT | {"event_id": f"{n}"} for n in range(1_001)]},
    {"events": [EVENT | {"value": "much", "unknown": 1}]},
    {"events": []},
    {},
]


@pytest.mark.parametrize("body", EVENTS)
def test_events_are_answered_the_same(clients: tuple[TestClient, TestClient], body: Any) -> None:
    ours, plain = (said(client, "/v1/events", json.dumps(body).encode(), JSON) for client in clients)
    assert ours == plain
    assert ours[0] in (202, 422)


def test_only_what_is_wrong_goes_through_the_framework(
    clients: tuple[TestClient, TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def solve(**_: Any) -> Any:
        raise fastapi.HTTPException(418)

    monkeypatch.setattr(fastapi.routing, "solve_dependencies", solve)
    for client, good in zip(clients, (200, 418), strict=True):
        assert client.post("/v1/rank", json=GOOD).status_code == good
        assert client.post("/v1/rank", json=GOOD | {"candidates": []}).status_code == 418
        assert client.get("/v1/rank").status_code == 405
        events = {"events": [EVENT | {"event_id": "only"}]}
        assert client.post("/v1/events", json=events).status_code == (202 if good == 200 else good)


def test_a_body_in_pieces_is_one_body(clients: tuple[TestClient, TestClient]) -> None:
    text = json.dumps(GOOD).encode()
    pieces = [text[:7], text[7:30], text[30:]]
    for client in clients:
        answer = client.post("/v1/rank", content=iter(pieces), headers=JSON)
        assert answer.json()["items"] == client.post("/v1/rank", json=GOOD).json()["items"]


def test_it_counts_under_its_route(clients: tuple[TestClient, TestClient]) -> None:
    for client in clients:
        before = metric(client, "watchnext_requests_total", route="/v1/rank", status="200")
        client.post("/v1/rank", json=GOOD)
        assert metric(client, "watchnext_requests_total", route="/v1/rank", status="200") == before + 1
