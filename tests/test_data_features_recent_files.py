"""The features' state with its totals, pairs and recent rows in files, against all of it in memory."""

from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest

import data.features.merging as merging
from data.columns import Batch, StringLists, Strings
from data.config import Config
from data.days import day_start
from data.features.joined import numbered
from data.features.recent import kept
from data.features.recent_files import RecentFiles, share_texts
from data.features.state import Encoded, FeatureState
from data.features.stretches import RecentRows, asleep, latest, side_by_side, stretches
from data.vocabulary import Vocabulary
from tests.small_log import rows_of, small_config, small_days, small_tables
from tests.test_data_features_windows import CONFIG as SERVED_CONFIG
from tests.test_data_features_windows import DAYS as SERVED


def _some_without(days: Mapping[date, Batch]) -> Mapping[date, Batch]:
    """The days, every second of them without times of our own."""
    own = ("seen_at", *(f"{label}_visible_at" for label in SERVED_CONFIG.labels))
    plain = {day: Batch({n: c for n, c in batch.columns.items() if n not in own}) for day, batch in days.items()}
    return {day: plain[day] if i % 2 == 0 else days[day] for i, day in enumerate(sorted(days))}


SETTINGS: dict[str, tuple[Config, Mapping[date, Batch]]] = {
    "files of a team": (small_config(), small_days(days=7, users=30)),
    "few users, many rows": (small_config(), small_days(seed=3, days=5, users=4)),
    "served": (SERVED_CONFIG, SERVED),
    "of a team, then served": (SERVED_CONFIG, _some_without(SERVED)),
}


@pytest.fixture(params=list(SETTINGS))
def log(request: pytest.FixtureRequest) -> tuple[Config, Mapping[date, Batch]]:
    return SETTINGS[request.param]


@pytest.fixture(params=[(1, 1), (7, 20), (1000, 1000)], ids=["one by one", "some", "all"])
def small_blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "BLOCK_ROWS", request.param[0])
    monkeypatch.setattr("data.features.stretches.STRETCH_ROWS", request.param[1])
    monkeypatch.setattr("data.features.rates.MANY", 2)


@pytest.fixture
def no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "MEMORY_ROWS", 0)


def fitted(config: Config, days: Mapping[date, Batch]) -> FeatureState:
    first = min(days)
    return FeatureState.fit(config, small_tables(), [(first, days[first])])


def advanced(state: FeatureState, days: Mapping[date, Batch]) -> Iterator[tuple[date, Encoded]]:
    """The days, each encoded before it is taken in."""
    for day in sorted(days):
        yield day, state.encode(days[day], day)
        state.advance(days[day], day_start(day + timedelta(days=1), state.config.timezone))


def same(one: Encoded, other: Encoded) -> None:
    for side, block in one.blocks.items():
        np.testing.assert_array_equal(block.ints, other.blocks[side].ints)
        np.testing.assert_array_equal(block.floats, other.blocks[side].floats)


def same_state(one: FeatureState, other: FeatureState) -> None:
    assert repr(rows_of(one.recent)) == repr(rows_of(other.recent))  # nulls are not equal to themselves
    np.testing.assert_array_equal(one.recent_user, other.recent_user)
    np.testing.assert_array_equal(one.seen_pairs, other.seen_pairs)
    for name, totals in one.knowledge.totals.items():
        for mine, its in zip(totals.table, other.knowledge.totals[name].table, strict=True):
            np.testing.assert_array_equal(mine, its)


@pytest.mark.usefixtures("small_blocks", "no_memory")
def test_features_from_files_are_those_from_memory_to_the_bit(
    log: tuple[Config, Mapping[date, Batch]], tmp_path: Path
) -> None:
    config, days = log
    memory, files = fitted(config, days), fitted(config, days)
    files.shelf = tmp_path
    for (_, one), (_, other) in zip(advanced(memory, days), advanced(files, days), strict=True):
        same(one, other)
    same_state(memory, files)
    assert {path.name for path in tmp_path.iterdir()} == {"totals", "recent", "seen_pairs"}
    assert len(list((tmp_path / "recent").iterdir())) == 1  # those of the days before are gone
    assert len(list((tmp_path / "totals" / "video_rate").iterdir())) == 1


@pytest.mark.usefixtures("no_memory")
def test_a_state_saved_on_any_day_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    """From a shelf, whose files are gone by then, as an interrupted run goes on; and without one."""
    config, days = SETTINGS["files of a team"]
    state = fitted(config, days)
    state.shelf = tmp_path / "first"
    for day, _ in advanced(state, days):
        state.save(tmp_path / f"before={day}")
    for day in days:
        left = {later: batch for later, batch in days.items() if later >= day}
        again, plain = (FeatureState.load(tmp_path / f"before={day}", config) for _ in range(2))
        again.shelf = tmp_path / f"shelf={day}"
        for (_, one), (_, other) in zip(advanced(again, left), advanced(plain, left), strict=True):
            same(one, other)
        same_state(state, again)
        same_state(state, plain)


