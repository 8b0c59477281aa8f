"""A request of a user who is settled takes a row, and has what the user's entries one by one say."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.columns import Batch, StringLists, Strings
from data.features import settled
from data.features.history import history_batch
from data.features.request import RequestEncoder, RequestFeatures
from data.features.settled import NEVER, SettledUsers
from data.features.state import FeatureState
from data.features.tables import EntityTable
from tests.small_log import small_config, small_days, small_tables, state_before

WINDOWS = {"activity": {"hours": [1.0, 30.0]}}
CONFIG = small_config(features=[{**f.model_dump(), **WINDOWS.get(f.name, {})} for f in small_config().features])
DAYS, TABLES = small_days(), small_tables()
HOUR = 3_600_000
USERS = [*(f"u{n}" for n in range(20)), "nobody"]


@pytest.fixture(params=["log", "served"])
def state(request: pytest.FixtureRequest) -> FeatureState:
    """``served``: half of the rows as if we had served them, whose outcomes count when their windows close."""
    days = DAYS if request.param == "log" else {day: as_served(batch) for day, batch in DAYS.items()}
    return state_before(CONFIG, days, TABLES, date(2024, 3, 3))


def as_served(batch: Batch) -> Batch:
    timestamp = batch.numbers("timestamp")
    return Batch({**batch.columns, "seen_at": np.where(timestamp // 1_000 % 2, timestamp + 2_000.0, np.nan)})


def same(one: RequestFeatures, other: RequestFeatures, encoder: RequestEncoder) -> None:
    for side in ("user", "context"):
        block, expected = getattr(one, side), getattr(other, side)
        np.testing.assert_array_equal(block.ints, expected.ints)
        np.testing.assert_array_equal(block.floats, expected.floats)
        assert (block.ints.dtype, block.floats.dtype) == (expected.ints.dtype, expected.floats.dtype)
    rows = np.arange(-1, len(encoder.video_ids))
    np.testing.assert_array_equal(encoder.cross(one, rows).floats, encoder.cross(other, rows).floats)
    assert (one.known_user, one.nulls, one.watched) == (other.known_user, other.nulls, other.watched)


def test_same_as_entry_by_entry(state: FeatureState, tmp_path: Path) -> None:
    encoder, plain = RequestEncoder(state, SettledUsers.write(state, tmp_path / "users")), RequestEncoder(state)
    settles = []
    for user in USERS:
        for hours in (-30, -1, 0, 1, 5, 25, 49, 24 * 40):
            time = state.boundary + hours * HOUR + 1
            one, other = (e.request(user, {"tab": "1", "battery": 0.5}, time) for e in (encoder, plain))
            same(one, other, encoder)
            settles.append(one._moment.entries.settled is not None)
    assert 0.2 < np.mean(settles) < 0.9


def test_settled_once_the_last_outcome_counts(state: FeatureState, tmp_path: Path) -> None:
    """A day that begins with the last outcome takes the entries, the next one the row; a history always takes entries."""
    users = SettledUsers.write(state, tmp_path / "users")
    for user in USERS:
        number = state.knowledge.vocabularies["user_id"].get(user)
        found = users.of(number)
        if number is None:
            assert found == (len(users) - 1, NEVER, NEVER)
            continue
        assert NEVER < found.seen <= found.until
        starts = state.day_starts(np.array([found.until, found.until + 24 * HOUR]))
        exactly = replace(users, times=np.where(users.times == found.until, starts[1], users.times))
        for encoder, time, settles in (
            (RequestEncoder(state, users), int(starts[0]), False),
            (RequestEncoder(state, users), int(starts[1]), True),
            (RequestEncoder(state, exactly), int(starts[1]), False),
        ):
            assert (encoder.request(user, {}, time)._moment.entries.settled is not None) is settles
    told = [{"video_id": "v1", "timestamp": state.boundary + HOUR, "outcomes": {"click": 1.0}}]
    for history_replaces in (False, True):
        encoder, time = RequestEncoder(state, users), state.boundary + 50 * HOUR
        for user in ("u1", "nobody"):
            batch = history_batch(CONFIG, user, told)
            assert encoder.request(user, {}, time, batch, history_replaces)._moment.entries.settled is None


def test_written_some_at_a_time_and_read_back(state: FeatureState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = SettledUsers.write(state, tmp_path / "whole")
    monkeypatch.setattr(settled, "AT_ONCE", 5)
    SettledUsers.write(state, tmp_path / "parts")
    read = SettledUsers.load(tmp_path / "parts")
    assert len(read) == len(state.knowledge.vocabularies["user_id"]) + 1
    assert read.times[-1].tolist() == [NEVER, NEVER]
    for name in ("times", "ints", "floats"):
        np.testing.assert_array_equal(getattr(read, name), getattr(whole, name))
        assert getattr(read, name).dtype == getattr(whole, name).dtype
    assert read.ints.dtype.itemsize == 1  # as many as the tables' rows ask for


def test_a_video_that_is_laid_over_changes_its_users(state: FeatureState, tmp_path: Path) -> None:
    """The author of a video that a user liked is another one now."""
    encoder = RequestEncoder(state, SettledUsers.write(state, tmp_path / "users"))
    other, plain = (e.with_videos(later_authors()) for e in (encoder, RequestEncoder(state)))
    time, settles, differ = state.boundary + 30 * 24 * HOUR, set(), 0
    for user in USERS:
        one, expected = (e.request(user, {"tab": "0"}, time) for e in (other, plain))
        same(one, expected, other)
        settles.add(one._moment.entries.settled is not None)
        differ += not np.array_equal(encoder.request(user, {"tab": "0"}, time).user.ints, expected.user.ints)
    assert settles == {False, True}
    assert differ


def later_authors() -> EntityTable:
    columns: Mapping[str, Any] = {
        "video_id": Strings.of(["v1", "v2", "v7"]),
        "valid_from": np.array([1, 1, 1], np.int64),
        "author": Strings.of(["a1", "a0", "a3"]),
        "tags": StringLists.of([["t1"], [], ["t2"]]),
        "duration": np.array([1.0, 2.0, 3.0]),
    }
    return EntityTable("video_id", Batch(columns))


def test_a_state_that_took_nothing_in_has_users_without_a_past(tmp_path: Path) -> None:
    state = FeatureState.fit(CONFIG, TABLES, [(date(2024, 3, 1), DAYS[date(2024, 3, 1)])])
    users = SettledUsers.write(state, tmp_path / "users")
    encoder, plain = RequestEncoder(state, users), RequestEncoder(state)
    assert (users.times == NEVER).all()
    for user in ("u1", "nobody"):
        one, other = (e.request(user, {}, state.boundary + HOUR) for e in (encoder, plain))
        assert one._moment.entries.settled is not None
        same(one, other, encoder)
