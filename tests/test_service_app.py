"""Start, readiness, health, defects, what OpenAPI says."""

import json
import logging
import re
from collections.abc import Callable
from dataclasses import replace
from threading import Event
from typing import Any

import pytest
from starlette.testclient import TestClient

from data.errors import BundleError
from service.loading import load_champion, warn_of_gaps
from service.observability import configure_logs
from service.problems import MEDIA_TYPE
from service.schemas import Answer
from service.serving import Serving
from service.settings import Settings
from tests.service_fakes import VERSION, FakeScorer, client_of, metric, serving

GOOD = {"user_id": "u1", "candidates": ["v1", "v2"]}


class Crashing(FakeScorer):
    """Fails on the one-candidate requests that come after the warm-up."""

    warm = False

    def score(self, user: Any, context: Any, video: Any, cross: Any) -> Any:
        if self.warm and len(video) == 1:
            raise RuntimeError("a secret of the inside")
        return super().score(user, context, video, cross)


def test_ready_once_loaded_and_warm() -> None:
    loading, scored = Event(), []

    class Noting(FakeScorer):
        def score(self, user: Any, context: Any, video: Any, cross: Any) -> Any:
            scored.append(len(video))
            return super().score(user, context, video, cross)

    def load(_: Settings) -> Serving:
        assert loading.wait(30)
        return serving(Noting())

    with client_of(load, ready=False) as client:
        assert client.get("/healthz").json() == {"status": "ok"}
        not_ready = client.get("/readyz")
        assert (not_ready.status_code, not_ready.json()["detail"]) == (503, "not ready: the bundle is being loaded")
        assert not_ready.headers["retry-after"] == "5"
        refused = client.post("/v1/rank", json=GOOD)
        assert (refused.status_code, refused.headers["content-type"]) == (503, MEDIA_TYPE)
        assert metric(client, "watchnext_model_version") == 0
        loading.set()
        while client.get("/readyz").status_code != 200:
            pass
        assert scored == [1, 20, 200, 500, 2000]
        assert client.post("/v1/rank", json=GOOD).status_code == 200
        assert metric(client, "watchnext_model_version") == VERSION


def test_a_swap_shows_in_the_next_answer() -> None:
    with client_of() as client:
        client.app_state["runtime"].slot.swap(replace(serving(), version=VERSION + 1))
        assert client.post("/v1/rank", json=GOOD).json()["model_version"] == VERSION + 1


