"""Tables of sorted keys: merged in memory and by blocks from file to file, against plain dictionaries."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import data.features.merging as merging
from data.features.merging import look_up_by_blocks, merge_files, merged, summed
from data.features.rates import Entries, Pending, Totals, together
from data.features.storage import ArrayFile, load_array

ENTRIES = st.lists(st.tuples(st.integers(0, 40), st.integers(-5, 5), st.integers(0, 9)), max_size=60)
DAYS = st.lists(ENTRIES, max_size=4)


def entries_of(rows: list[tuple[int, int, int]]) -> Entries:
    keys = np.array([row[0] for row in rows], np.int64) << 31  # as those of pairs are
    counts = np.array([[row[1], row[2]] for row in rows], np.int64).reshape(-1, 2)
    return Entries(*summed(keys, [counts, counts * 1_000_003]))


def plain(days: list[list[tuple[int, int, int]]]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for key, first, second in (row for day in days for row in day):
        before = found.setdefault(key << 31, [0, 0])
        before[0], before[1] = before[0] + first, before[1] + second
    return dict(sorted(found.items()))


@pytest.mark.parametrize("block", [1, 3, 1000])
@settings(deadline=None, max_examples=40)
@given(days=DAYS, asked=st.lists(st.integers(-3, 45), max_size=30))
def test_totals_in_files_are_those_in_memory_to_the_bit(block: int, days: Any, asked: list[int]) -> None:
    queries = np.array(asked, np.int64) << 31
    with TemporaryDirectory() as place, pytest.MonkeyPatch.context() as patch:
        patch.setattr(merging, "BLOCK_ROWS", block)
        patch.setattr("data.features.rates.MANY", 2)
        memory, files = Totals.empty(2), Totals.empty(2)
        for number, day in enumerate(days):
            patch.setattr(merging, "MEMORY_ROWS", 1 << 20)
            memory = memory.add(entries_of(day), number)
            patch.setattr(merging, "MEMORY_ROWS", 0)
            files = files.add(entries_of(day), number, Path(place))
        assert memory.place is None
        assert (files.place is None) == (not any(days))
        wanted = plain(days)
        assert memory.keys.tolist() == files.keys.tolist() == list(wanted)
        assert memory.counts.tolist() == files.counts.tolist() == list(wanted.values())
        assert memory.sums.tolist() == files.sums.tolist()
        assert memory.boundary == files.boundary
        files.save(Path(place) / "saved")
        for totals in (memory, files, Totals.load(Path(place) / "saved")):
            counts, sums = totals.look_up(queries)
            assert counts.tolist() == [wanted.get(key, [0, 0]) for key in queries.tolist()]
            assert sums.tolist() == (counts * 1_000_003).tolist()
            assert totals.of_keys(queries.tolist())[0].tolist() == counts.sum(axis=0).tolist()
            np.testing.assert_array_equal(totals.per_key, memory.per_key)


def test_what_is_saved_stays_when_later_entries_come_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Saved files are links of what lies in the folder, whose files are never written to again."""
    monkeypatch.setattr(merging, "MEMORY_ROWS", 0)
    first = Totals.empty(2).add(entries_of([(1, 2, 3), (4, 5, 6)]), 1, tmp_path / "totals")
    first.save(tmp_path / "saved")
    second = first.add(entries_of([(1, 1, 1), (2, 1, 1)]), 2, tmp_path / "totals")
    assert second.place != first.place
    assert Totals.load(tmp_path / "saved").counts.tolist() == [[2, 3], [5, 6]]
    assert second.counts.tolist() == [[3, 4], [1, 1], [5, 6]]


@given(days=DAYS.filter(len))
@settings(deadline=None, max_examples=40)
def test_entries_together_are_those_of_all_rows(days: Any) -> None:
    parts, whole = together([entries_of(day) for day in days]), entries_of([row for day in days for row in day])
    assert [column.tolist() for column in parts] == [column.tolist() for column in whole]


@given(days=DAYS.filter(len), some=st.integers(0, 30))
@settings(deadline=None, max_examples=40)
def test_pending_entries_are_those_of_all_rows_and_no_more_than_their_keys_ask_for(days: Any, some: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("data.features.rates.SOME", some)
        pending = Pending()
        for day in days:
            pending.append(entries_of(day))
            assert sum(len(part.keys) for part in pending._parts) <= 2 * 41 + some  # there are 41 keys
        whole = together([entries_of(day) for day in days])
        assert [column.tolist() for column in pending.take()] == [column.tolist() for column in whole]
    assert not pending._parts


@pytest.mark.parametrize("block", [1, 50, 700, 1 << 20])
def test_large_tables_are_merged_as_numpy_adds_them(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns of one and of several numbers a key; keys before, between and behind those of before; and keys alone."""
    monkeypatch.setattr(merging, "BLOCK_ROWS", block)
    random = np.random.default_rng(block)
    sides = [np.unique(random.integers(low, 5000, n)) << 20 for low, n in ((100, 2000), (0, 500))]
    tables = [[keys, random.integers(0, 99, len(keys)), random.integers(-9, 9, (len(keys), 3))] for keys in sides]
    keys, place = np.unique(np.concatenate(sides), return_inverse=True)
    wanted: list[Any] = [keys]
    for column in (1, 2):
        values = np.concatenate([table[column] for table in tables])
        wanted.append(np.zeros((len(keys), *values.shape[1:]), np.int64))
        np.add.at(wanted[-1], place, values)
    for found, expected in zip(merged(*tables), wanted, strict=True):
        np.testing.assert_array_equal(found, expected)
        assert found.base is None  # it keeps no room for rows that were the same key's
    np.testing.assert_array_equal(merged(sides[:1], sides[1:])[0], keys)


def test_a_table_is_merged_by_hand(tmp_path: Path) -> None:
    table = [np.array([2, 5, 9]), np.array([10, 20, 30])]
    more = summed(np.array([9, 1, 5, 9]), [np.array([1, 2, 3, 4])])
    assert [column.tolist() for column in more] == [[1, 5, 9], [2, 3, 5]]
    assert [c.tolist() for c in merged(table, more)] == [[1, 2, 5, 9], [2, 10, 23, 35]]
    files = merge_files(table, more, ["keys", "values"], tmp_path / "table")
    assert [c.tolist() for c in files] == [[1, 2, 5, 9], [2, 10, 23, 35]]
    assert [load_array(tmp_path / "table" / f"{name}.npy").tolist() for name in ("keys", "values")] == [
        c.tolist() for c in files
    ]
    assert look_up_by_blocks(files, np.array([9, 3, 1]))[0].tolist() == [35, 0, 2]


@pytest.mark.parametrize("parts", [[0], [0, 0], [1, 12_345, 0, 3]])
def test_a_file_grows_by_rows(tmp_path: Path, parts: list[int]) -> None:
    rows = [np.arange(2 * n, dtype=np.int64).reshape(n, 2) for n in parts]
    file = ArrayFile(tmp_path / "grown.npy")
    for part in rows:
        file.append(part)
    found = file.close()
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, np.concatenate(rows))
