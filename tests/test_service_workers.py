"""Several workers, each a real server of its own port in a thread here, against one that answers alone; the pure parts by
hand."""

import random
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import orjson
import pytest
import requests
import sqlalchemy as sa
import uvicorn
from hypothesis import given
from hypothesis import strategies as st

from data.database import open_database, writing
from data.features.layout import Block
from data.feedback.schema import served
from data.home import Home
from models.rollouts import Rollout
from models.scorer import Scores
from service.app import create_app
from service.batch_split import rounds
from service.canary import Canary
from service.group import LEAD, Group
from service.keys import KeyStore
from service.place import Place
from service.rate_limit import Buckets
from service.runtime import Runtime
from service.settings import Settings
from service.shards import shard_in, shard_of, stamped
from service.shared_limit import WAYS, SharedBuckets
from service.tallies import Report, summed
from service.together import reports_elsewhere
from tests.service_fakes import NOW, VERSION, FakeScorer, encoder, serving

USERS = [f"u{number}" for number in range(12)]
VIDEOS = encoder().video_ids
JSON = {"content-type": "application/json"}


class PersonalScorer(FakeScorer):
    """Every prediction tells all that the features know of the user, so a slate differs with every event."""

    def score(self, user: Block, context: Block, video: Block, cross: Block) -> Scores:
        scores = super().score(user, context, video, cross)
        parts = (user.floats[0].astype(float), user.ints[0].astype(float))
        scores.predictions[:, 1] += sum(float(part @ np.arange(1, len(part) + 1)) for part in parts)
        return scores


class Hand:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.time = NOW

    def __call__(self) -> int:
        return self.time


class Worker:
    """A server in a thread; ``index`` None: it answers alone."""

    def __init__(self, home: Path, folder: Path, index: int | None, count: int, clock: Hand, **settings: Any) -> None:
        place = None if index is None else Place.open(Group(index, count, folder))
        given = {"home": home, "log_level": "error", "deadline_ms": 60_000, "rate_limit": 0, **settings}
        loaded = serving(PersonalScorer())
        app = create_app(Settings(**given), lambda _: loaded, clock=clock, place=place)
        self._server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False))
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.002)
        self.port = self._server.servers[0].sockets[0].getsockname()[1]
        self.session = requests.Session()

    @property
    def runtime(self) -> Runtime:
        found: Runtime = self._server.lifespan.state["runtime"]  # type: ignore[attr-defined]
        return found

    def wait(self) -> None:
        until = time.monotonic() + 60
        while self.runtime.slot.current is None:
            assert time.monotonic() < until, self.runtime.slot.reason
            assert "log says" not in self.runtime.slot.reason
            time.sleep(0.002)

    def ask(self, method: str, path: str, body: Any = None, **more: Any) -> requests.Response:
        data = body if isinstance(body, bytes) else None if body is None else orjson.dumps(body)
        headers = {**(JSON if body is not None else {}), **more}
        return self.session.request(method, f"http://127.0.0.1:{self.port}{path}", data=data, headers=headers, timeout=60)

    def post(self, path: str, body: Any, **more: Any) -> requests.Response:
        return self.ask("POST", path, body, **more)

    def stop(self) -> None:
        self.session.close()
        self.end()
        self._thread.join()

    def end(self) -> None:
        self._server.should_exit = True


@contextmanager
def group(home: Path, count: int, clock: Hand | None = None, **settings: Any) -> Iterator[list[Worker]]:
    with TemporaryDirectory() as folder, ExitStack() as stack:  # a test's own folder has too long a path for a socket
        workers = []
        for index in range(count) if count > 1 else [None]:
            worker = Worker(home, Path(folder), index, count, clock or Hand(), **settings)
            stack.callback(worker.stop)
            workers.append(worker)
        for worker in workers:
            worker.wait()
        yield workers
        for worker in workers:  # all at once, else each waits for the next
            worker.end()


@pytest.fixture
def two(home: Path) -> Iterator[list[Worker]]:
    with group(home, 2) as workers:
        yield workers


def of_worker(index: int, count: int = 2) -> str:
    """A user of that worker."""
    return next(user for user in USERS if shard_of(user) % count == index)


