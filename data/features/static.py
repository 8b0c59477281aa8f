"""Features of one row by itself: categories, crosses, numbers, the clock."""

from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from data.columns import StringLists, Strings
from data.config import CategoriesFeature, ClockFeature, CrossedFeature, NumberFeature
from data.features.fitted import Scale
from data.features.layout import NULL, PADDING, UNSEEN
from data.features.view import View
from data.vocabulary import Vocabulary

Ints = NDArray[np.int64]
Rows = NDArray[np.int32]

FIRST = 2
"""The embedding row of a vocabulary's first text: behind UNSEEN and NULL."""

_SEPARATOR = "\x1f"


def row_of(vocabulary: Vocabulary) -> Callable[[str], int]:
    """The embedding row of a text: its own once admitted, else UNSEEN."""

    def row(text: str) -> int:
        number = vocabulary.get(text)
        return UNSEEN if number is None or number >= vocabulary.admitted else FIRST + number

    return row


def category_rows(column: Strings, vocabulary: Vocabulary) -> Rows:
    """Embedding rows [n]."""
    if len(column.values) > 2 * len(column):
        rows = _rows(vocabulary.number(column), vocabulary)
        rows[column.codes < 0] = NULL
        return rows
    rows = _rows(vocabulary.known(column.values), vocabulary)
    rows[-1] = NULL
    return rows.take(column.codes)


def _rows(number: Rows, vocabulary: Vocabulary) -> Rows:
    """The embedding rows of numbers [n], UNSEEN where they are -1."""
    return np.where((number >= 0) & (number < vocabulary.admitted), FIRST + number, UNSEEN).astype(np.int32)


def categories_rows(feature: CategoriesFeature, column: StringLists, vocabulary: Vocabulary) -> Rows:
    """Embedding rows [n, max_values] of the first values, PADDING behind; a row without any is NULL."""
    flat = category_rows(column.flat, vocabulary)
    lengths = np.diff(column.offsets)
    place = column.offsets[:-1, None] + np.arange(feature.max_values)
    inside = np.arange(feature.max_values) < lengths[:, None]
    rows = np.where(inside, np.concatenate([flat, [PADDING]])[np.where(inside, place, -1)], PADDING).astype(np.int32)
    rows[lengths == 0, 0] = NULL
    return rows


def crossed_column(feature: CrossedFeature, view: View) -> Strings:
    """The combined texts [n]; a null part is an empty text."""
    columns = [view.column(name) for name in feature.columns]
    codes = [column.codes for column in columns if isinstance(column, Strings)]
    distinct, inverse = np.unique(np.stack(codes, axis=1), axis=0, return_inverse=True)
    values = [
        _SEPARATOR.join("" if code < 0 else column.values[code] for code, column in zip(row, columns, strict=True))  # type: ignore[union-attr]
        for row in distinct.tolist()
    ]
    return Strings(inverse.reshape(-1).astype(np.int32), values)


def bucket_rows(scale: Scale, values: NDArray[np.float64]) -> Rows:
    """Embedding rows [n] of a bucketed number."""
    bucket = scale.bucket(values)
    return np.where(bucket < 0, NULL, FIRST + bucket).astype(np.int32)


def clock_rows(feature: ClockFeature, time: Ints, timezone: str) -> Rows:
    """Embedding rows [n] of the local hour or weekday. Offsets from UTC change on quarter hours at the finest."""
    quarters, inverse = np.unique(time // 900_000, return_inverse=True)
    zone = ZoneInfo(timezone)
    local = [datetime.fromtimestamp(int(quarter) * 900, zone) for quarter in quarters]
    part = [moment.hour if feature.part == "hour" else moment.weekday() for moment in local]
    return (FIRST + np.array(part, np.int32)[inverse]).astype(np.int32)


def number_values(feature: NumberFeature, view: View, durations: Collection[str] = ()) -> NDArray[np.float64]:
    """The raw numbers [n], NaN where null; a feature named among ``durations`` is null where it is not above 0."""
    column = view.column(feature.column)
    assert isinstance(column, np.ndarray)
    values = column.astype(np.float64)
    return np.where(values > 0, values, np.nan) if feature.name in durations else values


FIXED_SIZES: Mapping[str, int] = {"hour": FIRST + 24, "weekday": FIRST + 7}
"""Embedding rows of the clock's tables."""
