"""Rows of a batch, taken at once or when they are asked for."""

import json
from pathlib import Path

import numpy as np

from data.columns import Batch, StringLists, Strings, concatenate
from data.features.storage import load_batch, save_batch

BATCH = Batch(
    {
        "user_id": Strings.of(["a", "b", None, "a"]),
        "tags": StringLists.of([["x"], [], ["y", "x"], None]),
        "click": np.array([1.0, 0.0, np.nan, 1.0]),
    }
)


def listed(batch: Batch) -> dict[str, list[object]]:
    return {name: [repr(value) for value in column.tolist()] for name, column in batch.columns.items()}


def test_rows_taken_lazily_are_the_same() -> None:
    rows = np.array([3, 0, 2])
    lazy = BATCH.lazily(rows)
    assert len(lazy) == 3
    assert "tags" in lazy
    assert "like" not in lazy
    assert lazy["click"] is lazy["click"]
    assert listed(lazy) == listed(BATCH.take(rows))
    assert listed(lazy.between(1, 3)) == listed(BATCH.take(rows[1:]))
    assert listed(BATCH.lazily(slice(1, 3))) == listed(BATCH.between(1, 3))


def test_any_number_of_batches_are_one_behind_the_other() -> None:
    parts = [BATCH.take(np.array(rows, np.int64)) for rows in ([2, 0], [], [3], [1, 1])]
    whole = BATCH.take(np.array([2, 0, 3, 1, 1]))
    again = BATCH.take(np.array([2, 0, 3, 1, 1]))
    again = Batch({**again.columns, "user_id": Strings.of(again.strings("user_id").tolist())})  # texts of its own
    assert listed(concatenate(*parts)) == listed(whole)
    assert listed(concatenate(Batch({}), *parts)) == listed(whole)
    assert listed(concatenate(parts[1], parts[1])) == listed(parts[1])
    assert listed(concatenate(*parts, again)) == listed(BATCH.take(np.array([2, 0, 3, 1, 1] * 2)))


def test_texts_with_the_same_values_are_joined_by_their_codes() -> None:
    values = ["a", "b", "c"]
    first, second = (Batch({"u": Strings(np.array(codes, np.int32), values)}) for codes in ([2, -1], [0]))
    both = concatenate(first, second).strings("u")
    assert both.values is values
    assert both.tolist() == ["c", None, "a"]
    other = concatenate(first, Batch({"u": Strings.of(["d", "c"])})).strings("u")
    assert other.tolist() == ["c", None, "d", "c"]


def test_texts_that_no_row_has_are_not_saved(tmp_path: Path) -> None:
    save_batch(Batch({"u": Strings(np.array([7, -1], np.int32), [f"t{i}" for i in range(100)])}), tmp_path)
    assert json.loads((tmp_path / "u.json").read_text()) == ["t7"]
    assert load_batch(tmp_path).strings("u").tolist() == ["t7", None]
