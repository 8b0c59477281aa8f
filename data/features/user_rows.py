"""What the users' table alone decides of a user's features, encoded once for all its rows."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.columns import Batch
from data.config import CategoriesFeature, CategoryFeature, Feature, NumberFeature
from data.features.past import Past
from data.features.spec import Knowledge, encode_feature
from data.features.tables import EntityTable
from data.features.view import View


class UserRows:
    """The features whose columns are the table's, by the row of the table; row -1 is of users that it lacks.

    Args:
        ints: by feature, where its embedding rows stand in a request's; ``floats`` its numbers likewise.
        nobody: a past without entries.

    Attributes:
        features: the names of these features.
    """

    def __init__(
        self, know: Knowledge, table: EntityTable, ints: Mapping[str, slice], floats: Mapping[str, slice], nobody: Past
    ) -> None:
        rows = np.append(np.arange(table.size), -1)
        time = np.zeros(len(rows), np.int64)
        columns = {name: table.column(name, rows) for name in know.config.user_columns}
        view = View(Batch(columns), time, {}, {})
        chosen = [f for f in know.config.features if _of_columns(f, columns) and (f.name in ints or f.name in floats)]
        encoded = {feature.name: encode_feature(know, feature, view, time, nobody) for feature in chosen}
        self.features = frozenset(encoded)
        n = len(rows)
        self._int_at, found = _together(n, [(ints[name], v) for name, (v, _) in encoded.items() if v is not None])
        self._ints = found.astype(_narrowest(found))
        self._float_at, self._floats = _together(n, [(floats[name], v) for name, (_, v) in encoded.items() if v is not None])

    def put(self, row: int, ints: NDArray[np.int32], floats: NDArray[np.float32]) -> None:
        """Write those of a row of the table into a request's."""
        ints[self._int_at] = self._ints[row]
        floats[self._float_at] = self._floats[row]


def _of_columns(feature: Feature, columns: Mapping[str, object]) -> bool:
    return isinstance(feature, CategoryFeature | CategoriesFeature | NumberFeature) and feature.column in columns


def _together(n: int, parts: Sequence[tuple[slice, NDArray[Any]]]) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Where the columns of all features stand [w], and the columns [n, w]."""
    places = [np.arange(place.start, place.stop) for place, _ in parts]
    columns = [values.reshape(n, -1) for _, values in parts]
    return np.concatenate([np.zeros(0, np.int64), *places]), np.hstack([np.zeros((n, 0), np.int8), *columns])


def _narrowest(values: NDArray[Any]) -> np.dtype[Any]:
    """The smallest type of integers that holds them all."""
    least, most = int(values.min(initial=0)), int(values.max(initial=0))
    return np.result_type(np.min_scalar_type(least), np.min_scalar_type(most))
