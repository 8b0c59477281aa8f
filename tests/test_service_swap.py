"""The service follows the registry: swaps between requests, refusals that keep what serves, and what is freed."""

import gc
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from data.database import writing
from data.errors import BundleError
from data.home import Home
from models.registry import Registry
from models.rollouts import Rollouts
from service.keys import KeyStore
from service.problems import MEDIA_TYPE
from service.serving import Serving
from service.settings import Settings
from tests.service_fakes import CONFIG, FakeScorer, client_of, metric, serving

GOOD = {"user_id": "u1", "candidates": ["v1", "v2"]}


@dataclass
class Versions:
    """A registry with published (empty) bundles, and what loading each of them brings."""

    registry: Registry
    bring: dict[int, Callable[[], Serving]] = field(default_factory=dict)
    loaded: list[int] = field(default_factory=list)

    def publish(self, scorer: Any = None) -> int:
        def write(folder: Path) -> None:
            (folder / "saved_model.pb").write_bytes(b"graph")

        version = self.registry.publish(
            "small", date(2024, 3, 5), write, config=CONFIG, first_day=date(2024, 3, 4), reference_means={}, utilisation={}
        )
        self.bring[version] = lambda: replace(serving(scorer), version=version)
        return version

    def champion(self, _: Settings) -> Serving:
        version = self.registry.champion("small")
        if version is None:
            raise BundleError("'small' has no champion yet: train it first")
        return self.bring[version]()

    def load(self, _: Settings, name: str, version: int) -> Serving:
        assert name == "small"
        self.loaded.append(version)
        return self.bring[version]()

    def client(self, **settings: Any) -> AbstractContextManager[TestClient]:
        return client_of(self.champion, reload=self.load, poll_seconds=0.01, **settings)


@pytest.fixture
def versions(home: Path) -> Versions:
    home.mkdir()
    return Versions(Registry(Home(home)))


def until(condition: Callable[[], Any]) -> None:
    give_up = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < give_up, "it never came to be"
        time.sleep(0.005)


def answered_by(client: TestClient, **body: Any) -> int:
    answer = client.post("/v1/rank", json=GOOD | body)
    assert answer.status_code == 200, answer.text
    return int(answer.json()["model_version"])


def test_a_new_champion_answers_without_a_restart(versions: Versions) -> None:
    first, second = versions.publish(), versions.publish()
    versions.registry.promote("small", first)
    with versions.client() as client:
        assert answered_by(client) == first
        versions.registry.promote("small", second)
        until(lambda: answered_by(client) == second)
        versions.registry.rollback("small")
        until(lambda: answered_by(client) == first)
        until(lambda: metric(client, "watchnext_swaps_total") == 2)
        assert metric(client, "watchnext_model_version") == first
        assert versions.loaded == [second, first]


def test_the_first_bundle_is_served_once_it_is_promoted(versions: Versions) -> None:
    with versions.client() as client:
        assert client.get("/readyz").status_code == 503
        only = versions.publish()
        versions.registry.promote("small", only)
        until(lambda: client.get("/readyz").status_code == 200)
        assert answered_by(client) == only