def recommend(worker: Worker, user: Any, **body: Any) -> dict[str, Any]:
    reply = worker.post("/v1/recommend", {"user_id": user, **body})
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def told(slate: dict[str, Any], place: int, event_id: str, kind: str = "view") -> dict[str, Any]:
    video = slate["items"][place]["video_id"]
    return {"event_id": event_id, "request_id": slate["request_id"], "video_id": video, "type": kind}


def ids_of(answer: dict[str, Any]) -> list[str]:
    return [item["video_id"] for item in answer["items"]]


# The whole, against one process.


class Client:
    """Does the same to several services; where one has several workers, whichever a lot names takes the request."""

    def __init__(self, services: Sequence[Sequence[Worker]], seed: int) -> None:
        self._services, self._lots = services, random.Random(f"worker {seed}")
        self.slates: list[list[dict[str, Any]]] = []  # of each service

    def everywhere(self, method: str, path: str, bodies: Sequence[Any]) -> list[Any]:
        """The answers, less the ids of requests; they must be equal."""
        found = []
        for workers, body in zip(self._services, bodies, strict=True):
            reply = self._lots.choice(workers).ask(method, path, body)
            found.append((reply.status_code, reply.json() if reply.content else None))
        assert [self._plain(answer) for answer in found] == [self._plain(found[0])] * len(found)
        return [answer for _, answer in found]

    def same(self, method: str, path: str, body: Any = None) -> list[Any]:
        return self.everywhere(method, path, [body] * len(self._services))

    @staticmethod
    def _plain(answer: tuple[int, Any]) -> Any:
        status, content = answer
        return status, {key: value for key, value in (content or {}).items() if key != "request_id"}


@pytest.mark.parametrize(("count", "seed"), [(2, 1), (3, 2)])
def test_an_event_is_in_the_next_slate_whoever_takes_either(tmp_path: Path, count: int, seed: int) -> None:
    """Slates, events and takedowns in any order: the answers of several workers are those of one process, to the bit."""
    chance, clock = random.Random(seed), Hand()
    with group(tmp_path / "one", 1, clock) as one, group(tmp_path / "many", count, clock) as many:
        client = Client([one, many], seed)
        slates: list[list[dict[str, Any]]] = []
        for step in range(100):
            clock.time += chance.randrange(1, 120_000)
            match chance.choices(("ask", "tell", "take", "restore"), (5, 5, 1, 1))[0]:
                case "ask":
                    body = {"user_id": chance.choice(USERS), "limit": 6, "explore": False}
                    slates.append(client.same("POST", "/v1/recommend", body))
                case "tell" if slates:
                    told_of = [
                        (chance.choice(slates[-8:]), chance.randrange(7), f"e{chance.randrange(3 * step + 1)}", kind)
                        for kind in chance.choices(("view", "click", "like"), k=chance.randrange(1, 6))
                    ]
                    told_of = [(slate, place, *more) for slate, place, *more in told_of if place < len(slate[0]["items"])]
                    batches = [[told(slate[k], place, *more) for slate, place, *more in told_of] for k in range(2)]
                    strange = {"event_id": f"s{step % 5}", "request_id": "nobody's", "video_id": "v1", "type": "view"}
                    client.everywhere("POST", "/v1/events", [{"events": [*batch, strange]} for batch in batches])
                case "take":
                    client.same("DELETE", f"/v1/videos/{chance.choice(VIDEOS)}")
                case "restore":
                    client.same("PUT", f"/v1/videos/{chance.choice(VIDEOS)}", {"restore": True})
    answered = [answers[0] for answers in slates]
    assert len({str(answer["items"]) for answer in answered}) > 30  # the answers do tell one state from another


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b"",
        {"user_id": "u1"},
        {"user_id": True, "candidates": ["v1"]},
        {"user_id": "", "candidates": ["v1"]},
        {"user_id": "u" * 300, "candidates": ["v1"]},
        {"user_id": "u1", "candidates": ["v1", "v1"]},
        b'{"user_id": "u1", "user_id": "u2", "candidates": ["v1"]}',
        {"user_id": 17, "candidates": ["v1"], "context": {"tab": {}}},
        {"user_id": "u2", "candidates": ["v1"], "weights": {"click": 5000}},
    ],
)
def test_what_is_refused_is_refused_in_the_same_words(home: Path, tmp_path: Path, two: list[Worker], body: Any) -> None:
    with group(tmp_path / "one", 1) as (one,):
        wanted = one.post("/v1/rank", body)
        for worker in two:
            reply = worker.post("/v1/rank", body)
            assert reply.status_code == wanted.status_code
            assert {**reply.json(), "request_id": ""} == {**wanted.json(), "request_id": ""}
            assert reply.headers["content-type"] == wanted.headers["content-type"]


