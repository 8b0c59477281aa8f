"""The replay's clock."""

from pathlib import Path

from starlette.testclient import TestClient

from service.app import create_app
from service.clock import ReplayClock, now
from service.settings import Settings
from tests.service_fakes import NOW, encoder, serving, wait_until_loaded


def test_it_goes_with_what_it_is_told_and_never_back() -> None:
    clock = ReplayClock()
    assert clock() == 0
    for timestamp, time in ((50, 50), (20, 50), (51, 51)):
        clock.carry(timestamp)
        assert clock() == time


def test_requests_and_events_carry_the_time(home: Path) -> None:
    app = create_app(Settings(home=home, log_level="error", replay_clock=True), lambda _: serving())
    with TestClient(app) as client:
        wait_until_loaded(client)
        runtime = client.app_state["runtime"]
        assert runtime.time() == encoder().state.boundary  # nothing was told yet
        answer = client.post("/v1/rank", json={"user_id": "u1", "candidates": ["v1"], "timestamp": NOW}).json()
        assert runtime.time() == NOW
        event = {"event_id": "e", "request_id": answer["request_id"], "video_id": "v1", "type": "view"}
        both = [event | {"timestamp": NOW + 7}, event | {"event_id": "f", "timestamp": NOW + 5}]
        client.post("/v1/events", json={"events": both})
        assert runtime.time() == NOW + 7
        client.post("/v1/rank", json={"user_id": "u1", "candidates": ["v1"]})  # without a time of its own: now
        assert runtime.time() == NOW + 7


def test_else_the_time_is_the_machines(home: Path) -> None:
    app = create_app(Settings(home=home, log_level="error"), lambda _: serving())
    with TestClient(app) as client:
        wait_until_loaded(client)
        before = now()
        client.post("/v1/rank", json={"user_id": "u1", "candidates": ["v1"], "timestamp": NOW})
        assert before <= client.app_state["runtime"].time() <= now()
