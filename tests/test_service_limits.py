"""Rate limits and the bounded queue: values by hand with a clock passed in, and real threads."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import service.lane
from data.home import Home
from service.keys import KeyStore
from service.problems import MEDIA_TYPE
from service.rate_limit import Buckets, caller_of
from tests.service_fakes import FakeScorer, client_of, metric, serving

GOOD = {"user_id": "u1", "candidates": ["v1", "v2"]}


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_by_hand() -> None:
    clock = Clock()
    buckets = Buckets(rate=2, burst=3, clock=clock)
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, 0.5]  # three saved up, the next in half a second
    assert buckets.take("b") == 0  # its own bucket
    clock.now += 0.25
    assert buckets.take("a") == 0.25  # half a token so far; asking in vain costs none
    clock.now += 0.25
    assert buckets.take("a") == 0
    clock.now += 1000
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, 0.5]  # never more than three


def test_a_clock_set_back_gives_nothing() -> None:
    clock = Clock()
    buckets = Buckets(rate=1, burst=1, clock=clock)
    assert buckets.take("a") == 0
    clock.now -= 50
    assert buckets.take("a") == 1


def test_memory_is_bounded_and_the_longest_silent_is_forgotten() -> None:
    buckets = Buckets(rate=1, burst=1, clock=Clock(), most=3)
    for caller in ("a", "b", "c", "a", "d"):
        buckets.take(caller)
    assert len(buckets) == 3
    assert buckets.take("a") == 1  # still empty
    assert buckets.take("b") == 0  # forgotten, so full again


@given(st.lists(st.floats(0, 3), min_size=1, max_size=60), st.floats(0.5, 5), st.integers(1, 5))
def test_never_more_than_the_rate_allows(pauses: list[float], rate: float, burst: int) -> None:
    clock = Clock()
    buckets = Buckets(rate, burst, clock)
    passed = 0
    for pause in pauses:
        clock.now += pause
        passed += buckets.take("a") == 0
    assert passed <= burst + sum(pauses) * rate + 1e-6


@pytest.mark.parametrize(
    ("address", "caller"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("testclient", "testclient"),
        ("", ""),
    ],
)
def test_whose_bucket(address: str, caller: str) -> None:
    assert caller_of(address) == caller


def test_too_many_requests_get_429_and_when_to_come_back() -> None:
    with client_of(rate_limit=0.01, rate_burst=2) as client:
        assert [client.post("/v1/rank", json=GOOD).status_code for _ in range(2)] == [200, 200]
        refused = client.post("/v1/rank", json=GOOD)
        assert (refused.status_code, refused.headers["content-type"]) == (429, MEDIA_TYPE)
        assert 95 <= int(refused.headers["retry-after"]) <= 100
        assert {client.get(path).status_code for path in ("/healthz", "/readyz")} == {200}  # never limited


def test_each_key_has_its_own_bucket_and_guessing_has_the_addresss(home: Path) -> None:
    store = KeyStore(Home(home))
    one, two = ({"authorization": f"Bearer {store.create(['rank'])}"} for _ in range(2))
    with client_of(rate_limit=0.01, rate_burst=1) as client:
        assert [client.post("/v1/rank", json=GOOD, headers=one).status_code for _ in range(2)] == [200, 429]
        assert client.post("/v1/rank", json=GOOD, headers=two).status_code == 200
        assert [client.post("/v1/rank", json=GOOD).status_code for _ in range(2)] == [401, 429]


def test_no_limit_where_it_is_zero() -> None:
    with client_of(rate_limit=0, rate_burst=1) as client:
        assert {client.post("/v1/rank", json=GOOD).status_code for _ in range(20)} == {200}


class Gated(FakeScorer):
    """Waits for the test, but not while it is warmed."""

    def __init__(self) -> None:
        self.closed, self.release, self.lock, self.begun = False, Event(), threading.Lock(), 0

    def score(self, user: Any, context: Any, video: Any, cross: Any) -> Any:
        if self.closed:
            with self.lock:
                self.begun += 1
            assert self.release.wait(30)
        return super().score(user, context, video, cross)


class Located(FakeScorer):
    """Notes which thread it is asked in."""

    def __init__(self) -> None:
        self.threads: list[str] = []

    def score(self, user: Any, context: Any, video: Any, cross: Any) -> Any:
        self.threads.append(threading.current_thread().name)
        return super().score(user, context, video, cross)


def test_only_what_waits_for_nothing_is_ranked_on_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service.lane, "QUICK", 60)
    scorer = Located()
    with client_of(serving(scorer), rate_limit=0) as client:
        feedback = client.app_state["runtime"].feedback
        assert feedback._on_disk.wait()

        def crosses(path: str, body: dict[str, Any]) -> bool:
            assert client.post(path, json=body).status_code == 200
            return scorer.threads[-1].startswith("rank_")

        assert not crosses("/v1/rank", GOOD)
        assert crosses("/v1/recommend", {"user_id": GOOD["user_id"]})
        assert not crosses("/v1/rank", GOOD)
        feedback._memory.forget_all()
        assert crosses("/v1/rank", GOOD)  # its profile is read
        assert not crosses("/v1/rank", GOOD)


@pytest.fixture
def gated() -> Iterator[Gated]:
    scorer = Gated()
    yield scorer
    scorer.release.set()


def test_a_full_queue_sheds_before_any_work(gated: Gated) -> None:
    with client_of(serving(gated), threads=2, queue=3) as client, ThreadPoolExecutor(20) as callers:
        gated.closed = True
        lane = client.app_state["runtime"].lane
        waiting = [callers.submit(client.post, "/v1/rank", json=GOOD) for _ in range(5)]
        while lane.taken < 5:
            pass
        for _ in range(4):
            refused = client.post("/v1/rank", content=b"not even read", headers={"content-type": "text/plain"})
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert refused.json()["detail"] == "5 requests are being ranked or wait for it"
        assert client.get("/healthz").status_code == 200
        assert metric(client, "watchnext_refused_total", status="503") == 4
        gated.release.set()
        assert {future.result().status_code for future in waiting} == {200}
        assert gated.begun == 5
        assert client.post("/v1/rank", json=GOOD).status_code == 200
        assert lane.taken == 0


def test_exactly_as_many_as_there_is_room_for(gated: Gated) -> None:
    with client_of(serving(gated), threads=2, queue=3) as client, ThreadPoolExecutor(20) as callers:
        gated.closed = True
        answers = [callers.submit(client.post, "/v1/rank", json=GOOD) for _ in range(20)]
        while sum(future.done() for future in answers) < 15:
            pass
        gated.release.set()
        statuses = [future.result().status_code for future in answers]
        assert (statuses.count(200), statuses.count(503)) == (5, 15)


def test_what_was_given_up_while_it_waited_is_never_begun_and_counts_until_it_ends(gated: Gated) -> None:
    with client_of(serving(gated), threads=1, queue=2, deadline_ms=50) as client, ThreadPoolExecutor(3) as callers:
        gated.closed = True
        answers = list(callers.map(lambda _: client.post("/v1/rank", json=GOOD), range(3)))
        assert {answer.status_code for answer in answers} == {503}
        lane = client.app_state["runtime"].lane
        assert (gated.begun, lane.taken) == (1, 1)  # the one that had begun holds its thread still
        gated.release.set()
        while lane.taken:
            pass
        assert gated.begun == 1
