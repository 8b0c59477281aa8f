"""Only those users' profiles are read from the database of whom something may stand there alone."""

from pathlib import Path

import pytest

from data.feedback import on_disk, store
from data.feedback.on_disk import OnDisk
from data.feedback.store import Feedback
from tests.feedback_world import SECOND, Clock, feedback_config, opened, slate, start_of

CONFIG = feedback_config(events={"impression": "served", "above_fold": 2})
T = start_of(CONFIG, 5)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The users whose profiles were read from the database."""
    asked: list[str] = []
    read = Feedback._read

    def noted(self: Feedback, user: store.User, key: tuple[str, str], since: int) -> store.User:
        asked.append(key[1])
        return read(self, user, key, since)

    monkeypatch.setattr(Feedback, "_read", noted)
    return asked


def test_an_unknown_user_costs_no_query_and_one_of_before_one(tmp_path: Path, reads: list[str]) -> None:
    clock = Clock(T)
    with opened(tmp_path, CONFIG, clock) as feedback:
        feedback.log_served(slate("r1", "old", T, ["a"]))
    clock.now += SECOND
    with opened(tmp_path, CONFIG, clock) as feedback:
        assert feedback._on_disk.wait()
        assert feedback.profile("small", "new", 0, clock.now) is None
        assert feedback.profile("other", "old", 0, clock.now) is None
        feedback.log_served(slate("r2", "new", T, ["b"]))
        assert feedback.seen("small", "new", 0) == {"b"}
        assert reads == []
        assert [feedback.at_hand("small", user, 0) for user in ("unheard of", "new", "old")] == [True, True, False]
        assert feedback.seen("small", "old", 0) == {"a"}
        assert feedback.at_hand("small", "old", 0)
        assert feedback.seen("small", "old", 0) == {"a"}
        assert reads == ["old"]


def test_a_user_that_was_forgotten_is_read_again(tmp_path: Path, reads: list[str]) -> None:
    clock = Clock(T)
    with opened(tmp_path, CONFIG, clock, memory=100) as feedback:
        assert feedback._on_disk.wait()
        for number in range(20):
            feedback.log_served(slate(f"r{number}", f"u{number}", T, [f"v{number}"]))
        feedback.profile("small", "u0", 0, T)
        feedback._queue.close()  # all of it is on disk, and most of it forgotten
        assert len(feedback._memory.users) < 10
        for number in range(20):
            assert feedback.seen("small", f"u{number}", 0) == {f"v{number}"}
        assert 10 < len(reads) < 21


def test_nobody_is_taken_for_absent_before_all_were_read(
    tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OnDisk, "start", lambda *_: None)
    clock = Clock(T)
    with opened(tmp_path, CONFIG, clock) as feedback:
        feedback.profile("small", "new", 0, T)
        assert reads == ["new"]


def test_all_users_are_read_some_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_disk, "ROWS", 3)
    clock = Clock(T)
    with opened(tmp_path, CONFIG, clock) as feedback:
        for number in range(10):
            feedback.log_served(slate(f"r{number}", f"u{number % 7}", T, ["a"]))
    with opened(tmp_path, CONFIG, clock) as feedback:
        assert feedback._on_disk.wait()
        assert all(feedback._on_disk.may_hold("small", f"u{number}") for number in range(7))
        assert not feedback._on_disk.may_hold("small", "u7")
