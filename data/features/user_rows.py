"""What the users' table alone decides of a user's features, encoded once for all its rows."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.columns import Batch
from data.config import CategoriesFeature, CategoryFeature, Feature, NumberFeature
from data.features.encoded_rows import EncodedRows, Places, side_by_side
from data.features.past import Past
from data.features.spec import Knowledge, encode_feature
from data.features.tables import EntityTable
from data.features.view import View


def user_rows(know: Knowledge, table: EntityTable, ints: Places, floats: Places, nobody: Past) -> EncodedRows:
    """The features whose columns are the table's, by the row of the table; row -1 is of users that it lacks.

    Args:
        ints: where features stand in a request's row; ``floats`` likewise.
        nobody: a past without entries.
    """
    rows = np.append(np.arange(table.size), -1)
    time = np.zeros(len(rows), np.int64)
    columns = {name: table.column(name, rows) for name in know.config.user_columns}
    view = View(Batch(columns), time, {}, {})
    chosen = [f for f in know.config.features if _of_columns(f, columns) and (f.name in ints or f.name in floats)]
    found, numbers = side_by_side(len(rows), (encode_feature(know, feature, view, time, nobody) for feature in chosen))
    return EncodedRows([feature.name for feature in chosen], found.astype(_narrowest(found)), numbers, ints, floats)


def _of_columns(feature: Feature, columns: Mapping[str, object]) -> bool:
    return isinstance(feature, CategoryFeature | CategoriesFeature | NumberFeature) and feature.column in columns


def _narrowest(values: NDArray[Any]) -> np.dtype[Any]:
    """The smallest type of integers that holds them all."""
    least, most = int(values.min(initial=0)), int(values.max(initial=0))
    return np.result_type(np.min_scalar_type(least), np.min_scalar_type(most))