def test_batches_that_are_refused_change_nothing(two: list[Worker]) -> None:
    slates = [recommend(two[0], of_worker(index)) for index in (0, 1)]
    good = [told(slate, 0, f"e{number}") for number, slate in enumerate(slates)]
    wrong = {**good[1], "event_id": "w", "surprise": 1}
    refused = two[0].post("/v1/events", {"events": [*good, wrong]})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"] == "events[2].surprise"
    undeclared = two[0].session.post(
        f"http://127.0.0.1:{two[0].port}/v1/events", orjson.dumps({"events": good}), headers={"content-type": "text/plain"}
    )
    assert undeclared.status_code == 415
    for events in ([], [1], [{"event_id": "x"}], "all"):
        assert two[1].post("/v1/events", {"events": events}).status_code == 422
    assert [fate["status"] for fate in two[1].post("/v1/events", {"events": good}).json()["events"]] == ["accepted"] * 2


# Request ids.


def test_a_shard_by_hand() -> None:
    assert shard_of("u1") == 0x9F76  # the CRC-32 of b"u1" is 0x...9f76
    assert shard_in("9f760a7070888b78a155af8cce126b55") == 0x9F76
    assert shard_in("9f760a7070884b78a155af8cce126b55") is None  # a random UUID says nothing
    assert shard_in("nobody's") is None
    assert shard_in("9F760A7070888B78A155AF8CCE126B55") is None


@given(st.text(min_size=1), st.binary(min_size=16, max_size=16))
def test_an_id_says_whose_it_is(user: str, random_bytes: bytes) -> None:
    before = random_bytes.hex()
    request_id = stamped(before, user)
    assert shard_in(request_id) == shard_of(user)
    assert UUID(request_id).version == 8
    assert shard_in(uuid4().hex) is None
    assert (request_id[4:12], request_id[17:]) == (before[4:12], before[17:])  # what is random stays so


def test_answers_carry_the_users_shard_whoever_took_the_request(two: list[Worker]) -> None:
    for worker in two:
        for user in (of_worker(0), of_worker(1), 17):
            reply = worker.post("/v1/rank", {"user_id": user, "candidates": ["v1"]})
            assert reply.headers["x-request-id"] == reply.json()["request_id"]
            assert shard_in(reply.json()["request_id"]) == shard_of(str(user))


def test_requests_from_before_there_were_shards_are_found(home: Path) -> None:
    with group(home, 1) as (one,):
        slates = [recommend(one, of_worker(index)) for index in (0, 1)]
    old = [uuid4().hex for _ in slates]
    engine = open_database(f"sqlite:///{home}/watchnext.db")
    with writing(engine) as connection:
        for table in ("served", "served_items"):
            for before, after in zip((slate["request_id"] for slate in slates), old, strict=True):
                connection.execute(
                    sa.text(f"UPDATE {table} SET request_id = :after WHERE request_id = :before"),
                    {"after": after, "before": before},
                )
        assert connection.execute(sa.select(sa.func.count()).select_from(served)).scalar() == 2
    engine.dispose()
    with group(home, 2) as workers:
        for worker in workers:
            events = [
                told({**slate, "request_id": name}, 0, f"{name}{worker.port}")
                for slate, name in zip(slates, old, strict=True)
            ]
            reply = worker.post("/v1/events", {"events": events})
            assert [fate["status"] for fate in reply.json()["events"]] == ["accepted", "accepted"]
        for slate, index in zip(slates, (0, 1), strict=True):  # and the one who has the user knows
            assert slate["items"][0]["video_id"] not in ids_of(recommend(workers[0], of_worker(index)))


# Events.


