"""From a source's columns to ours. Each function returns the converted column (null where it could not be) and
which rows could not be [n].

Ids and categories become text: an integer its decimal text, in Parquet and JSON a whole float too (12.0 is "12"; a
column of integers with nulls is often stored so), true and false as such. In a CSV file an id is its text as it
stands.
"""

from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Converted = tuple[pa.Array, NDArray[np.bool_]]
Unit = Literal["ms", "s", "us", "ns", "iso"]

_NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"
_ZONE = r"(Z|[+-]\d\d:?\d\d)$"
_PER_MS = {"us": 1_000, "ns": 1_000_000}
LARGEST_WHOLE = 2.0**53


def mask(array: pa.Array) -> NDArray[np.bool_]:
    """A boolean Arrow array as numpy, null as False."""
    return np.asarray(pc.fill_null(array, False).to_numpy(zero_copy_only=False), bool)


def flat(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    """One plain array: chunks joined, dictionaries and views spelt out."""
    array = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_large_string(array.type) or pa.types.is_string_view(array.type):
        array = array.cast(pa.string())
    return array


def text(values: pa.Array) -> Converted:
    """Text [n]; an empty one is null."""
    kind = values.type
    if pa.types.is_string(kind):
        empty = pc.equal(values, "")
        return (pc.if_else(empty, None, values) if pc.any(empty).as_py() else values), _none(values)
    if pa.types.is_floating(kind):
        wide = values.cast(pa.float64())
        whole = pc.and_(pc.equal(wide, pc.floor(wide)), pc.less(pc.abs(wide), LARGEST_WHOLE))
        good = pc.fill_null(whole, False)
        return pc.if_else(good, wide, None).cast(pa.int64()).cast(pa.string()), mask(pc.and_not(wide.is_valid(), good))
    if pa.types.is_null(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_temporal(kind):
        return values.cast(pa.string()), _none(values)
    return _all_bad(values, pa.string())


def category(values: pa.Array) -> Converted:
    """Text [n] for a context or table column: any float is taken by its decimal text."""
    converted, bad = text(values)
    if bad.any() and pa.types.is_floating(values.type):
        return pc.if_else(pa.array(bad), values.cast(pa.string()), converted), _none(values)
    return converted, bad


def categories(values: pa.Array, separator: str) -> Converted:
    """Lists of texts [n]; a text is split at ``separator``, blanks around a part and empty parts are dropped."""
    kind = values.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        lists = values.cast(pa.list_(kind.value_type))
        items, bad = category(flat(pc.list_flatten(lists)))
        if bad.any() or items.null_count:
            return pa.array([_parts(row) for row in lists.to_pylist()], pa.list_(pa.string())), _none(values)
        lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
        return pa.ListArray.from_arrays(offsets, items, mask=lists.is_null()), _none(values)
    converted, bad = category(values)
    lists = pc.split_pattern(converted, separator)
    if (
        pc.any(pc.match_substring(converted, " ")).as_py()
        or pc.any(pc.equal(pc.utf8_trim_whitespace(lists.flatten()), "")).as_py()
    ):
        return pa.array([_parts(row) for row in lists.to_pylist()], pa.list_(pa.string())), bad
    return lists, bad


def _parts(row: list[object] | None) -> list[str] | None:
    if row is None:
        return None
    return [part for part in (str(item).strip() for item in row if item is not None) if part]


def number(values: pa.Array) -> Converted:
    """float64 [n]. NaN and infinity are left for the check of ranges."""
    kind = values.type
    if pa.types.is_string(kind):
        return _number_of_text(values)
    if pa.types.is_boolean(kind):
        return values.cast(pa.int8()).cast(pa.float64()), _none(values)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind):
        return values.cast(pa.float64(), safe=False), _none(values)
    return _all_bad(values, pa.float64())


def _number_of_text(values: pa.Array) -> Converted:
    try:
        return values.cast(pa.float64()), _none(values)
    except pa.ArrowInvalid:
        good = pc.fill_null(pc.match_substring_regex(values, _NUMBER), False)
        trimmed = pc.utf8_trim(pc.if_else(good, values, None), " \t+")
        return trimmed.cast(pa.float64()), mask(pc.and_not(values.is_valid(), good))


def flag(values: pa.Array) -> Converted:
    """float64 [n] of 0 and 1, from 0, 1, true or false."""
    if pa.types.is_string(values.type):
        lower = pc.utf8_lower(values)
        if pc.any(pc.is_in(lower, pa.array(["true", "false"]))).as_py():
            values = pc.if_else(pc.equal(lower, "true"), "1", pc.if_else(pc.equal(lower, "false"), "0", values))
    numbers, bad = number(values)
    wrong = mask(pc.and_not(numbers.is_valid(), pc.is_in(numbers, pa.array([0.0, 1.0])))) | bad
    return (pc.if_else(pa.array(wrong), None, numbers) if wrong.any() else numbers), wrong


def integer(values: pa.Array, largest: int) -> Converted:
    """int64 [n] within [0, largest]."""
    numbers, bad = number(values)
    good = pc.and_(
        pc.equal(numbers, pc.floor(numbers)), pc.and_(pc.greater_equal(numbers, 0), pc.less_equal(numbers, largest))
    )
    bad |= mask(pc.and_not(numbers.is_valid(), pc.fill_null(good, False)))
    return (pc.if_else(pa.array(bad), None, numbers) if bad.any() else numbers).cast(pa.int64()), bad


def time(values: pa.Array, unit: Unit) -> Converted:
    """Milliseconds since the epoch, int64 [n]; finer times are cut to the millisecond.

    A Parquet timestamp says its unit itself. An ISO 8601 text without a zone is UTC.
    """
    if pa.types.is_timestamp(values.type):
        return values.cast(pa.timestamp("ms", values.type.tz), safe=False).cast(pa.int64()), _none(values)
    if unit == "iso":
        return _iso(values)
    if unit == "s":
        return _whole(_scaled(number(values), 1000.0))
    try:
        whole = values.cast(pa.int64())
        bad = _none(values)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        whole, bad = _whole(number(values))
    return (pc.divide(whole, _PER_MS[unit]) if unit in _PER_MS else whole), bad


def _scaled(converted: Converted, scale: float) -> Converted:
    return pc.round(pc.multiply(converted[0], scale)), converted[1]


def _whole(converted: Converted) -> Converted:
    """int64 where the number is whole and fits, else bad."""
    numbers, bad = converted
    good = pc.and_(pc.equal(numbers, pc.floor(numbers)), pc.less(pc.abs(numbers), 2.0**63))
    bad = bad | mask(pc.and_not(numbers.is_valid(), pc.fill_null(good, False)))
    return pc.if_else(pa.array(bad), None, numbers).cast(pa.int64(), safe=False), bad


def _iso(values: pa.Array) -> Converted:
    if not pa.types.is_string(values.type):
        return _all_bad(values, pa.int64())
    zoned = pc.if_else(pc.match_substring_regex(values, _ZONE), values, pc.binary_join_element_wise(values, "Z", ""))
    kind = pa.timestamp("us", "UTC")
    try:
        times, bad = zoned.cast(kind), _none(values)
    except pa.ArrowInvalid:
        parsed = [_iso_or_none(item, kind) for item in zoned.to_pylist()]
        times = pa.array(parsed, kind)
        bad = mask(pc.and_(values.is_valid(), times.is_null()))
    return pc.divide(times.cast(pa.int64()), 1000), bad


def _iso_or_none(item: str | None, kind: pa.DataType) -> pa.Scalar | None:
    try:
        return None if item is None else pa.scalar(item).cast(kind)
    except pa.ArrowInvalid:
        return None


def _none(values: pa.Array) -> NDArray[np.bool_]:
    return np.zeros(len(values), bool)


def _all_bad(values: pa.Array, kind: pa.DataType) -> Converted:
    return pa.nulls(len(values), kind), mask(values.is_valid())
