"""Ordinals within sessions, against hand-counted ones and against a plain loop."""

import numpy as np
import pyarrow as pa

from data.sessions import Sessions


def ordinals(sessions: Sessions, rows: list[tuple[int, str]]) -> list[int]:
    return sessions.ordinals(
        pa.array([user for _, user in rows], pa.string()), np.array([time for time, _ in rows])
    ).tolist()


def test_a_session_ends_after_a_longer_gap() -> None:
    rows = [(0, "a"), (5, "b"), (10, "a"), (10, "a"), (20, "a"), (31, "a"), (41, "b")]
    assert ordinals(Sessions(10), rows) == [0, 0, 1, 2, 3, 0, 0]


def test_a_session_goes_on_in_the_next_batch() -> None:
    sessions = Sessions(10)
    assert ordinals(sessions, [(0, "a"), (4, "a"), (5, "b")]) == [0, 1, 0]
    assert ordinals(sessions, []) == []
    assert ordinals(sessions, [(6, "c"), (14, "a"), (16, "b")]) == [0, 2, 0]


def test_state_survives_being_stored_and_forgets_ended_sessions() -> None:
    sessions = Sessions(10)
    ordinals(sessions, [(0, "b"), (4, "a"), (5, "a")])
    sessions.forget_before(15)
    stored = sessions.table()
    assert stored.to_pydict() == {"user_id": ["a"], "last": [5], "ordinal": [1]}
    assert ordinals(Sessions(10, stored), [(15, "a"), (16, "b")]) == [2, 0]


def test_any_split_gives_what_a_plain_loop_gives() -> None:
    random = np.random.default_rng(0)
    times = np.sort(random.integers(0, 3000, 400))
    rows = [(int(time), f"u{user}") for time, user in zip(times, random.integers(0, 15, 400), strict=True)]
    last: dict[str, tuple[int, int]] = {}
    expected = []
    for time, user in rows:
        before = last.get(user)
        number = before[1] + 1 if before and time - before[0] <= 60 else 0
        last[user] = time, number
        expected.append(number)
    assert max(expected) > 2
    for size in (1, 7, 100, 400):
        sessions = Sessions(60)
        assert [n for i in range(0, 400, size) for n in ordinals(sessions, rows[i : i + size])] == expected
