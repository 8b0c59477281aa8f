"""Any sequence of slates, events (in any order, repeated, with any clock), restarts and waits against a simple model."""

import math
import tempfile
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from data.database import open_database, reading
from data.feedback.events import Event
from data.feedback.schema import events as events_table
from data.feedback.store import Feedback
from tests.feedback_world import HOUR, Clock, feedback_config, opened, slate, start_of
from tests.small_log import rows_of

CONFIG = feedback_config()
T = start_of(CONFIG, 0) + HOUR
WINDOWS = {"view": 6 * HOUR, "click": HOUR, "watch": 2 * HOUR, "like": 6 * HOUR, "stars": 40 * HOUR}
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Nothing is cut off here, so nothing need be synced."""
USERS, VIDEOS = ("u0", "u1"), ("a", "b")


@st.composite
def sent(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(["view", "click", "watch", "watch", "like", "stars", "stars", "unheard of"]))
    value = draw(st.sampled_from([3.0, 4.25, 5.0, 0.1, -1.0])) if kind in ("watch", "stars") else None
    return {
        "event_id": f"e{draw(st.integers(0, 60))}",
        "request_id": draw(st.sampled_from(["r0", "r0", "r0", "r0", "r1", "r9"])),
        "video_id": draw(st.sampled_from(["a", "a", "a", "a", "b", "c"])),
        "type": kind,
        "value": value,
        "user_id": draw(st.sampled_from([None, None, "u0"])),
        "timestamp": draw(st.sampled_from([None, T - 5 * HOUR, T, T + HOUR, T + 500 * HOUR])),
    }


TELL = st.tuples(st.just("tell"), st.lists(sent(), min_size=2, max_size=8))
WAIT = st.tuples(st.just("wait"), st.sampled_from([0, 1, 5_000, HOUR // 2, 33 * HOUR, -HOUR]))
EDGE = st.tuples(st.just("edge"), st.tuples(st.sampled_from(sorted(WINDOWS.values())), st.sampled_from([0, 0, 1])))
"""To the moment at which a window of the first request closes, or just after it."""
LOOK = st.tuples(st.just("look"), st.sampled_from(USERS))
SERVE = st.tuples(st.just("serve"), st.sampled_from(USERS))
RESTART = st.tuples(st.just("restart"), st.none())
STEPS = st.lists(st.one_of(TELL, TELL, TELL, EDGE, WAIT, LOOK, SERVE, RESTART), min_size=4, max_size=30)


@dataclass
class Model:
    """What should be, in plain words."""

    requests: dict[str, tuple[str, int]] = field(default_factory=dict)  # user, time
    events: dict[str, tuple[dict[str, Any], int, str]] = field(default_factory=dict)  # what was sent, received, fate
    counts: Counter[str] = field(default_factory=Counter)

    def tell(self, event: dict[str, Any], now: int) -> str:
        status = "duplicate" if event["event_id"] in self.events else self.judge(event, now)
        if status not in ("duplicate", "rejected"):
            self.events[event["event_id"]] = event, now, status
        self.counts[status] += 1
        return status

    def judge(self, event: dict[str, Any], now: int) -> str:
        if event["type"] not in WINDOWS or (event["value"] or 0) < 0 or (event["type"] == "stars" and event["value"] < 1):
            return "rejected"
        user, time = self.requests.get(event["request_id"], (None, 0))
        if user is None or event["video_id"] not in VIDEOS or event["user_id"] not in (None, user):
            return "orphan"
        if now > time + WINDOWS[event["type"]]:
            return "late"
        missed = now > time + 6 * HOUR and self.seen(event["request_id"], event["video_id"], now + 1) is None
        return "late" if missed else "accepted"

    def on(self, request: str, video: str, as_of: int) -> list[tuple[int, str, dict[str, Any]]]:
        """The events on an item in the order in which they count."""
        return sorted(
            (
                (received, event_id, event)
                for event_id, (event, received, fate) in self.events.items()
                if (event["request_id"], event["video_id"]) == (request, video) and received < as_of and fate != "orphan"
            ),
            key=lambda found: found[:2],
        )

    def seen(self, request: str, video: str, as_of: int) -> int | None:
        first = [received for received, _, _ in self.on(request, video, as_of)][:1]
        return first[0] if first and first[0] <= self.requests[request][1] + 6 * HOUR else None

    def profile(self, user: str, as_of: int) -> list[dict[str, Any]]:
        rows = []
        for request, (who, time) in self.requests.items():
            for video in VIDEOS if who == user else ():
                seen = self.seen(request, video, as_of)
                if seen is not None:
                    labels = {label: self.label(request, video, label, as_of) for label in CONFIG.labels}
                    rows.append({"timestamp": time, "video_id": video, "request_id": request, "seen_at": seen, **labels})
        return sorted(rows, key=lambda row: (row["timestamp"], row["video_id"], row["request_id"]))

    def label(self, request: str, video: str, label: str, as_of: int) -> float:
        kind = CONFIG.event_of(label)
        until = self.requests[request][1] + WINDOWS[kind]
        found = [e["value"] for received, _, e in self.on(request, video, as_of) if e["type"] == kind and received <= until]
        if label in ("click", "like"):
            return 1.0 if found else 0.0 if until < as_of else math.nan
        if not found or until >= as_of:
            return math.nan
        return float(found[-1]) if label == "rating" else float(sum(found))


def run(steps: list[tuple[str, Any]]) -> None:
    model, clock, last, served = Model(), Clock(T), T, 0
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder, ExitStack() as stack:
        feedback = stack.enter_context(opened(Path(folder), CONFIG, clock, memory=4))
        for what, which in [("serve", "u0"), *steps]:
            if what == "wait":
                clock.now += which
            elif what == "edge":
                clock.now = max(clock.now, T + sum(which))
            elif what == "restart":
                feedback.close()
                last = clock.now = max(clock.now, last)  # it reads the clock when it starts, and never goes back behind that
                feedback = stack.enter_context(opened(Path(folder), CONFIG, clock, memory=4))
            else:
                last = max(last, clock.now)
            if what == "serve":
                feedback.log_served(slate(f"r{served}", which, feedback.now(), list(VIDEOS)))
                model.requests[f"r{served}"] = which, last
                served += 1
            elif what == "tell":
                expected = [model.tell(event, last) for event in which]
                assert [fate.status for fate in feedback.accept([Event(**event) for event in which])] == expected
            elif what == "look":
                compare(feedback, model, which, feedback.now())
        for as_of in (last, last + 1, last + 100 * HOUR):
            for user in USERS:
                compare(feedback, model, user, as_of)
        counts = feedback.counters()
        assert {name: counts.get(f"events.{name}", 0) for name in model.counts} == dict(model.counts)
        feedback.close()
        assert stored(Path(folder)) == {id_: (received, fate) for id_, (_, received, fate) in model.events.items()}


def compare(feedback: Feedback, model: Model, user: str, as_of: int) -> None:
    profile, expected = feedback.profile("small", user, 0, as_of), model.profile(user, as_of)
    rows = [] if profile is None else rows_of(profile)
    names = ("timestamp", "video_id", "request_id", "seen_at", *CONFIG.labels)
    np.testing.assert_equal([{name: row[name] for name in names} for row in rows], expected)
    assert feedback.seen("small", user, 0) == {row["video_id"] for row in model.profile(user, as_of + 10_000 * HOUR)}


def stored(folder: Path) -> dict[str, tuple[int, str]]:
    engine = open_database(f"sqlite:///{folder}/watchnext.db")
    with reading(engine) as connection:
        rows = {row.event_id: (row.received_at, row.fate) for row in connection.execute(sa.select(events_table))}
    engine.dispose()
    return rows


@settings(max_examples=30, deadline=None)
@given(STEPS)
def test_feedback_does_what_the_model_says(steps: list[tuple[str, Any]]) -> None:
    run(steps)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_feedback_does_what_the_model_says_in_many_cases(steps: list[tuple[str, Any]]) -> None:
    run(steps)
