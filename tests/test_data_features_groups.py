"""A day encoded by groups of users: of however few, in memory or into files, to the bit what it is with all at once."""

from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from data.columns import Batch
from data.config import Config
from data.days import day_start
from data.features import groups, merging, parts
from data.features.groups import groups_of
from data.features.slates import feature_times
from data.features.state import Encoded, FeatureState
from tests.small_log import small_config, small_days, small_tables
from tests.test_data_features_recent_files import SETTINGS, same

Ints, Floats = NDArray[np.int64], NDArray[np.float32]

DAY = 86_400_000
ONE = 1 << 40
"""Entries of a group that holds everybody."""


@pytest.fixture(params=list(SETTINGS))
def log(request: pytest.FixtureRequest) -> tuple[Config, Mapping[date, Batch]]:
    return SETTINGS[request.param]


@pytest.fixture(params=[1, 20], ids=["a user at a time", "some users at a time"])
def entries(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(parts, "PART_ROWS", 7)
    return request.param  # type: ignore[no-any-return]


def late_times(batch: Batch) -> Ints:
    """Feature times, those of every second row a day later: there the day's own outcomes count for everybody."""
    return feature_times(batch) + DAY * (np.arange(len(batch)) % 2)


def both(
    log: tuple[Config, Mapping[date, Batch]],
    entries: int,
    folder: Path,
    patch: pytest.MonkeyPatch,
    shelf: Path | None = None,
) -> Iterator[tuple[Encoded, Encoded]]:
    """Each day at its own feature times, in memory, and at late ones, in files: by one group and by small ones."""
    config, days = log
    first = min(days)
    state = FeatureState.fit(config, small_tables(), [(first, days[first])])
    state.shelf = shelf
    for day in sorted(days):
        late = late_times(days[day])
        found = []
        for size in (ONE, entries):
            patch.setattr(groups, "GROUP_ENTRIES", size)
            found.append((state.encode(days[day], day), state.encode(days[day], day, late, folder / f"{day} {size}")))
        yield from zip(*found, strict=True)
        state.advance(days[day], day_start(day + timedelta(days=1), config.timezone))


def test_small_groups_encode_as_one_does(
    log: tuple[Config, Mapping[date, Batch]], entries: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for one, other in both(log, entries, tmp_path, monkeypatch):
        same(one, other)
    assert not list(tmp_path.rglob(parts.BY_USERS))


def test_of_a_state_in_files_too(
    log: tuple[Config, Mapping[date, Batch]], entries: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "MEMORY_ROWS", 0)
    monkeypatch.setattr("data.features.rates.MANY", 2)
    for one, other in both(log, entries, tmp_path, monkeypatch, tmp_path / "shelf"):
        same(one, other)


def test_what_others_did_counts_for_rows_after_midnight(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rate that is not kept by user needs the entries of all groups; alone, a user's own would be another sum."""
    config, days = SETTINGS["files of a team"]
    first, last = min(days), max(days)
    monkeypatch.setattr(groups, "GROUP_ENTRIES", 1)
    state = FeatureState.fit(config, small_tables(), [(first, days[first])])
    for day in sorted(days)[:-1]:
        state.advance(days[day], day_start(day + timedelta(days=1), config.timezone))
    late = np.flatnonzero(np.arange(len(days[last])) % 2)
    video = next(field for field in state.layout.sides["video"].floats if field.feature == "video_rate")
    rates = slice(video.offset, video.offset + video.width)

    def found() -> Floats:
        return state.encode(days[last], last, late_times(days[last])).blocks["video"].floats[late, rates]

    together = found()
    monkeypatch.setattr(groups.Pasts, "_of_all", lambda self: self.of(self.groups[0]))
    assert (together != found()).any(axis=1).mean() > 0.5


@pytest.mark.parametrize("entries", [1, 5, 40, ONE])
def test_groups_hold_each_row_and_each_users_recent_rows_once(entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "GROUP_ENTRIES", entries)
    random = np.random.default_rng(0)
    for count, recents in [(0, 0), (0, 9), (1, 0), (200, 0), (200, 300)]:
        user, recent = random.integers(0, 30, count), np.sort(random.integers(0, 40, recents))
        found = groups_of(user, recent)
        assert np.array_equal(np.sort(np.concatenate([group.today for group in found])), np.arange(count))
        rows = Batch({"place": np.arange(recents)})
        asked = np.concatenate([group.recent(rows).numbers("place") for group in found])
        assert np.array_equal(asked, np.flatnonzero(np.isin(recent, user)))
        last = -1
        for group in found:
            mine = user[group.today]
            assert np.array_equal(np.lexsort((group.today, mine)), np.arange(len(mine)))
            assert not len(mine) or mine[0] > last
            last = int(mine[-1]) if len(mine) else last
            assert set(recent[group.recent(rows).numbers("place")]) <= set(mine)
            assert len(group.today) + int(group.lengths[1:].sum()) - int((mine == mine[:1]).sum()) <= entries


@pytest.mark.parametrize(
    ("users", "late", "requests"), [(2, 0.0, 60), (60, 1.0, 60), (40, 0.5, 600)], ids=["few users", "many", "many rows"]
)
def test_random_logs(users: int, late: float, requests: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Users without past, outcomes none of which is late, or all; and days of which all users together go other ways than
    some do (:data:`data.features.sorting.FEW`)."""
    days = small_days(seed=users, days=3, users=users, late=late, requests=requests)
    for one, other in both((small_config(), days), 25, tmp_path, monkeypatch):
        same(one, other)