def test_lines_of_the_standard_library_come_as_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("warning")
    logging.getLogger("models.registry").warning("bundle_refused", extra={"version": 7})
    logging.getLogger("models.registry").info("not noted")
    (line,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (line["event"], line["logger"], line["version"]) == ("bundle_refused", "models.registry", 7)


def no_bundle(_: Settings) -> Serving:
    raise BundleError("'small' has no champion yet: train it first")


def defective(_: Settings) -> Serving:
    raise ZeroDivisionError("a secret of the inside")


@pytest.mark.parametrize(("load", "reason"), [(no_bundle, "train it first"), (defective, "the log says why")])
def test_without_a_bundle_it_starts_and_says_why(load: Callable[[Settings], Serving], reason: str) -> None:
    with client_of(load) as client:
        ready = client.get("/readyz")
        assert ready.status_code == 503
        assert reason in ready.json()["detail"]
        assert "secret" not in ready.text
        assert client.get("/healthz").status_code == 200
        assert client.post("/v1/recommend", json={"user_id": "u1"}).status_code == 503
        # what is wrong with a request is said even so
        assert client.post("/v1/rank", json={}).status_code == 422


def test_an_empty_home_says_what_to_do() -> None:
    with client_of(load_champion) as client:
        assert "run `watchnext train` first" in client.get("/readyz").json()["detail"]
        assert client.get("/v1/models").status_code == 503


def test_an_unknown_name_says_what_to_do() -> None:
    with client_of(load_champion, name="nothing") as client:
        assert "run `watchnext train` first" in client.get("/readyz").json()["detail"]


def test_a_defect_is_a_problem_without_its_inside(capsys: pytest.CaptureFixture[str]) -> None:
    scorer = Crashing()
    with client_of(serving(scorer)) as client:
        scorer.warm = True
        answer = client.post("/v1/rank", json=GOOD | {"candidates": ["v1"]})
        assert (answer.status_code, answer.headers["content-type"]) == (500, MEDIA_TYPE)
        assert set(answer.json()) == {"type", "title", "status", "detail"}
        assert "secret" not in answer.text
        assert client.post("/v1/rank", json=GOOD).status_code == 200
        assert metric(client, "watchnext_requests_total", route="/v1/rank", status="500") == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (failed,) = [line for line in lines if line["event"] == "request failed"]
    assert failed["request_id"] == answer.headers["x-request-id"]
    assert failed["exception"][-1]["exc_value"] == "a secret of the inside"


def test_a_request_past_its_deadline_is_given_up() -> None:
    release = Event()

    class Slow(Crashing):
        def score(self, user: Any, context: Any, video: Any, cross: Any) -> Any:
            if self.warm:
                release.wait(30)
            return FakeScorer().score(user, context, video, cross)

    scorer = Slow()
    with client_of(serving(scorer), deadline_ms=50) as client:
        scorer.warm = True
        answer = client.post("/v1/rank", json=GOOD)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert client.get("/healthz").status_code == 200  # the event loop is free meanwhile
        release.set()


def test_logs_are_json_with_the_request_id(capsys: pytest.CaptureFixture[str]) -> None:
    with client_of(log_level="info") as client:
        answer = client.post("/v1/rank", json=GOOD)
        client.get("/healthz")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    requests = [line for line in lines if line["event"] == "request"]
    assert [(line["route"], line["status"]) for line in requests] == [("/v1/rank", 200)]  # health checks are not noted
    assert requests[0]["request_id"] == answer.json()["request_id"] == answer.headers["x-request-id"]


def test_requests_and_stages_are_counted() -> None:
    with client_of() as client:
        client.post("/v1/rank", json=GOOD)
        client.post("/v1/rank", json={})
        client.get("/no/such/path")
        assert metric(client, "watchnext_requests_total", route="/v1/rank", status="200") == 1
        assert metric(client, "watchnext_requests_total", route="/v1/rank", status="422") == 1
        assert metric(client, "watchnext_requests_total", route="unmatched", status="404") == 1
        for stage in ("hydrate", "gather", "filter", "score", "combine", "slate"):
            assert metric(client, "watchnext_stage_seconds_count", stage=stage) == 1
        assert metric(client, "watchnext_candidates_sum", route="rank") == 2


def test_objectives_without_a_weight_or_a_mean_are_warned_about(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("warning")
    warn_of_gaps(serving().ranking, {"click": 0.5, "like": None})
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["objective"], line["event"].split(":")[0]) for line in lines] == [
        ("watch", "objective has no ranking weight"),
        ("like", "objective has no reference mean"),
    ]


@pytest.fixture(scope="module")
def openapi() -> dict[str, Any]:
    with client_of() as client:
        schema: dict[str, Any] = client.get("/openapi.json").json()
        return schema


def test_every_reference_in_openapi_resolves(openapi: dict[str, Any]) -> None:
    names = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(openapi)))
    assert names == set(openapi["components"]["schemas"])


def test_openapi_states_errors_and_limits(openapi: dict[str, Any]) -> None:
    ours = {"/v1/rank", "/v1/recommend", "/v1/events", "/v1/videos", "/v1/videos/{video_id}"}
    assert ours | {"/v1/models", "/healthz", "/readyz", "/metrics"} <= set(openapi["paths"])
    for path in ("/v1/rank", "/v1/recommend"):
        responses = openapi["paths"][path]["post"]["responses"]
        assert set(responses) == {"200", "400", "401", "403", "413", "415", "422", "429", "500", "503"}
        assert all(MEDIA_TYPE in r["content"] for status, r in responses.items() if status != "200")
    request = openapi["components"]["schemas"]["RankRequest"]
    candidates = request["properties"]["candidates"]
    assert (candidates["minItems"], candidates["maxItems"], candidates["uniqueItems"]) == (1, 2000, True)
    assert {"type": "integer"} in candidates["items"]["anyOf"]
    assert request["additionalProperties"] is False
    weight = request["properties"]["weights"]["additionalProperties"]
    assert (weight["minimum"], weight["maximum"]) == (-1000, 1000)


def test_answers_have_the_shape_that_openapi_states() -> None:
    with client_of() as client:
        for body in (GOOD, GOOD | {"explain": True}, GOOD | {"exclude": GOOD["candidates"]}):
            Answer.model_validate_json(client.post("/v1/rank", json=body).content, strict=True)


def test_no_page_fetches_scripts_from_elsewhere() -> None:
    with client_of() as client:
        assert {client.get(path).status_code for path in ("/docs", "/redoc")} == {404}


def test_two_applications_in_one_process_count_apart() -> None:
    def hits(client: TestClient) -> float:
        return metric(client, "watchnext_requests_total", route="/v1/rank", status="200")

    with client_of() as one, client_of() as other:
        one.post("/v1/rank", json=GOOD)
        assert (hits(one), hits(other)) == (1, 0)
