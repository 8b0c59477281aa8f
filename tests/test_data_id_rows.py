"""Ids looked up together have the rows that a dictionary has for them."""

from collections.abc import Sequence

import numpy as np
import pytest

from data.features.id_rows import FEW, LONGEST, IdRows

NUMBERS = [f"v{n}" for n in range(3_000)]
ODD = ["a", "ab", "ba", "a" * LONGEST, "a" * (LONGEST - 1), "7" * 7, "7" * 8, "7" * 9, "é", "ÿ" * 8]


@pytest.mark.parametrize("ids", [NUMBERS, NUMBERS + ODD, [*NUMBERS, "日本"], [*NUMBERS, "a" * (LONGEST + 1)], []])
def test_as_a_dictionary(ids: Sequence[str]) -> None:
    rng, rows = np.random.default_rng(1), IdRows(ids)
    expected = {text: row for row, text in enumerate(ids)}
    near = ["v", "V1", "v01", "v3000", "a" * 200, "日", "7" * 10, "7" * 6, *ODD]
    for asked in (
        [*ids],
        near,
        [*NUMBERS[:FEW], *near],
        rng.permutation([*NUMBERS, *ODD]).tolist(),
        [*NUMBERS[:FEW], "日本"],
    ):
        assert rows.rows(asked).tolist() == [expected.get(text, -1) for text in asked]
    assert rows.rows([]).tolist() == []


def test_ids_of_one_slot_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(IdRows, "_slot", lambda self, words: np.full(len(words), 3))
    assert IdRows(NUMBERS).rows([*NUMBERS, "x"]).tolist() == [*range(len(NUMBERS)), -1]


def test_most_ids_have_a_slot_of_their_own() -> None:
    """Else the dictionary would be asked for them, and nothing be gained; here of ids that differ in few digits."""
    for ids in (NUMBERS, [f"{n:020d}" for n in range(3_000)], [f"{n * 7919:x}-{n % 13:012d}" for n in range(3_000)]):
        rows = IdRows(ids)
        rows.of = {}
        assert np.count_nonzero(rows.rows(ids) < 0) < 0.1 * len(ids)
