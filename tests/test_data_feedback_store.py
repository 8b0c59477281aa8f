"""data/feedback/store.py: fates and counters, duplicates, profiles at once, and what happens when the disk fails."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from data import database
from data.database import DatabaseError, open_database, reading, writing
from data.feedback.events import Event, Fate
from data.feedback.schema import counters, events, served, served_items
from data.feedback.store import Feedback, FeedbackError
from tests.feedback_world import HOUR, SECOND, Clock, feedback_config, opened, slate, start_of
from tests.small_log import rows_of

CONFIG = feedback_config()
T = start_of(CONFIG, 0) + HOUR


def event(event_id: str, kind: str = "view", value: float | None = None, **more: Any) -> Event:
    return Event(**{"event_id": event_id, "request_id": "r", "video_id": "a", "type": kind, "value": value, **more})


@pytest.fixture
def clock() -> Clock:
    return Clock(T)


@pytest.fixture
def feedback(tmp_path: Path, clock: Clock) -> Iterator[Feedback]:
    """With a request "r" of user "u" at T, that showed a and b, in the state of ten seconds later."""
    with opened(tmp_path, CONFIG, clock) as opened_feedback:
        opened_feedback.log_served(slate("r", "u", opened_feedback.now(), ["a", "b"], context={"tab": "1"}))
        clock.now += 10 * SECOND
        yield opened_feedback


def stored(folder: Path, table: sa.Table) -> list[Any]:
    engine = open_database(f"sqlite:///{folder}/watchnext.db")
    with reading(engine) as connection:
        rows = list(connection.execute(sa.select(table)))
    engine.dispose()
    return rows


def count(folder: Path) -> dict[str, int]:
    return {row.name: row.value for row in stored(folder, counters)}


FATES = [
    (event("e"), Fate("e", "accepted")),
    (event("e", "click"), Fate("e", "accepted")),
    (event("e", "click", 1.0, user_id="u"), Fate("e", "accepted")),
    (event("e", "watch", 0.0), Fate("e", "accepted")),
    (event("e", timestamp=T + 9 * SECOND), Fate("e", "accepted")),
    (event("e", timestamp=T - 1), Fate("e", "accepted", "early")),
    (event("e", timestamp=T + 310 * SECOND), Fate("e", "accepted")),
    (event("e", timestamp=T + 310 * SECOND + 1), Fate("e", "accepted", "future")),
    (event("e", request_id="never"), Fate("e", "orphan", "request")),
    (event("e", video_id="c"), Fate("e", "orphan", "video")),
    (event("e", user_id="somebody"), Fate("e", "orphan", "user")),
    (event("e", "unheard of"), Fate("e", "rejected", "type")),
    (event("e", "click", 0.0), Fate("e", "rejected", "value")),
    (event("e", "watch"), Fate("e", "rejected", "value")),
    (event("e", "watch", float("nan")), Fate("e", "rejected", "value")),
    (event("e", "watch", -0.5), Fate("e", "rejected", "negative")),
    (event("e", "watch", 1e13), Fate("e", "rejected", "range")),
    (event("e", "stars", 0.5), Fate("e", "rejected", "range")),
    (event("e", "stars", 6.0), Fate("e", "rejected", "range")),
]


@pytest.mark.parametrize(("sent", "fate"), FATES, ids=lambda value: str(value.reason) if isinstance(value, Fate) else "")
def test_every_event_has_a_fate_and_a_counter_that_survives(
    feedback: Feedback, tmp_path: Path, sent: Event, fate: Fate
) -> None:
    assert feedback.accept([sent]) == [fate]
    kept = [(row.event_id, row.fate) for row in stored(tmp_path, events)]
    assert kept == ([] if fate.status == "rejected" else [("e", fate.status)])
    names = {f"events.{fate.status}"} | ({f"events.{fate.status}.{fate.reason}"} if fate.reason else set())
    expected = dict.fromkeys(names, 1)
    assert {name: n for name, n in count(tmp_path).items() if name.startswith("events.")} == expected
    assert {name: n for name, n in feedback.counters().items() if name.startswith("events.")} == expected


@pytest.mark.parametrize(
    ("kind", "window"), [("click", HOUR), ("watch", 2 * HOUR), ("view", 6 * HOUR), ("stars", 40 * HOUR)]
)
def test_an_event_after_its_window_is_late_and_kept(feedback: Feedback, clock: Clock, kind: str, window: int) -> None:
    feedback.accept([event("seen")])
    value = 3.0 if kind in ("watch", "stars") else None
    for after, status in ((window, "accepted"), (window + 1, "late")):
        clock.now = T + after
        assert feedback.accept([event(f"{kind}{after}", kind, value)])[0].status == status


def test_an_item_that_can_be_no_impression_any_more_has_late_events_only(feedback: Feedback, clock: Clock) -> None:
    clock.now = T + 6 * HOUR + 1
    assert feedback.accept([event("e", "stars", 3.0)]) == [Fate("e", "late")]
    assert feedback.profile("small", "u", 0, clock.now + 1) is None


def test_the_same_id_counts_once(feedback: Feedback, tmp_path: Path, clock: Clock) -> None:
    batch = [event("e1", "watch", 2.0), event("e1", "watch", 2.0), event("e2", "watch", 2.0)]
    assert [fate.status for fate in feedback.accept(batch)] == ["accepted", "duplicate", "accepted"]
    assert [fate.status for fate in feedback.accept(batch)] == ["duplicate"] * 3
    feedback.close()
    with opened(tmp_path, CONFIG, clock) as again:
        assert [fate.status for fate in again.accept(batch)] == ["duplicate"] * 3
    clock.now = T + 3 * HOUR
    with opened(tmp_path, CONFIG, clock) as again:
        profile = again.profile("small", "u", 0, clock.now)
    assert profile is not None
    assert profile.numbers("watch").tolist() == [4.0]
    assert count(tmp_path)["events.duplicate"] == 7


def test_a_rejected_event_may_be_sent_again_put_right(feedback: Feedback) -> None:
    assert feedback.accept([event("e", "watch", -1.0)])[0].status == "rejected"
    assert feedback.accept([event("e", "watch", 1.0)])[0].status == "accepted"


def test_a_like_is_in_the_next_profile(feedback: Feedback, clock: Clock) -> None:
    assert feedback.profile("small", "u", 0, feedback.now()) is None
    assert feedback.seen("small", "u", 0) == set()
    feedback.accept([event("e", "like")])
    assert feedback.profile("small", "u", 0, feedback.now()) is None  # of the same millisecond
    clock.now += 1
    profile = feedback.profile("small", "u", 0, feedback.now())
    assert profile is not None
    assert [(r["video_id"], r["like"], r["like_visible_at"]) for r in rows_of(profile)] == [("a", 1.0, T + 10 * SECOND)]
    assert feedback.seen("small", "u", 0) == {"a"}
    assert feedback.profile("small", "u", T + 1, feedback.now()) is None
    assert feedback.profile("other", "u", 0, feedback.now()) is None
    assert feedback.profile("small", "v", 0, feedback.now()) is None


def test_what_cannot_be_rebuilt_is_kept_but_in_no_profile(tmp_path: Path, clock: Clock) -> None:
    with opened(tmp_path, CONFIG, clock) as feedback:
        feedback.log_served(slate("own", "u", T, ["a"], rebuildable=False))
        feedback.log_served(slate("ahead", "u", T + 1, ["b"]))
        feedback.accept([event("e1", request_id="own"), event("e2", request_id="ahead", video_id="b")])
        assert feedback.profile("small", "u", 0, T + HOUR) is None
        assert feedback.seen("small", "u", 0) == {"a", "b"}
        assert feedback.counters()["served.not_rebuildable"] == 2
    assert [row.rebuildable for row in stored(tmp_path, served)] == [False, False]


def test_a_slate_is_kept_as_it_was_served(feedback: Feedback, tmp_path: Path) -> None:
    feedback.close()
    (request,) = stored(tmp_path, served)
    assert (request.user_id, request.timestamp, request.answered_at, request.context) == ("u", T, T, '{"tab":"1"}')
    items = [(i.position, i.video_id, i.score, i.predictions, i.generators) for i in stored(tmp_path, served_items)]
    assert items == [(0, "a", 1.0, '{"click":0.1}', "topic"), (1, "b", 0.9, '{"click":0.1}', "topic")]


def test_profiles_are_the_same_from_disk_and_with_little_memory(tmp_path: Path, clock: Clock) -> None:
    with opened(tmp_path, CONFIG, clock) as feedback, opened(tmp_path / "2", CONFIG, clock, memory=3) as forgetful:
        for number in range(30):
            request, user = f"r{number}", f"u{number % 7}"
            told = [event(f"{number}like", "like", request_id=request), event(f"{number}", "watch", 2.0, request_id=request)]
            context = {"tab": str(number), "battery": 0.1 * number}
            for each in (feedback, forgetful):
                each.log_served(slate(request, user, T, ["a", "b"], context=context))
                each.accept(told)
                each.profile("small", user, 0, clock.now)
            clock.now += SECOND
        assert len(forgetful._memory.requests) < 12
        kept = [feedback.profile("small", f"u{n}", 0, clock.now) for n in range(7)]
        for n, profile in enumerate(kept):
            assert_equal(profile, forgetful.profile("small", f"u{n}", 0, clock.now))
    with opened(tmp_path, CONFIG, clock) as again:
        for n, profile in enumerate(kept):
            assert_equal(profile, again.profile("small", f"u{n}", 0, clock.now))


def test_what_is_far_older_than_what_is_asked_for_leaves_the_memory(tmp_path: Path, clock: Clock) -> None:
    day = 24 * HOUR
    with opened(tmp_path, CONFIG, clock) as feedback:
        for number in range(12):
            feedback.log_served(slate(f"r{number}", "u", clock.now, ["a"]))
            feedback.accept([event(f"e{number}", request_id=f"r{number}")])
            clock.now += day
            profile = feedback.profile("small", "u", clock.now - day, clock.now)
            assert profile is not None
            assert profile.strings("request_id").tolist() == [f"r{number}"]
        assert len(feedback._memory.requests) < 9
        assert len(feedback._memory.users) == 1
        every = feedback.profile("small", "u", 0, clock.now)
        assert every is not None
        assert len(every) == 12
        assert [fate.status for fate in feedback.accept([event("more", "stars", 3.0, request_id="r0")])] == ["late"]


def assert_equal(one: Any, other: Any) -> None:
    assert one is not None
    assert list(one.columns) == list(other.columns)
    for name, column in one.columns.items():
        np.testing.assert_array_equal(column.tolist(), other[name].tolist())


def test_time_never_goes_back(feedback: Feedback, clock: Clock) -> None:
    before = feedback.now()
    clock.now -= HOUR
    assert feedback.now() == before
    feedback.accept([event("e")])
    profile = feedback.profile("small", "u", 0, before + 1)
    assert profile is not None
    assert profile.numbers("seen_at").tolist() == [before]


def test_without_a_configuration_events_are_refused_in_a_sentence(tmp_path: Path, clock: Clock) -> None:
    feedback = Feedback(open_database(f"sqlite:///{tmp_path}/watchnext.db"), lambda: None, clock)
    with pytest.raises(FeedbackError, match="no configuration yet"):
        feedback.accept([event("e")])
    assert feedback.profile("small", "u", 0, T) is None
    feedback.close()


def test_a_locked_database_is_an_error_to_callers(
    feedback: Feedback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feedback.accept([event("e1")])
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 1)
    feedback._engine.dispose()  # so that connections are opened with that
    with writing(open_database(f"sqlite:///{tmp_path}/watchnext.db")):
        with pytest.raises(FeedbackError, match=r"not accepted: .*locked"):
            feedback.accept([event("e2")])
        feedback.log_served(slate("lost", "u", feedback.now(), ["b"]))
        wait_until(lambda: feedback.counters()["served.dropped"] == 1)
    assert feedback.accept([event("e2")]) == [Fate("e2", "accepted")]
    assert feedback.accept([event("x", request_id="lost")]) == [Fate("x", "orphan", "request")]
    assert count(tmp_path)["served.dropped"] == 1
    assert [row.request_id for row in stored(tmp_path, served)] == ["r"]


def test_what_did_not_reach_the_disk_leaves_no_trace(feedback: Feedback, tmp_path: Path, clock: Clock) -> None:
    """A profile that held an event for a moment, before the disk refused it, must not be taken for what was served."""
    feedback.accept([event("e1")])
    fail, failing = threading.Event(), True

    @sa.event.listens_for(feedback._engine, "begin")
    def _refuse(connection: sa.Connection) -> None:
        if failing and threading.current_thread().name == "feedback":
            fail.wait()
            raise DatabaseError("the disk is gone")

    errors: list[FeedbackError] = []

    def send() -> None:
        with pytest.raises(FeedbackError) as caught:
            feedback.accept([event("e2", "like")])
        errors.append(caught.value)

    sender = threading.Thread(target=send)
    sender.start()
    wait_until(lambda: len(feedback._memory.requests["r"].events) == 2)
    clock.now += 1
    early = feedback.now()
    assert likes(feedback, early) == [1.0]
    feedback.log_served(slate("with it", "u", early, ["b"]))
    fail.set()
    sender.join()
    wait_until(lambda: feedback.counters()["served.dropped"] == 1)
    failing = False
    clock.now += 1
    np.testing.assert_array_equal(likes(feedback, feedback.now()), [np.nan])
    feedback.log_served(slate("sure", "u", feedback.now(), ["b"]))
    feedback.log_served(slate("doubtful", "u", early, ["b"]))
    assert feedback.accept([event("e2", "like")]) == [Fate("e2", "accepted")]
    assert [str(error) for error in errors] == ["the events were not accepted: the disk is gone"]
    known = {row.request_id: row.rebuildable for row in stored(tmp_path, served)}
    assert known == {"r": True, "sure": True, "doubtful": False}


def likes(feedback: Feedback, as_of: int) -> list[float]:
    profile = feedback.profile("small", "u", 0, as_of)
    assert profile is not None
    return [float(value) for value in profile.numbers("like")]


def wait_until(condition: Any) -> None:
    for _ in range(10_000):
        if condition():
            return
        threading.Event().wait(0.001)
    raise AssertionError("it never came to pass")


def test_a_full_disk_is_an_error_to_callers_and_passes(tmp_path: Path, clock: Clock) -> None:
    engine = open_database(f"sqlite:///{tmp_path}/watchnext.db")
    pages = {"most": 1 << 30}

    @sa.event.listens_for(engine, "begin")
    def _limit(connection: sa.Connection) -> None:
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages['most']}")

    feedback = Feedback(engine, lambda: CONFIG, clock)
    feedback.log_served(slate("r", "u", T, ["a"]))
    feedback.accept([event("e0")])
    pages["most"] = 1  # SQLite takes what it has now
    many = [event(f"e{n}" + "x" * 200) for n in range(3_000)]
    with pytest.raises(FeedbackError, match="full"):
        feedback.accept(many)
    pages["most"] = 1 << 30
    assert {fate.status for fate in feedback.accept(many)} == {"accepted"}
    feedback.close()
    assert len(stored(tmp_path, events)) == 3_001


def test_a_full_queue_drops_slates_and_refuses_events_without_waiting(tmp_path: Path, clock: Clock) -> None:
    with opened(tmp_path, CONFIG, clock, maximum_queue=2) as feedback:
        with writing(open_database(f"sqlite:///{tmp_path}/watchnext.db")):
            feedback.log_served(slate("at work", "u", T, ["a"]))
            wait_until(lambda: not feedback._queue._ops)  # the writer has it, and waits for the lock
            for number in range(5):
                feedback.log_served(slate(f"r{number}", "u", T, ["a"]))
            assert feedback.counters()["served.dropped"] == 3
            with pytest.raises(FeedbackError, match="too much waits for the disk"):
                feedback.accept([event("e")])
        wait_until(lambda: not feedback._queue.full)
        assert feedback.accept([event("e", request_id="r0")]) == [Fate("e", "accepted")]
    assert {row.request_id for row in stored(tmp_path, served)} == {"at work", "r0", "r1"}
    assert count(tmp_path)["served.dropped"] == 3


def test_many_threads_lose_and_double_nothing(tmp_path: Path) -> None:
    clock = Clock(T)
    failures: list[str] = []

    def work(feedback: Feedback, mine: int) -> None:
        for number in range(25):
            user, request = f"u{number % 3}", f"r{mine}.{number}"
            feedback.log_served(slate(request, user, feedback.now(), ["a", "b"]))
            feedback.accept([event(f"e{mine}.{number}", "like", request_id=request), event(f"shared{number}")])
            clock.now += 1
            profile = feedback.profile("small", user, 0, feedback.now())
            if profile is None or request not in profile.strings("request_id").tolist():
                failures.append(request)

    with opened(tmp_path, CONFIG, clock, memory=40) as feedback:
        threads = [threading.Thread(target=work, args=(feedback, mine)) for mine in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []
    known = count(tmp_path)
    assert (known["served.logged"], known["events.accepted"]) == (150, 150)
    assert (known["events.orphan"], known["events.duplicate"]) == (25, 125)
    assert len(stored(tmp_path, served)) == 150
    assert len(stored(tmp_path, events)) == 175


def test_after_the_end_nothing_is_taken_in(tmp_path: Path, clock: Clock) -> None:
    with opened(tmp_path, CONFIG, clock) as feedback:
        feedback.close()
        feedback.log_served(slate("r", "u", T, ["a"]))
        with pytest.raises(FeedbackError, match="stopping"):
            feedback.accept([event("e")])
    assert stored(tmp_path, served) == []


def test_an_id_that_two_processes_take_at_the_same_moment_is_taken_by_one(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each asked the disk before the other had written: the second's commit fails, and then it knows."""
    with opened(tmp_path, CONFIG, clock) as one, opened(tmp_path, CONFIG, clock) as other:
        one.log_served(slate("r", "u", one.now(), ["a", "b"]))
        other.log_served(slate("s", "v", other.now(), ["a", "b"]))
        clock.now += SECOND
        assert one.accept([event("e")]) == [Fate("e", "accepted")]
        with monkeypatch.context() as before:
            before.setattr("data.feedback.store.known_events", lambda *_: set())
            with pytest.raises(FeedbackError):
                other.accept([event("e", request_id="s")])
        assert other.accept([event("e", request_id="s")]) == [Fate("e", "duplicate")]
        assert other.profile("small", "v", T, clock.now + HOUR) is None
        assert dict(other.users_of(["r", "nobody's"])) == {"r": "u"}
    assert [row.request_id for row in stored(tmp_path, events)] == ["r"]
    assert count(tmp_path)["events.accepted"] == 1


def test_counts_of_several_processes_are_read_from_the_disk(tmp_path: Path, clock: Clock) -> None:
    with opened(tmp_path, CONFIG, clock) as one, opened(tmp_path, CONFIG, clock) as other:
        one.log_served(slate("r", "u", one.now(), ["a"]))
        one.log_served(slate("r", "u", one.now(), ["a"]))  # dropped: it is there
        one.accept([event("e")])
        assert other.counters()["served.dropped"] == 0
        found = other.counters(dropped_elsewhere=one.dropped)
        assert (found["events.accepted"], found["served.logged"], found["served.dropped"]) == (1, 1, 1)
