"""From a published bundle to answers over HTTP: what is served equals what was computed offline."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from starlette.testclient import TestClient

from data.columns import Batch
from data.days import day_start
from data.errors import BundleError
from data.features.slates import feature_times
from data.features.state import FeatureState
from data.feedback.export import export_days
from data.home import Home
from data.log import read_day
from models.bfloat16 import supported
from models.registry import Registry
from service.app import create_app
from service.loading import load_champion, load_users
from service.models_api import ModelsReport as Models
from service.precision import ranking_scores
from service.schemas import Answer
from service.settings import Settings
from tests.service_fakes import wait_until_loaded
from tests.small_log import rows_of, small_config, small_days, small_tables

pytestmark = pytest.mark.slow  # trains and exports with TensorFlow

WINDOW = 1800.0
OBJECTIVES = [{**o.model_dump(exclude_none=True), "window": WINDOW} for o in small_config().objectives]
CONFIG = small_config(
    objectives=OBJECTIVES,
    ranking={"weights": {"click": 1.0, "watch": 0.5, "like": 1.0}},
    generators={"topic_column": "tags"}
    | {name: {"deadline_ms": 60_000} for name in ("topic", "co_watch", "nearest", "trending")},
    model={"trunk": {"experts": 3, "layers": [16, 8]}, "tower": [4]},
)
DAYS = small_days(late=0.0)  # a request's history doesn't say when a like became known
LAST = sorted(DAYS)[-1]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, int, np.ndarray]:
    """A home with a champion trained up to the day before the last, and its calibrated predictions for the last day
    [n, K]."""
    from training.learner import Learner
    from training.plan import Plan
    from training.publish import publish

    home = Home(tmp_path_factory.mktemp("home"))
    first, *days = sorted(DAYS)
    learner = Learner.fresh(CONFIG, small_tables(), [(first, DAYS[first])])
    learner.take_in(first, DAYS[first], learner.state.encode(DAYS[first], first))
    for day in days[:-1]:
        encoded = learner.state.encode(DAYS[day], day)
        learner.keep_scored(day, learner.trainer.predict(encoded.blocks)[0], encoded.targets)
        learner.train(day, encoded)
        learner.take_in(day, DAYS[day], encoded)
    raw, _ = learner.trainer.predict(learner.state.encode(DAYS[LAST], LAST).blocks)
    predictions = learner.calibration.apply(raw)
    assert [curve.kind for curve in learner.calibration.curves] == ["platt", "ratio", "ratio"]
    assert (np.abs(predictions - raw).max(axis=0) > 0.01).all()
    version = publish(CONFIG, home, Plan((*days[:-1],), None, (), "test"), learner, {})
    Registry(home).promote(CONFIG.name, version)
    return home, version, predictions


def test_it_may_be_scored_in_bfloat16(published: tuple[Home, int, np.ndarray]) -> None:
    """Where the processor can; else it is float32 that is asked for here."""
    plain, other = (load_champion(Settings(home=published[0].root, bfloat16=asked)) for asked in (False, True))
    assert (plain.precision, other.precision) == ("float32", "bfloat16" if supported() else "float32")
    rows = np.arange(-1, len(plain.features.video_ids))
    expected, found = (ranking_scores(serving, "u1", rows) for serving in (plain, other))
    np.testing.assert_allclose(found, expected, rtol=0.02)


@pytest.fixture(scope="module")
def client(published: tuple[Home, int, np.ndarray]) -> Iterator[TestClient]:
    settings = Settings(home=published[0].root, log_level="error", deadline_ms=60_000)
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        wait_until_loaded(client)
        yield client


def past_of(row: dict[str, Any], time: int, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The user's rows of the last day before ``time``, as a client would send them."""
    return [
        {
            "video_id": other["video_id"],
            "timestamp": other["timestamp"],
            "outcomes": {label: None if np.isnan(other[label]) else other[label] for label in ("click", "watch", "like")},
            "context": {"tab": other["tab"]},
        }
        for other in rows
        if other["user_id"] == row["user_id"] and other["timestamp"] <= time
    ]


@pytest.mark.parametrize("batched", [False, True])
def test_served_equals_offline(published: tuple[Home, int, np.ndarray], client: TestClient, batched: bool) -> None:
    _, version, offline = published
    rows = rows_of(DAYS[LAST])
    times = feature_times(DAYS[LAST]).tolist()
    assert len(rows) > 100
    for number in range(0, len(rows), 3):
        row, time = rows[number], times[number]
        context = {name: row[name] for name in ("tab", "battery") if row[name] is not None and row[name] == row[name]}
        others = [f"v{i}" for i in range(30) if f"v{i}" != row["video_id"]] if batched else []
        body = {
            "user_id": row["user_id"],
            "candidates": [*others, row["video_id"]],
            "context": context,
            "timestamp": time,
            "history": past_of(row, time, rows),
        }
        reply = client.post("/v1/rank", json=body)
        assert reply.status_code == 200, reply.text
        answer = Answer.model_validate(reply.json())
        assert answer.model_version == version
        (item,) = [item for item in answer.items if item.video_id == row["video_id"]]
        np.testing.assert_allclose(list(item.predictions.values()), offline[number], rtol=1e-5, atol=1e-5)


