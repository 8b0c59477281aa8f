"""Features of users that are encoded beforehand, a user a row, and put into the row of a request."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from data.features.spec import Values

Places = Mapping[str, slice]
"""By feature, where its embedding rows, or its numbers, stand in the row of a request."""


class EncodedRows:
    """Some features of n users.

    Args:
        features: their names.
        ints: embedding rows of those that have any, side by side [n, w] in this order; ``floats`` numbers likewise.
        int_places: of all features of a request; ``float_places`` likewise.
    """

    def __init__(
        self,
        features: Sequence[str],
        ints: NDArray[np.integer],
        floats: NDArray[np.float32],
        int_places: Places,
        float_places: Places,
    ) -> None:
        self.features = frozenset(features)
        self._ints, self._floats = ints, floats
        self._int_at, self._float_at = (positions(features, places) for places in (int_places, float_places))

    def put(self, row: int, ints: NDArray[np.int32], floats: NDArray[np.float32]) -> None:
        """Write a user's into a request's."""
        ints[self._int_at] = self._ints[row]
        floats[self._float_at] = self._floats[row]


def side_by_side(n: int, encoded: Iterable[Values]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The embedding rows [n, w] of all features, and their numbers."""
    values = [*encoded]
    ints = [np.zeros((n, 0), np.int32), *(rows.reshape(n, -1) for rows, _ in values if rows is not None)]
    floats = [np.zeros((n, 0), np.float32), *(numbers for _, numbers in values if numbers is not None)]
    return np.hstack(ints), np.hstack(floats)


def positions(features: Sequence[str], places: Places) -> NDArray[np.int64] | slice:
    """Where the columns of these features stand, one behind the other."""
    found = np.concatenate([np.zeros(0, np.int64), *(np.r_[places[name]] for name in features if name in places)])
    together = len(found) and (np.diff(found) == 1).all()
    return slice(int(found[0]), int(found[-1]) + 1) if together else found