def test_a_damaged_champion_is_refused_and_the_old_one_keeps_serving(
    versions: Versions, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, third = versions.publish(), versions.publish(), versions.publish()
    versions.registry.promote("small", first)

    def damaged() -> Serving:
        raise BundleError("scorer.onnx is damaged")

    versions.bring[second] = damaged
    with versions.client() as client:
        versions.registry.promote("small", second)
        until(lambda: "refused" in client.get("/readyz").json())
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (200, "ready")
        expected = f"the champion {second} is refused, {first} keeps serving: scorer.onnx is damaged"
        assert ready.json()["refused"] == client.get("/v1/models").json()["refused"] == expected
        assert metric(client, "watchnext_refused_version") == second
        assert answered_by(client) == first
        looks = len(versions.loaded)
        time.sleep(0.1)  # some looks more
        assert len(versions.loaded) == looks == 1  # a refused one is not read again and again
        assert metric(client, "watchnext_bundles_refused_total") == 1
        versions.registry.promote("small", third)
        until(lambda: answered_by(client) == third)
        assert "refused" not in client.get("/readyz").json()
        assert metric(client, "watchnext_refused_version") == 0
    assert "champion refused" in capsys.readouterr().out


def test_a_champion_that_fails_to_score_is_refused_before_anybody_gets_it(versions: Versions) -> None:
    class Broken(FakeScorer):
        def score(self, user: Any, context: Any, video: Any, cross: Any) -> Any:
            raise RuntimeError("a secret of the inside")

    class FailsOnRealOnes(FakeScorer):
        def score(self, user: Any, context: Any, video: Any, cross: Any) -> Any:
            if len(video) == 2:
                raise RuntimeError("a secret of the inside")
            return super().score(user, context, video, cross)

    first, broken, later = versions.publish(), versions.publish(Broken()), versions.publish(FailsOnRealOnes())
    versions.registry.promote("small", first)
    with versions.client() as client:
        assert answered_by(client) == first
        for bad in (broken, later):
            versions.registry.promote("small", bad)
            until(lambda bad=bad: metric(client, "watchnext_refused_version") == bad)
            assert "the log says why" in client.get("/readyz").json()["refused"]
            assert "secret" not in client.get("/readyz").text
            assert answered_by(client) == first


def test_it_is_warmed_with_recent_requests(versions: Versions) -> None:
    sizes: list[int] = []

    class Noting(FakeScorer):
        def score(self, user: Any, context: Any, video: Any, cross: Any) -> Any:
            sizes.append(len(video))
            return super().score(user, context, video, cross)

    first, second = versions.publish(), versions.publish(Noting())
    versions.registry.promote("small", first)
    with versions.client() as client:
        assert answered_by(client, candidates=["v1", "v2", "v3", "v4", "v5", "v6", "v7"]) == first
        assert client.post("/v1/recommend", json={"user_id": "u2"}).status_code == 200
        served = metric(client, "watchnext_candidates_count", route="rank")
        versions.registry.promote("small", second)
        until(lambda: metric(client, "watchnext_model_version") == second)
        assert sizes[:5] == [1, 20, 200, 500, 2000]
        assert sizes[5] == 7  # the request that was ranked
        assert sizes[6] > 7  # and the recommended one, with what the generators bring
        assert len(sizes) == 7
        assert metric(client, "watchnext_candidates_count", route="rank") == served  # rehearsals are not counted


def test_requests_under_way_keep_what_they_took(versions: Versions) -> None:
    release = threading.Event()

    class Slow(FakeScorer):
        slow = False

        def score(self, user: Any, context: Any, video: Any, cross: Any) -> Any:
            if self.slow:
                assert release.wait(30)
            return super().score(user, context, video, cross)

    scorer = Slow()
    first, second = versions.publish(scorer), versions.publish()
    versions.registry.promote("small", first)
    with versions.client() as client, ThreadPoolExecutor(1) as caller:
        scorer.slow = True
        waiting = caller.submit(answered_by, client)
        until(lambda: client.app_state["runtime"].lane.taken == 1)
        versions.registry.promote("small", second)
        until(lambda: metric(client, "watchnext_model_version") == second)
        assert answered_by(client) == second
        release.set()
        assert waiting.result() == first


def test_no_request_fails_while_champions_come_and_go(versions: Versions) -> None:
    names = [versions.publish() for _ in range(2)]
    versions.registry.promote("small", names[0])
    versions.registry.promote("small", names[1])
    stop, seen, lock = threading.Event(), [], threading.Lock()

    def ask(client: TestClient) -> None:
        while not stop.is_set():
            answer = client.post("/v1/rank", json=GOOD)
            with lock:
                seen.append((answer.status_code, answer.json().get("model_version")))

    with versions.client() as client, ThreadPoolExecutor(3) as callers:
        asking = [callers.submit(ask, client) for _ in range(3)]
        try:
            for _ in range(6):
                back = versions.registry.rollback("small").version
                until(lambda back=back: metric(client, "watchnext_model_version") == back)
        finally:
            stop.set()
        for future in asking:
            future.result()
    assert {status for status, _ in seen} == {200}
    assert {version for _, version in seen} == set(names)


def test_the_old_bundle_is_freed_by_its_references_alone(versions: Versions) -> None:
    first, second = versions.publish(FakeScorer()), versions.publish()
    versions.registry.promote("small", first)
    with versions.client() as client:
        assert answered_by(client) == first
        runtime = client.app_state["runtime"]
        old = weakref.ref(runtime.slot.current)
        gc.disable()  # nothing in a bundle may refer back to itself: it lies out of the collector's sight
        try:
            versions.registry.promote("small", second)
            until(lambda: answered_by(client) == second)
            until(lambda: old() is None)
        finally:
            gc.enable()


def test_a_database_that_fails_keeps_serving_and_complains_once(
    versions: Versions, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = versions.publish(), versions.publish()
    versions.registry.promote("small", first)
    with versions.client() as client:
        pointer, asked = Registry.pointer, []

        def broken(self: Registry, name: str) -> Any:
            asked.append(name)
            raise BundleError("disk on fire")

        monkeypatch.setattr(Registry, "pointer", broken)
        until(lambda: len(asked) > 5)
        assert answered_by(client) == first
        monkeypatch.setattr(Registry, "pointer", pointer)
        versions.registry.promote("small", second)
        until(lambda: answered_by(client) == second)
    assert capsys.readouterr().out.count("disk on fire") == 1


# Over HTTP


def test_promote_and_roll_back_over_http(versions: Versions) -> None:
    first, second = versions.publish(), versions.publish()
    versions.registry.promote("small", first)
    with versions.client() as client:
        answer = client.post("/v1/models/promote", json={"version": second})
        assert answer.json() == {"name": "small", "champion": second, "previous": first}
        until(lambda: answered_by(client) == second)
        stale = client.post("/v1/models/rollback", json={"expected": first})
        assert (stale.status_code, stale.headers["content-type"]) == (409, MEDIA_TYPE)
        assert stale.json()["detail"] == f"not rolled back: the champion is {second}, not {first}"
        answer = client.post("/v1/models/rollback", json={"expected": second})
        assert answer.json() == {"name": "small", "champion": first, "previous": second}
        until(lambda: answered_by(client) == first)
        listed = client.get("/v1/models").json()
        assert listed["kept"] == {str(first): "champion", str(second): "previous"}


def test_what_cant_be_promoted_is_a_409_with_the_reason(versions: Versions) -> None:
    only = versions.publish()
    versions.registry.promote("small", only)
    with versions.client() as client:
        missing = client.post("/v1/models/promote", json={"version": 2024030999})
        assert missing.status_code == 409
        assert "there is no bundle 'small' 2024030999" in missing.json()["detail"]
        nothing = client.post("/v1/models/rollback", json={})
        assert nothing.status_code == 409
        assert "no champion before this one" in nothing.json()["detail"]
        for body in ({}, {"version": "2024030501"}, {"version": 7}, {"version": True}, {"version": 2024030501, "name": "x"}):
            assert client.post("/v1/models/promote", json=body).status_code == 422, body
        assert client.post("/v1/models/rollback", content=b"{}").status_code == 415  # no page elsewhere can send it


def test_a_locked_database_moves_no_champion_and_ranking_goes_on(
    versions: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data.database.BUSY_TIMEOUT_MS", 1)
    first, second = versions.publish(), versions.publish()
    versions.registry.promote("small", first)
    versions.registry.promote("small", second)
    with versions.client() as client:
        with writing(versions.registry.engine):
            for path, body in (("rollback", {}), ("promote", {"version": first})):
                answer = client.post(f"/v1/models/{path}", json=body)
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
                assert "the database can't be read or written" in answer.json()["detail"]
            assert answered_by(client) == second
        assert client.post("/v1/models/rollback", json={}).status_code == 200
        until(lambda: answered_by(client) == first)


def test_only_an_admin_key_moves_the_champion(versions: Versions, home: Path) -> None:
    first, second = versions.publish(), versions.publish()
    versions.registry.promote("small", first)
    versions.registry.promote("small", second)
    store = KeyStore(Home(home))
    rank, admin = ({"authorization": f"Bearer {store.create([scope])}"} for scope in ("rank", "admin"))
    with versions.client() as client:
        for headers, status in (({}, 401), (rank, 403), (admin, 200)):
            assert client.post("/v1/models/rollback", json={}, headers=headers).status_code == status
        assert versions.registry.champion("small") == first


# Trials


def test_a_canary_serves_its_users_and_nobody_else(versions: Versions) -> None:
    from service.canary import position

    champion, canary = versions.publish(), versions.publish()
    versions.registry.promote("small", champion)
    rollouts = Rollouts(versions.registry)
    rollouts.start("small", "canary", canary, 0.3)
    salt = rollouts.find("small")["canary"].salt
    users = [f"user {i}" for i in range(60)]
    with versions.client() as client:
        until(lambda: metric(client, "watchnext_canary_version") == canary)
        for _ in range(2):  # and the same ones again
            for user in users:
                expected = canary if position(salt, user) < 0.3 else champion
                assert answered_by(client, user_id=user) == expected
        taken = {user for user in users if position(salt, user) < 0.3}
        assert 5 < len(taken) < 35
        report = client.get("/v1/models").json()["canary"]
        assert (report["state"], report["canary"]["requests"], report["champion"]["requests"]) == (
            "running",
            2 * len(taken),
            2 * (60 - len(taken)),
        )
        rollouts.end("small", "canary", "stopped")
        until(lambda: {answered_by(client, user_id=user) for user in users} == {champion})
        assert metric(client, "watchnext_canary_version") == 0


def test_a_promoted_canary_serves_everybody_at_once(versions: Versions) -> None:
    champion, canary = versions.publish(), versions.publish()
    versions.registry.promote("small", champion)
    rollouts = Rollouts(versions.registry)
    rollouts.start("small", "canary", canary, 0.3)
    with versions.client() as client:
        until(lambda: metric(client, "watchnext_canary_version") == canary)
        versions.registry.promote("small", canary)
        until(lambda: rollouts.find("small")["canary"].state == "stopped")
        assert {answered_by(client, user_id=f"user {i}") for i in range(20)} == {canary}
        assert versions.loaded == [canary]  # not loaded a second time


class Failing(FakeScorer):
    broken = False

    def score(self, user: Any, context: Any, video: Any, cross: Any) -> Any:
        if self.broken:
            raise RuntimeError("a secret of the inside")
        return super().score(user, context, video, cross)


def test_a_failing_canary_is_withdrawn_and_its_users_never_notice(
    versions: Versions, capsys: pytest.CaptureFixture[str]
) -> None:
    scorer = Failing()
    champion, canary = versions.publish(), versions.publish(scorer)
    versions.registry.promote("small", champion)
    rollouts = Rollouts(versions.registry)
    rollouts.start("small", "canary", canary, 0.5)
    with versions.client(canary_minimum=20, canary_latency=1e9) as client:
        until(lambda: metric(client, "watchnext_canary_version") == canary)
        scorer.broken = True
        users = iter(range(100_000))
        until(lambda: answered_by(client, user_id=f"user {next(users)}") and not rollouts.find("small")["canary"].running)
        ended = rollouts.find("small")["canary"]
        assert ended.state == "withdrawn"
        assert ended.reason.startswith("100.0% of the requests failed, of the champion's 0.0%")
        assert metric(client, "watchnext_canaries_withdrawn_total", band="errors") == 1
        assert metric(client, "watchnext_canary_version") == 0
        assert client.get("/v1/models").json()["canary"]["reason"] == ended.reason
    assert "canary withdrawn" in capsys.readouterr().out


def test_a_request_that_was_with_a_canary_when_it_was_withdrawn_is_answered_too(versions: Versions) -> None:
    slots: list[Any] = []

    class Withdrawn(FakeScorer):
        def score(self, user: Any, context: Any, video: Any, cross: Any) -> Any:
            if slots:  # another request's failure has ended the canary, while this one was on its way
                slots[0].canary = None
                raise RuntimeError("a secret of the inside")
            return super().score(user, context, video, cross)

    champion, canary = versions.publish(), versions.publish(Withdrawn())
    versions.registry.promote("small", champion)
    Rollouts(versions.registry).start("small", "canary", canary, 1.0)
    with versions.client() as client:
        until(lambda: answered_by(client) == canary)
        slots.append(client.app_state["runtime"].slot)
        assert answered_by(client) == champion


def test_a_withdrawal_that_the_database_refuses_holds_here_and_is_told_later(
    versions: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = Failing()
    champion, canary = versions.publish(), versions.publish(scorer)
    versions.registry.promote("small", champion)
    rollouts, end, refused = Rollouts(versions.registry), Rollouts.end, []
    rollouts.start("small", "canary", canary, 0.5)

    def locked(*_: Any, **__: Any) -> Any:
        refused.append(1)
        raise BundleError("database is locked")

    with versions.client(canary_minimum=5, canary_latency=1e9) as client:
        until(lambda: metric(client, "watchnext_canary_version") == canary)
        monkeypatch.setattr(Rollouts, "end", locked)
        scorer.broken = True
        users = iter(range(100_000))
        until(lambda: answered_by(client, user_id=f"user {next(users)}") and len(refused) > 3)
        assert rollouts.find("small")["canary"].running
        assert client.app_state["runtime"].slot.canary is None
        monkeypatch.setattr(Rollouts, "end", end)
        until(lambda: rollouts.find("small")["canary"].state == "withdrawn")
        assert metric(client, "watchnext_canaries_withdrawn_total", band="errors") == 1


def test_a_damaged_canary_is_withdrawn_before_it_serves(versions: Versions) -> None:
    champion, canary = versions.publish(), versions.publish()
    versions.registry.promote("small", champion)

    def damaged() -> Serving:
        raise BundleError("scorer.onnx is damaged")

    versions.bring[canary] = damaged
    rollouts = Rollouts(versions.registry)
    rollouts.start("small", "canary", canary, 1.0)
    with versions.client() as client:
        until(lambda: not rollouts.find("small")["canary"].running)
        assert rollouts.find("small")["canary"].reason == "scorer.onnx is damaged"
        assert answered_by(client) == champion


def test_the_bundle_of_an_experiments_arm_is_loaded_beside_the_champion(versions: Versions, home: Path) -> None:
    champion, other = versions.publish(), versions.publish()
    versions.registry.promote("small", champion)
    (home / "experiments").mkdir()
    arms = f"[[arms]]\nname='a'\ncontrol=true\nshare=0.001\n[[arms]]\nname='b'\nshare=0.999\nbundle={other}\n"
    text = f"name='e'\nserves='small'\nsalt='s'\nstart='2000-01-01'\nend='2099-12-31'\n{arms}"
    (home / "experiments" / "e.toml").write_text(text)
    with versions.client() as client:
        until(lambda: answered_by(client, user_id="user 1") == other)
        assert versions.loaded == [other]


def test_a_shadow_scores_what_was_answered_and_is_served_to_nobody(versions: Versions) -> None:
    class Doubled(FakeScorer):
        def score(self, user: Any, context: Any, video: Any, cross: Any) -> Any:
            scores = super().score(user, context, video, cross)
            scores.predictions[:, 0] *= 2
            return scores

    champion, shadow = versions.publish(), versions.publish(Doubled())
    versions.registry.promote("small", champion)
    rollouts = Rollouts(versions.registry)
    rollouts.start("small", "shadow", shadow, 1.0)
    with versions.client() as client:
        until(lambda: client.app_state["runtime"].slot.shadow is not None)
        for _ in range(5):
            assert answered_by(client, candidates=["v1", "v2", "v3"]) == champion
        until(lambda: client.get("/v1/models").json()["shadow"]["slates"] == 5)
        report = client.get("/v1/models").json()["shadow"]
        assert report["prediction_ratio"] == {"click": pytest.approx(2), "watch": pytest.approx(1), "like": pytest.approx(1)}
        assert (report["rank_correlation"], report["top_overlap"], report["failed"]) == (pytest.approx(1), 1, 0)
        assert report["latency_ms"] > 0
        assert metric(client, "watchnext_shadow_slates_total", outcome="scored") == 5
        assert metric(client, "watchnext_shadow_prediction_ratio", objective="click") == pytest.approx(2)
        rollouts.end("small", "shadow", "stopped")
        until(lambda: client.app_state["runtime"].slot.shadow is None)


def test_a_failing_or_slow_shadow_is_counted_and_felt_by_nobody(versions: Versions) -> None:
    release = threading.Event()

    class Slow(FakeScorer):
        live = False

        def score(self, user: Any, context: Any, video: Any, cross: Any) -> Any:
            if self.live:
                release.wait(30)
                raise RuntimeError("a secret of the inside")
            return super().score(user, context, video, cross)

    scorer = Slow()
    champion, shadow = versions.publish(), versions.publish(scorer)
    versions.registry.promote("small", champion)
    Rollouts(versions.registry).start("small", "shadow", shadow, 1.0)
    with versions.client() as client:
        until(lambda: client.app_state["runtime"].slot.shadow is not None)
        scorer.live = True
        for _ in range(40):  # 32 find a place in the queue
            assert answered_by(client) == champion
        until(lambda: client.get("/v1/models").json()["shadow"]["left_out"] == 8)
        release.set()
        until(lambda: client.get("/v1/models").json()["shadow"]["failed"] == 32)
        assert metric(client, "watchnext_shadow_slates_total", outcome="left_out") == 8
