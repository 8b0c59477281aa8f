"""The rows being looked at, and where their columns come from."""

from functools import cached_property
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from data.columns import Batch, Column, StringLists, Strings
from data.features.asof import Timeline
from data.features.tables import Tables
from data.vocabulary import Numbering

Ints = NDArray[np.int64]
HALF = 31
"""Bits of a combined key that are the number of its last column."""
Numbers = tuple[Ints | None, Ints]
"""Offsets, where a row may have several, and numbers."""


class View:
    """Rows of the log (or of a request), each with its feature time; table columns are joined as of that time.

    Args:
        batch: some columns of the log contract.
        time: feature time [n], ms.
        numberings: shared within one call, so that past rows and queries number unknown texts alike.
    """

    def __init__(self, batch: Batch, time: Ints, tables: Tables, numberings: dict[str, Numbering]) -> None:
        self.batch = batch
        self.time = time
        self.tables = tables
        self.numberings = numberings
        self._columns: dict[str, Column] = {}
        self._joined: dict[str, Ints] = {}
        self._numbers: dict[str, Numbers] = {}
        self._lock = Lock()
        self._spans: dict[Timeline, tuple[Ints, Ints]] = {}

    def __len__(self) -> int:
        return len(self.time)

    def part(self, rows: Ints) -> "View":
        """The rows at these positions."""
        return View(self.batch.lazily(rows), self.time[rows], self.tables, self.numberings)

    def span(self, timeline: Timeline) -> tuple[Ints, Ints]:
        """Of each row's user [n], the positions in a timeline of users of the first entry, and behind the last one before
        the feature time."""
        if timeline not in self._spans:
            self._spans[timeline] = timeline.start(self.user), timeline.before(self.user, self.time)
        return self._spans[timeline]

    @cached_property
    def user(self) -> Ints:
        """The user's number [n]."""
        return self.number("user_id")

    def column(self, name: str) -> Column:
        """A column by name: of the log, or of the users' or videos' table."""
        if name in self.batch:
            return self.batch[name]
        if name not in self._columns:
            self._columns[name] = self._join(name)
        return self._columns[name]

    def _join(self, name: str) -> Column:
        for which, table in self.tables.items():
            if name in table.batch:
                if which not in self._joined:
                    self._joined[which] = table.rows_at(self.batch.strings(table.key), self.time)
                return table.column(name, self._joined[which])
        raise KeyError(name)

    def number(self, name: str) -> Ints:
        """Numbers of a category column [n], -1 where null."""
        offsets, numbers = self.numbers(name)
        assert offsets is None
        return numbers

    def numbers(self, name: str) -> Numbers:
        """Numbers of a category column [n], -1 where null; of lists those of all texts, with offsets [n + 1]."""
        if name not in self._numbers:
            with self._lock:
                self._numbers[name] = self._numbers.get(name) or self._number(name)
        return self._numbers[name]

    def _number(self, name: str) -> Numbers:
        column = self.column(name)
        if isinstance(column, StringLists):
            return column.offsets, numbers_of(column.flat, self.numberings[name]).astype(np.int64)
        assert isinstance(column, Strings)
        return None, numbers_of(column, self.numberings[name]).astype(np.int64)

    def keys(self, names: tuple[str, ...], of: Ints | None = None) -> tuple[Ints, Ints]:
        """The combined keys of the rows (of those at these positions, in order): (row [e], key [e]).

        A row with several values has several keys, a row with a null none.
        """
        rows, whole = (np.arange(len(self), dtype=np.int64), True) if of is None else (of, False)
        key = np.zeros(len(rows), np.int64)
        for name in names:
            offsets, numbers = self.numbers(name)
            if offsets is None:
                number = numbers if whole else numbers[rows]
            else:
                lengths = np.diff(offsets)[rows]
                starts = np.repeat(offsets[:-1][rows] - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths)
                number = numbers[starts + np.arange(lengths.sum())]
                rows, key, whole = np.repeat(rows, lengths), np.repeat(key, lengths), False
            key = (key << HALF) | number
            known = number >= 0
            if not known.all():
                rows, key, whole = rows[known], key[known], False
        return rows, key


def numbers_of(texts: Strings, numbering: Numbering) -> NDArray[np.int32]:
    """The number of each row's text [n], -1 where null; a text is looked up once."""
    if numbering.is_own(texts.values):
        return texts.codes
    few = texts if numbering.has_numbered(texts.values) else texts.compact()
    return numbering.numbers(few.values)[few.codes]
