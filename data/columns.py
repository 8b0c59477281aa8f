"""Columns of a batch of rows as numpy arrays, and the batch itself.

Three kinds of column: text (:class:`Strings`), several texts a row (:class:`StringLists`) and numbers (a float64 or
int64 array, NaN where null). Text is kept as codes into its distinct values, so that whatever must be done per text
(a look-up in a vocabulary) is done once per distinct value.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Strings:
    """Text per row: ``values[codes[i]]``, null where ``codes[i]`` is -1."""

    codes: NDArray[np.int32]
    values: Sequence[str]

    @classmethod
    def of(cls, texts: Iterable[str | None]) -> "Strings":
        """From plain texts; distinct values in order of first appearance."""
        index: dict[str, int] = {}
        codes = [-1 if text is None else index.setdefault(text, len(index)) for text in texts]
        return cls(np.array(codes, np.int32), list(index))

    def __len__(self) -> int:
        return len(self.codes)

    def take(self, rows: NDArray[Any]) -> "Strings":
        """The rows at these positions (or under this mask)."""
        return Strings(_at(self.codes, rows), self.values)

    def map(self, row_of: Callable[[str], int], null: int) -> NDArray[np.int32]:
        """``row_of(text)`` per row [n], ``null`` where the text is null; ``row_of`` is called once per distinct value."""
        few = self.compact()
        table = np.array([*map(row_of, few.values), null], np.int32)
        return table[few.codes]

    def compact(self) -> "Strings":
        """The same texts with only the used values kept, where most are not used."""
        if len(self.values) <= 2 * len(self.codes):
            return self
        used, codes = np.unique(self.codes, return_inverse=True)
        if len(used) and used[0] == -1:
            used, codes = used[1:], codes - 1
        return Strings(codes.astype(np.int32), [self.values[code] for code in used.tolist()])

    def in_order(self) -> list[str]:
        """The distinct texts in order of first appearance."""
        few, n = self.compact(), len(self.codes)
        first = np.full(len(few.values) + 1, n)
        first[few.codes[::-1]] = np.arange(n)[::-1]  # of equal places the last one written stays: a text's first row
        order = np.argsort(first[:-1])
        return [few.values[code] for code in order[first[order] < n].tolist()]

    def tolist(self) -> list[str | None]:
        return [None if code < 0 else self.values[code] for code in self.codes.tolist()]


@dataclass(frozen=True)
class StringLists:
    """Several texts a row: row i holds ``flat[offsets[i]:offsets[i + 1]]``; a null row is an empty one."""

    offsets: NDArray[np.int64]
    flat: Strings

    @classmethod
    def of(cls, lists: Iterable[Sequence[str] | None]) -> "StringLists":
        rows = [list(row or ()) for row in lists]
        offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
        return cls(offsets, Strings.of(text for row in rows for text in row))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def take(self, rows: NDArray[Any]) -> "StringLists":
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        lengths = np.diff(self.offsets)[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        positions = np.repeat(self.offsets[:-1][rows] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return StringLists(offsets, self.flat.take(positions))

    def tolist(self) -> list[list[str]]:
        flat = self.flat.tolist()
        return [[t for t in flat[a:b] if t is not None] for a, b in zip(self.offsets[:-1], self.offsets[1:], strict=True)]

    def first(self) -> Strings:
        """The first text of each row, null where there is none."""
        some = np.diff(self.offsets) > 0
        codes = np.full(len(self), -1, np.int32)
        codes[some] = self.flat.codes[self.offsets[:-1][some]]
        return Strings(codes, self.flat.values)


Column = Strings | StringLists | NDArray[Any]


@dataclass(frozen=True)
class Batch:
    """Named columns of equal length. The names are those of the log contract (:mod:`data.log`)."""

    columns: Mapping[str, Column]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def __getitem__(self, name: str) -> Column:
        return self.columns[name]

    def strings(self, name: str) -> Strings:
        column = self.columns[name]
        assert isinstance(column, Strings), f"{name} is not text"
        return column

    def lists(self, name: str) -> StringLists:
        column = self.columns[name]
        assert isinstance(column, StringLists), f"{name} does not hold lists"
        return column

    def numbers(self, name: str) -> NDArray[Any]:
        column = self.columns[name]
        assert isinstance(column, np.ndarray), f"{name} is not numeric"
        return column

    def take(self, rows: NDArray[Any]) -> "Batch":
        """The rows at these positions (or under this mask)."""
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        return Batch({name: take(column, rows) for name, column in self.columns.items()})

    def between(self, start: int, end: int) -> "Batch":
        """The rows [start, end); numbers and texts are not copied."""
        return Batch({n: _between(column, start, end) for n, column in self.columns.items()})

    def lazily(self, rows: NDArray[Any] | slice) -> "Batch":
        """The rows at these positions, each column taken when it is first asked for."""
        return Batch(_Taken(self.columns, rows))


class _Taken(Mapping[str, Column]):
    """Columns of some rows."""

    def __init__(self, columns: Mapping[str, Column], rows: NDArray[Any] | slice) -> None:
        self._columns, self._rows = columns, rows
        self._taken: dict[str, Column] = {}

    def __getitem__(self, name: str) -> Column:
        found = self._taken.get(name)
        if found is None:
            column, rows = self._columns[name], self._rows
            found = _between(column, rows.start, rows.stop) if isinstance(rows, slice) else take(column, rows)
            self._taken[name] = found
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._columns

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)


def take(column: Column, rows: NDArray[Any]) -> Column:
    """The rows at these positions (or under this mask)."""
    return _at(column, rows) if isinstance(column, np.ndarray) else column.take(rows)


def _at(array: NDArray[Any], rows: NDArray[Any]) -> NDArray[Any]:
    """``array[rows]``, in two thirds of the time, and under a mask in a fifth."""
    return array.take(np.flatnonzero(rows) if rows.dtype == bool else rows)


def _between(column: Column, start: int, end: int) -> Column:
    if isinstance(column, Strings):
        return Strings(column.codes[start:end], column.values)
    return column.take(np.arange(start, end)) if isinstance(column, StringLists) else column[start:end]


def arrays_of(batch: Batch) -> list[NDArray[Any]]:
    """All arrays that the columns consist of."""
    found: list[NDArray[Any]] = []
    for column in batch.columns.values():
        if isinstance(column, StringLists):
            found.append(column.offsets)
            column = column.flat
        found.append(column.codes if isinstance(column, Strings) else column)
    return found


def concatenate(*batches: Batch) -> Batch:
    """The rows of all, of one at least; the columns must be the same, but of empty ones before the first row."""
    some = next((n for n, batch in enumerate(batches) if len(batch)), len(batches) - 1)
    first, *others = batches[some:]
    if not others:
        return first
    return Batch({name: _concatenate([column, *(b[name] for b in others)]) for name, column in first.columns.items()})


def _concatenate(columns: Sequence[Column]) -> Column:
    first = columns[0]
    if isinstance(first, Strings):
        return _concatenate_strings([column for column in columns if isinstance(column, Strings)])
    if isinstance(first, StringLists):
        lists = [column for column in columns if isinstance(column, StringLists)]
        before = accumulate(int(column.offsets[-1]) for column in lists)
        offsets = [lists[0].offsets, *(column.offsets[1:] + n for column, n in zip(lists[1:], before, strict=False))]
        return StringLists(np.concatenate(offsets), _concatenate_strings([column.flat for column in lists]))
    return np.concatenate(columns)  # type: ignore[arg-type]  # all are numbers


def _concatenate_strings(columns: Sequence[Strings]) -> Strings:
    first = columns[0]
    if all(column.values is first.values for column in columns):
        return Strings(np.concatenate([column.codes for column in columns]), first.values)
    few = [column.compact() for column in columns]
    index = {value: code for code, value in enumerate(few[0].values)}
    codes = [column.map(lambda value: index.setdefault(value, len(index)), -1) for column in few[1:]]
    return Strings(np.concatenate([few[0].codes, *codes]), list(index))
