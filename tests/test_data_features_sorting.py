import numpy as np
import pytest

from data.features.sorting import FEW, distinct, grouped, in_order, order_by, places, ranks, stable_order, union

SIZES = [0, 1, FEW, 3000]
SPREADS = [5, 40_000, 1 << 33, 1 << 62]


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("nearly", [False, True])
def test_they_are_what_numpy_has_for_it(n: int, spread: int, nearly: bool) -> None:
    """With many ties, with numbers that fit in 16 bits and numbers too large to be packed with their positions, and with
    such as are in order but for one in a hundred."""
    random = np.random.default_rng(n)
    values, group = random.integers(-3, spread, n), random.integers(0, 7, n)
    if nearly:
        moved = random.random(n) < 0.01
        values, group = np.where(moved, values, np.sort(values)), np.sort(group)
    np.testing.assert_array_equal(distinct(values), np.unique(values))
    np.testing.assert_array_equal(stable_order(values), np.argsort(values, kind="stable"))
    np.testing.assert_array_equal(order_by(group, values), np.lexsort((values, group)))
    for found, expected in zip(ranks(values), np.unique(values, return_inverse=True), strict=True):
        np.testing.assert_array_equal(found, expected)
    ordered, needles = np.sort(random.integers(-3, spread, 500)), random.integers(-9, spread, n)
    for side in ("left", "right"):
        for wanted in (needles, np.sort(needles), values):
            np.testing.assert_array_equal(places(ordered, wanted, side), np.searchsorted(ordered, wanted, side))


def test_small_numbers_of_few_bits_keep_their_order() -> None:
    values = np.random.default_rng(0).integers(-128, 128, 3000).astype(np.int8)
    np.testing.assert_array_equal(stable_order(values.astype(np.int32)), np.argsort(values, kind="stable"))


def test_values_are_grouped_without_a_sort_or_not_at_all() -> None:
    for values in (np.array([3, 3, 7, 1 << 60]), np.array([5, 0, 5, 3]), np.zeros(0, np.int64)):
        found = grouped(values)
        assert found is not None
        np.testing.assert_array_equal(found[0], np.unique(values))
        np.testing.assert_array_equal(found[0][found[1]], values)
    assert grouped(np.array([1 << 40, 0, 5])) is None
    assert grouped(np.array([3, -1])) is None


def test_sorted_numbers_are_merged() -> None:
    assert union(np.array([1, 4, 9]), np.array([0, 4, 10, 11])).tolist() == [0, 1, 4, 9, 10, 11]
    assert union(np.zeros(0, np.int64), np.array([2])).tolist() == [2]
    assert in_order(np.array([1, 1, 2]))
    assert not in_order(np.array([1, 0]))