def test_a_batch_is_told_apart_by_hand() -> None:
    assert rounds([0, 1, 0, 1], ["a", "b", "c", "d"]) == [[(0, [0, 2]), (1, [1, 3])]]
    assert rounds([0, 1, 0], ["a", "a", "a"]) == [[(0, [0])], [(1, [1])], [(0, [2])]]  # whoever is later must know of it
    assert rounds([1, 1], ["a", "a"]) == [[(1, [0, 1])]]
    assert rounds([], []) == []


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from("abcd")), max_size=12))
def test_every_event_goes_once_and_repeats_in_order(batch: list[tuple[int, str]]) -> None:
    found = rounds([owner for owner, _ in batch], [name for _, name in batch])
    parts = [(number, owner, place) for number, parts in enumerate(found) for owner, places in parts for place in places]
    assert sorted(place for _, _, place in parts) == list(range(len(batch)))
    assert all(batch[place][0] == owner for _, owner, place in parts)
    when = {place: number for number, _, place in parts}
    for later, (owner, name) in enumerate(batch):
        for earlier in range(later):
            if batch[earlier][1] == name:
                assert when[earlier] < when[later] if batch[earlier][0] != owner else when[earlier] <= when[later]


def test_one_id_on_two_workers_requests_counts_once(two: list[Worker]) -> None:
    first, second = (recommend(two[0], of_worker(index)) for index in (0, 1))
    reply = two[0].post("/v1/events", {"events": [told(first, 0, "e"), told(second, 0, "e"), told(second, 1, "f")]})
    assert [fate["status"] for fate in reply.json()["events"]] == ["accepted", "duplicate", "accepted"]
    assert second["items"][0]["video_id"] in ids_of(recommend(two[1], of_worker(1)))


# Away.


def test_a_worker_that_is_away_is_not_stood_in_for(home: Path) -> None:
    with group(home, 2) as workers:
        slates = [recommend(workers[0], of_worker(index)) for index in (0, 1)]
        workers[1].stop()
        gone = workers[0].post("/v1/rank", {"user_id": of_worker(1), "candidates": ["v1"]})
        assert (gone.status_code, gone.headers["retry-after"]) == (503, "1")
        assert "starting again" in gone.json()["detail"]
        assert gone.headers["x-request-id"]
        assert workers[0].post("/v1/rank", {"user_id": of_worker(0), "candidates": ["v1"]}).status_code == 200
        assert workers[0].ask("GET", "/healthz").status_code == 200
        ready = workers[0].ask("GET", "/readyz")
        assert (ready.status_code, "worker 1 is away" in ready.json()["detail"]) == (503, True)
        both = workers[0].post("/v1/events", {"events": [told(slate, 0, f"e{n}") for n, slate in enumerate(slates)]})
        assert both.status_code == 503
        assert "what was accepted counts once" in both.json()["detail"]
        assert workers[0].post("/v1/events", {"events": [told(slates[1], 0, "e1")]}).status_code == 503
        again = workers[0].post("/v1/events", {"events": [told(slates[0], 0, "e0")]})
        assert again.json()["events"][0]["status"] == "duplicate"
        # A video is taken down meanwhile: whoever comes back reads so.
        assert workers[0].ask("DELETE", f"/v1/videos/{VIDEOS[0]}").status_code == 204
        folder = workers[0].runtime.peers.group.folder  # type: ignore[union-attr]
        back = Worker(home, folder, 1, 2, Hand())
        try:
            back.wait()
            assert VIDEOS[0] not in ids_of(recommend(back, of_worker(1)))
            assert recommend(workers[0], of_worker(1))["items"]
            assert workers[0].ask("GET", "/readyz").status_code == 200
        finally:
            back.stop()


def test_without_the_lead_the_catalogue_is_not_changed(home: Path) -> None:
    with group(home, 2) as workers:
        workers[LEAD].stop()
        assert workers[1].ask("DELETE", f"/v1/videos/{VIDEOS[0]}").status_code == 503
        assert workers[1].ask("GET", f"/v1/videos/{VIDEOS[0]}").json()["taken_down_at"] is None