@pytest.mark.usefixtures("no_memory")
def test_what_is_saved_is_linked_not_written_twice(tmp_path: Path) -> None:
    config, days = SETTINGS["files of a team"]
    state = fitted(config, days)
    state.shelf = tmp_path / "shelf"
    list(advanced(state, days))
    state.save(tmp_path / "saved")
    for name in ("totals/user_tag/counts.npy", "recent/timestamp.npy", "recent_user.npy", "seen_pairs.npy"):
        assert (tmp_path / "saved" / name).stat().st_nlink == 2, name


def test_of_whom_nothing_can_change_everything_is_kept(
    log: tuple[Config, Mapping[date, Batch]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Users asleep: as slow as it is, what must be kept of them is decided again, and is all that there was."""
    monkeypatch.setattr("data.features.stretches.STRETCH_ROWS", 1)
    config, days = log
    state, slept = fitted(config, days), 0
    for day, _ in advanced(state, days):
        until = day_start(day + timedelta(days=1), config.timezone)
        users = state._view(days[day], days[day].numbers("timestamp").astype(np.int64)).user
        since = state.boundary - 3_600_000
        for part in stretches(state.recent_user, users):
            recent, user = state.recent.take(np.arange(len(state.recent))[part.recent]), state.recent_user[part.recent]
            sleeps = asleep(recent, user, users[part.today], config, since)
            slept += int(sleeps.sum())
            if sleeps.any():
                numbered_rows = numbered([recent.take(sleeps)], state._numberings())[0]
                past = state._past_of(numbered_rows, state._numberings(), state.boundary)
                assert kept(config, past, until, "click").all()
                assert (latest(recent.take(sleeps), config) < since).all()
            assert not np.isin(user[sleeps], users).any()
            assert not np.isin(user[sleeps], user[~sleeps]).any()
    assert slept or len(days) < 7


@pytest.mark.usefixtures("small_blocks")
def test_some_users_at_a_time_leave_the_state_of_all_at_once(
    log: tuple[Config, Mapping[date, Batch]], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, days = log
    stretched, whole = fitted(config, days), fitted(config, days)
    list(advanced(stretched, days))
    monkeypatch.setattr("data.features.stretches.STRETCH_ROWS", 1 << 20)
    monkeypatch.setattr("data.features.state.asleep", lambda recent, user, *_: np.zeros(len(user), bool))
    list(advanced(whole, days))
    same_state(stretched, whole)


def test_lists_of_texts_go_into_files_too(tmp_path: Path) -> None:
    """A context column of several texts, by which a rate is kept."""
    vocabulary = Vocabulary(["a", "b", "c"])
    lists = [["c"], [], ["a", "b"], ["b"]]
    rows = [Batch({"tags": StringLists.of(lists[:2])}), Batch({"tags": StringLists.of(lists[2:])})]
    files = RecentFiles(tmp_path / "recent", {"tags": vocabulary}, rows)
    files.append(rows[0], np.array([1, 2]))
    last, other = rows[1].take(np.array([1])), rows[1].take(np.array([0]))
    files.append(*side_by_side(last, np.array([4]), other, np.array([3])))
    recent, users = files.close()
    assert recent.lists("tags").tolist() == lists
    assert users.tolist() == [1, 2, 3, 4]
    assert recent.take(np.array([1, 2])).lists("tags").tolist() == lists[1:3]


@pytest.mark.parametrize("in_files", [False, True])
def test_times_that_some_stretches_lack_are_null_there(in_files: bool, tmp_path: Path) -> None:
    """Kept rows have no column of times that are null throughout: those of a stretch may, where others have it."""
    nobody, some = np.zeros(0, np.int64), np.array([5, 6])
    plain, own = Batch({"timestamp": some}), Batch({"timestamp": some, "like_visible_at": np.array([7.0, np.nan])})
    rows = RecentFiles(tmp_path / "recent", {}, [plain, own]) if in_files else RecentRows([plain, own])
    rows.append(plain, np.array([0, 1]))
    rows.append(*side_by_side(plain, np.array([2, 4]), own, np.array([3, 5])))
    rows.append(*side_by_side(own, np.array([6, 7]), plain.take(nobody), nobody))
    recent, users = rows.close()
    assert users.tolist() == [*range(8)]
    assert recent.numbers("timestamp").tolist() == [5, 6, 5, 5, 6, 6, 5, 6]
    nan = np.nan
    np.testing.assert_array_equal(recent.numbers("like_visible_at"), [nan, nan, nan, 7, nan, nan, 7, nan])


def test_texts_of_a_whole_vocabulary_are_read_there() -> None:
    vocabulary = Vocabulary(["a", "b"])
    recent = Batch({"user_id": Strings(np.array([1, 0], np.int32), ["a", "b"]), "tab": Strings.of(["x", "y"])})
    shared = share_texts(recent, {"user_id": vocabulary, "tab": vocabulary})
    assert shared.strings("user_id").values is vocabulary.texts
    assert [shared.strings(name).tolist() for name in ("user_id", "tab")] == [["b", "a"], ["x", "y"]]
