"""data/features/id_rows: what a dict would say, however the hashes lie."""

import random
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from data.features.id_rows import IdRows

MOST = 2**64 - 2  # Python has no hash of -1


@pytest.mark.parametrize("count", [0, 1, 2, 255, 256, 5_000])
def test_rows_are_those_of_a_dict(count: int) -> None:
    ids = [f"v{i}" for i in range(count)] + (["", "ü", "視"] if count else [])
    random.Random(count).shuffle(ids)
    expected = {text: row for row, text in enumerate(ids)}
    asked = [*ids, *reversed(ids), "v-1", "x", "v" * 100]
    assert IdRows(ids).of(asked).tolist() == [expected.get(text, -1) for text in asked]
    assert IdRows(ids).of([]).tolist() == []


@pytest.mark.parametrize(
    "hash_of",
    [lambda number: number, lambda number: MOST - number, lambda number: number << 40, lambda number: number << 62 | number],
    ids=["all in the first bucket", "all in the last", "in a few", "in the first and the last"],
)
def test_crowded_buckets(hash_of: Callable[[int], int], monkeypatch: pytest.MonkeyPatch) -> None:
    def hashes(ids: Sequence[str]) -> np.ndarray:
        return np.array([hash_of(int(text)) % 2**64 for text in ids], np.uint64)

    monkeypatch.setattr("data.features.id_rows._hashes", hashes)
    ids = [str(number) for number in range(0, 300, 3)]
    rows = IdRows(ids)
    asked = [str(number) for number in range(300)]
    assert rows.of(asked).tolist() == [number // 3 if number % 3 == 0 else -1 for number in range(300)]


def test_ids_of_one_hash_are_refused() -> None:
    with pytest.raises(ValueError, match="two ids of the catalogue are equal"):
        IdRows(["a", "b", "a"])