def test_a_change_of_the_catalogue_holds_everywhere_once_it_is_answered(two: list[Worker]) -> None:
    for teller, video in zip(two, VIDEOS, strict=False):
        assert teller.ask("DELETE", f"/v1/videos/{video}").status_code == 204
        for worker in two:
            assert all(video not in ids_of(recommend(worker, of_worker(index))) for index in (0, 1))
            assert worker.ask("GET", f"/v1/videos/{video}").json()["taken_down_at"] == NOW
    new = {"videos": [{"video_id": f"new{number}", "columns": {}} for number in range(3)]}
    assert two[1].post("/v1/videos", new).status_code == 200
    for worker in two:
        assert worker.ask("GET", "/v1/videos/new2").status_code == 200
        assert worker.runtime.videos is not None
        assert "new1" in worker.runtime.videos._known.rows


class Slow(PersonalScorer):
    """Takes its time once the test says so."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def score(self, user: Block, context: Block, video: Block, cross: Block) -> Scores:
        time.sleep(self.seconds)
        return super().score(user, context, video, cross)


def test_the_deadline_is_that_of_the_worker_that_took_the_request(home: Path) -> None:
    with group(home, 2, deadline_ms=300) as workers:
        slow = Slow()
        for worker in workers:
            worker.runtime.slot.current = serving(slow)
        slow.seconds = 1.0
        for worker in workers:
            reply = worker.post("/v1/rank", {"user_id": of_worker(0), "candidates": ["v1"]})
            assert (reply.status_code, reply.json()["detail"]) == (503, "no answer within 300 ms")
            assert reply.headers["retry-after"] == "1"


def test_one_workers_queue_is_not_the_others(home: Path) -> None:
    with group(home, 2, queue=0) as workers:
        hanging = Slow()
        workers[1].runtime.slot.current = serving(hanging)
        hanging.seconds = 2.0
        body = {"user_id": of_worker(1), "candidates": ["v1"]}
        waiting = threading.Thread(target=workers[0].post, args=("/v1/rank", body))
        waiting.start()
        while workers[1].runtime.lane.taken == 0:
            time.sleep(0.002)
        for port in (worker.port for worker in workers):
            full = requests.post(f"http://127.0.0.1:{port}/v1/rank", json=body, timeout=60)
            assert (full.status_code, "being ranked" in full.json()["detail"]) == (503, True)
            free = requests.post(f"http://127.0.0.1:{port}/v1/rank", json={**body, "user_id": of_worker(0)}, timeout=60)
            assert free.status_code == 200
        waiting.join()


# What is shared.


def test_a_callers_limit_holds_for_all_workers_together(home: Path) -> None:
    KeyStore(Home(home)).create(["rank"])
    key = KeyStore(Home(home)).create(["rank"])
    with group(home, 2, rate_limit=0.001, rate_burst=6) as workers:
        body, lots = {"user_id": "u1", "candidates": ["v1"]}, random.Random(1)
        found = [lots.choice(workers).post("/v1/rank", body, authorization=f"Bearer {key}").status_code for _ in range(8)]
    assert found == [200] * 6 + [429] * 2


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 3)), max_size=30), st.integers(0, 1))
def test_the_shared_buckets_are_as_those_of_one_process(asked: list[tuple[str, float]], first: int) -> None:
    clock = Ticks()
    with TemporaryDirectory() as folder:
        alone = Buckets(2.0, 3.0, clock)
        shared = [SharedBuckets(Path(folder) / "keys", 2.0, 3.0, clock) for _ in range(2)]
        for number, (caller, seconds) in enumerate(asked):
            clock.now += seconds
            assert shared[(first + number) % 2].take(caller) == alone.take(caller)


def test_the_shared_buckets_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.shared_limit.SETS", 1)
    clock = Ticks()
    buckets = SharedBuckets(tmp_path / "keys", 0.001, 1.0, clock)
    for caller in range(WAYS):
        clock.now += 1
        assert buckets.take(str(caller)) == 0
    assert buckets.take("0") > 0  # known, and now the one heard of last
    clock.now += 1
    assert buckets.take("another") == 0
    assert buckets.take("0") > 0
    assert buckets.take("1") == 0  # it was forgotten


class Ticks:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def report(**changes: Any) -> Report:
    counts = dict.fromkeys(
        ("slates", "errors", "candidates", "unknown_videos", "unknown_users", "context", "nulls", "views"), 1
    )
    return Report(counts=counts, seconds=[0.1], predicted={"click": 0.5}, positives={"click": 2}, **changes)


def test_reports_are_summed_by_hand() -> None:
    other = report()
    other["seconds"], other["predicted"], other["counts"]["views"] = [0.3, 0.2], {"click": 0.25}, 5
    found = summed([report(), other])
    assert (found.views, found.slates, found.predicted, found.positives) == (6, 2, {"click": 0.75}, {"click": 4})
    assert found.latency == pytest.approx(0.29)  # the 95th percentile of 0.1, 0.2, 0.3


def test_a_canary_is_judged_by_what_all_have_seen(two: list[Worker]) -> None:
    """Its minimum of requests is reached by both together and by neither alone; the lead judges, the other doesn't."""
    champion, trial = serving(), serving()
    rollout = Rollout("small", "canary", VERSION + 1, 0.5, "salt", "running", "", NOW, NOW)
    trial = type(trial)(**{**vars(trial), "version": VERSION + 1})
    for worker in two:
        canary = worker.runtime.slot.canary = Canary.beside(champion, trial, rollout)
        for _ in range(60):
            canary.tallies.failed(VERSION + 1)
        for _ in range(60):
            canary.tallies._sides[VERSION]._counts["slates"] += 1
            canary.tallies._sides[VERSION]._counts["candidates"] += 1
    settings = Settings(canary_minimum=100)
    lead = two[LEAD].runtime
    canary = lead.slot.canary
    assert canary is not None
    assert canary.verdict(settings) is None
    elsewhere = reports_elsewhere(lead, canary)
    verdict = canary.verdict(settings, elsewhere)
    assert verdict is not None
    assert verdict[0] == "errors"
    assert canary.figures(elsewhere)[1].errors == 120
    assert (lead.judges, two[1].runtime.judges) == (True, False)
    two[1].runtime.slot.canary = None  # whose canary has not begun, or is another, has nothing to say
    assert reports_elsewhere(lead, canary) == []


