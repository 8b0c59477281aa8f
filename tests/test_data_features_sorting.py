import numpy as np
import pytest

from data.features.sorting import FEW, distinct, order_by, places, stable_order

SIZES = [0, 1, FEW, 3000]


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("spread", [5, 1 << 33, 1 << 62])
def test_they_are_what_numpy_has_for_it(n: int, spread: int) -> None:
    """With many ties, and with numbers too large to be packed with their positions."""
    random = np.random.default_rng(n)
    values = random.integers(-3, spread, n)
    np.testing.assert_array_equal(distinct(values), np.unique(values))
    np.testing.assert_array_equal(stable_order(values), np.argsort(values, kind="stable"))
    group = random.integers(0, 7, n)
    np.testing.assert_array_equal(order_by(group, values), np.lexsort((values, group)))
    ordered, needles = np.sort(random.integers(-3, spread, 500)), random.integers(-9, spread, n)
    for side in ("left", "right"):
        np.testing.assert_array_equal(places(ordered, needles, side), np.searchsorted(ordered, needles, side))