def test_recommend_from_the_bundles_generators(client: TestClient) -> None:
    rows = rows_of(DAYS[LAST])
    seen = {row["video_id"] for day in sorted(DAYS)[:-1] for row in rows_of(DAYS[day]) if row["user_id"] == "u1"}
    assert seen
    brought: set[str] = set()
    for user in ("u1", "nobody"):
        for query in ("v2", "v3", "never heard of"):
            history = past_of({"user_id": user}, rows[-1]["timestamp"], rows)
            body = {"user_id": user, "query_video_id": query, "history": history, "limit": 2000}
            reply = client.post("/v1/recommend", json=body | {"timestamp": rows[-1]["timestamp"]})
            answer = Answer.model_validate(reply.json())
            assert answer.degraded == []
            found = {item.video_id for item in answer.items}
            assert found or user == "u1"
            assert not found & ({query, *(item["video_id"] for item in history)} | (seen if user == "u1" else set()))
            brought |= {name for item in answer.items for name in item.generators}
    assert brought == {"topic", "co_watch", "nearest", "trending"}


@pytest.fixture
def own(published: tuple[Home, int, np.ndarray], tmp_path: Path) -> Iterator[tuple[Home, TestClient]]:
    """A service with a home of its own, whose clock is what requests and events carry."""
    shutil.copytree(published[0].root, tmp_path / "own")
    settings = Settings(home=tmp_path / "own", log_level="error", deadline_ms=60_000, replay_clock=True, rate_limit=0)
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        wait_until_loaded(client)
        yield Home(tmp_path / "own"), client


def answer_of(client: TestClient, path: str, **body: Any) -> Answer:
    reply = client.post(path, json=body)
    assert reply.status_code == 200, reply.text
    return Answer.model_validate(reply.json())


def tell(client: TestClient, request_id: str, *said: tuple[str, str, int, float | None]) -> list[str]:
    events = [
        {"event_id": f"{request_id}{n}", "request_id": request_id, "video_id": video, "type": kind, "timestamp": when}
        | ({} if value is None else {"value": value})
        for n, (video, kind, when, value) in enumerate(said)
    ]
    reply = client.post("/v1/events", json={"events": events})
    assert reply.status_code == 202, reply.text
    return [fate["status"] for fate in reply.json()["events"]]


def test_a_like_changes_the_next_slate(own: tuple[Home, TestClient]) -> None:
    _, client = own
    start = day_start(LAST, CONFIG.timezone) + 1000
    asked = {"user_id": "u1", "candidates": [f"v{i}" for i in range(25)], "context": {"tab": "1"}}
    before = answer_of(client, "/v1/rank", **asked, timestamp=start)
    still = answer_of(client, "/v1/rank", **asked, timestamp=start + 1)
    assert before.items == still.items
    other = {**asked, "user_id": "u2"}
    of_other = answer_of(client, "/v1/rank", **other, timestamp=start + 1)
    first = before.items[0].video_id
    assert tell(client, still.request_id, (first, "like", start + 2, None)) == ["accepted"]
    after = answer_of(client, "/v1/rank", **asked, timestamp=start + 3)
    assert [item.predictions for item in before.items] != [item.predictions for item in after.items]
    found = answer_of(client, "/v1/recommend", user_id="u1", timestamp=start + 3, limit=2000)
    assert first not in {item.video_id for item in found.items}
    assert answer_of(client, "/v1/rank", **other, timestamp=start + 3).items == of_other.items


def said_of(row: dict[str, Any], number: int) -> list[tuple[str, str, int, float | None]]:
    """What a user does with an item: some views are lost, some likes come too late."""
    video, seen = row["video_id"], row["timestamp"] + 1
    said: list[tuple[str, str, int, float | None]] = [] if number % 7 == 0 else [(video, "view", seen, None)]
    said += [(video, "click", seen + 10, None)] * int(row["click"] == 1)
    said += [(video, "watch", seen + round(100 * row["watch"]), row["watch"] / 2)] * 2 * int(row["watch"] > 0)
    return said + [(video, "like", seen + (700 if number % 5 else 3_000_000), None)] * int(row["like"] == 1)