def test_counts_are_of_all_workers(two: list[Worker]) -> None:
    slates = [recommend(worker, of_worker(index)) for worker in two for index in (0, 1)]
    assert (
        two[0].post("/v1/events", {"events": [told(slate, 0, f"e{n}") for n, slate in enumerate(slates)]}).status_code == 202
    )
    for worker in two:
        text = worker.ask("GET", "/metrics").text
        assert 'watchnext_feedback{count="events.accepted"} 4.0' in text
        assert 'watchnext_feedback{count="served.logged"} 4.0' in text


# Nobody else.


def test_what_workers_ask_each_other_is_asked_by_nobody_else(two: list[Worker]) -> None:
    for kind in ("request", "ready", "dropped", "canary", "finished"):
        for path in (f"/{kind}", f"/v1/{kind}", f"/internal/{kind}"):
            assert two[0].post(path, {"kind": kind}).status_code in (404, 405)
    head = orjson.dumps({"kind": "dropped"})
    with socket.create_connection(("127.0.0.1", two[0].port), 10) as connection:
        connection.sendall(struct.pack(">II", len(head), 0) + head + b"\r\n\r\n")
        answer = connection.recv(1000)
    assert not answer or answer.startswith(b"HTTP/1.1 400")


def test_the_key_is_asked_for_before_anything_is_handed_on(home: Path) -> None:
    key = KeyStore(Home(home)).create(["rank"])
    with group(home, 2) as workers:
        for worker, user in chain.from_iterable(((w, of_worker(i)) for w in workers) for i in (0, 1)):
            body = {"user_id": user, "candidates": ["v1"]}
            assert worker.post("/v1/rank", body).status_code == 401
            assert worker.post("/v1/rank", body, authorization=f"Bearer {key}").status_code == 200
            assert worker.post("/v1/events", {"events": []}, authorization=f"Bearer {key}").status_code == 403


def test_a_body_over_the_limit_is_not_handed_on(home: Path) -> None:
    with group(home, 2, body_limit=2_000) as workers:
        for worker in workers:
            body = {"user_id": of_worker(0), "candidates": [f"v{n}" for n in range(500)]}
            assert worker.post("/v1/rank", body).status_code == 413