def test_served_from_its_own_state_equals_offline(
    published: tuple[Home, int, np.ndarray], own: tuple[Home, TestClient]
) -> None:
    """The last day lived through the service: asked without a history, told by events, exported, evaluated."""
    from models.registry import Registry
    from training.learner import Learner

    home, client = own
    served: dict[tuple[str, str], list[float | None]] = {}
    waiting: list[tuple[int, str, tuple[str, str, int, float | None]]] = []

    def tell_until(moment: int) -> None:
        waiting.sort(key=lambda one: one[0])
        while waiting and waiting[0][0] < moment:
            when, request_id, said = waiting.pop(0)
            event = {"event_id": f"{request_id}-{said[:3]}-{len(waiting)}", "request_id": request_id, "video_id": said[0]}
            event |= {"type": said[1], "timestamp": when} | ({} if said[3] is None else {"value": said[3]})  # type: ignore[dict-item]
            assert client.post("/v1/events", json={"events": [event]}).status_code == 202

    slates: dict[Any, list[tuple[int, dict[str, Any]]]] = {}
    for number, row in enumerate(rows_of(DAYS[LAST])):
        slates.setdefault(row["request_id"] or number, []).append((number, row))
    for slate in sorted(slates.values(), key=lambda slate: slate[0][1]["timestamp"]):
        row = slate[0][1]
        tell_until(row["timestamp"])
        context = {name: row[name] for name in ("tab", "battery") if row[name] is not None and row[name] == row[name]}
        candidates = list(dict.fromkeys(other["video_id"] for _, other in slate))
        body = {"user_id": row["user_id"], "candidates": candidates, "context": context, "timestamp": row["timestamp"]}
        answer = answer_of(client, "/v1/rank", **body)
        assert answer.degraded == []
        for item in answer.items:
            served[answer.request_id, item.video_id] = list(item.predictions.values())
        for number, other in slate:
            waiting += [(said[2], answer.request_id, said) for said in said_of(other, number)]
    tell_until(1 << 62)
    (exported,) = export_days(CONFIG, home, day_start(LAST, CONFIG.timezone) + 5 * 86_400_000, Console(quiet=True))
    assert exported.rows > 100
    batch = read_day(home, CONFIG, LAST)
    assert_features_vary(batch)
    learner = Learner.from_bundle(Registry(home).open(CONFIG.name, published[1]), CONFIG)
    offline = learner.calibration.apply(learner.trainer.predict(learner.state.encode(batch, LAST).blocks)[0])
    keys = zip(batch.strings("request_id").tolist(), batch.strings("video_id").tolist(), strict=True)
    np.testing.assert_allclose([served[str(r), str(v)] for r, v in keys], offline, rtol=1e-5, atol=1e-5)


def assert_features_vary(batch: Batch) -> None:
    """There is something to get wrong: users with several requests, and outcomes of every kind."""
    users = batch.strings("user_id").codes
    assert len(np.unique(users)) < len(set(batch.strings("request_id").tolist())) / 2
    for label in CONFIG.labels:
        assert np.nansum(batch.numbers(label)) > 0


def test_models_says_what_there_is(published: tuple[Home, int, np.ndarray], client: TestClient) -> None:
    models = Models.model_validate(client.get("/v1/models").json())
    assert models.precision == "float32"
    version = published[1]
    assert (models.name, models.champion, models.serving) == ("small", version, version)
    (only,) = models.versions
    assert (only.version, only.champion, only.serving, only.objectives) == (version, True, True, ["click", "watch", "like"])
    assert date.fromisoformat(only.window.last_day) < LAST
    assert [(o.name, o.given, o.weight) for o in models.objectives] == [
        ("click", None, 1.0),
        ("watch", "click", 0.5),
        ("like", None, 1.0),
    ]


def test_what_is_settled_of_users_comes_with_the_bundle(published: tuple[Home, int, np.ndarray], tmp_path: Path) -> None:
    """One of before bundles had it goes without; one of other users than the state's is refused."""
    home, version, _ = published
    bundle = Registry(home).open(CONFIG.name, version)
    state = FeatureState.load(bundle.state, CONFIG)
    settled = load_users(bundle, state)
    assert settled is not None
    assert len(settled) == len(state.knowledge.vocabularies["user_id"]) + 1
    shutil.copytree(bundle.folder, tmp_path / "copy")
    copy = replace(bundle, folder=tmp_path / "copy")
    np.save(copy.users / "times.npy", settled.times[1:])
    with pytest.raises(BundleError, match=f"rows, expected {len(settled)}"):
        load_users(copy, state)
    shutil.rmtree(copy.users)
    assert load_users(copy, state) is None


def test_a_damaged_bundle_is_not_served(published: tuple[Home, int, np.ndarray], tmp_path: Path) -> None:
    shutil.copytree(published[0].root, tmp_path / "copy")
    scorer = next((tmp_path / "copy").glob("registry/small/*/assets.extra/scorer.onnx"))
    damaged = bytearray(scorer.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    scorer.write_bytes(damaged)
    with TestClient(create_app(Settings(home=tmp_path / "copy", log_level="error"))) as client:
        wait_until_loaded(client)
        ready = client.get("/readyz")
        assert ready.status_code == 503
        assert "scorer.onnx is damaged" in ready.json()["detail"]
