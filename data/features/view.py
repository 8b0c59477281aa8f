"""The rows being looked at, and where their columns come from."""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from data.columns import Batch, Column, StringLists, Strings
from data.features.tables import Tables
from data.vocabulary import Numbering

Ints = NDArray[np.int64]


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
        self._tables = tables
        self._numberings = numberings
        self._columns: dict[str, Column] = {}
        self._joined: dict[str, Ints] = {}

    def __len__(self) -> int:
        return len(self.time)

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
        for which, table in self._tables.items():
            if name in table.batch:
                if which not in self._joined:
                    self._joined[which] = table.rows_at(self.batch.strings(table.key), self.time)
                return table.column(name, self._joined[which])
        raise KeyError(name)

    def number(self, name: str) -> Ints:
        """Numbers of a category column [n], -1 where null."""
        column = self.column(name)
        assert isinstance(column, Strings)
        return column.map(self._numberings[name], -1).astype(np.int64)

    def keys(self, names: tuple[str, ...]) -> tuple[Ints, Ints]:
        """The combined keys of the rows: (row [e], key [e]).

        A row with several values has several keys, a row with a null none.
        """
        rows = np.arange(len(self), dtype=np.int64)
        key = np.zeros(len(self), np.int64)
        for name in names:
            column = self.column(name)
            if isinstance(column, StringLists):
                lengths = np.diff(column.offsets)[rows]
                starts = np.repeat(column.offsets[:-1][rows] - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths)
                number = column.flat.map(self._numberings[name], -1)[starts + np.arange(lengths.sum())].astype(np.int64)
                rows, key = np.repeat(rows, lengths), np.repeat(key, lengths)
            else:
                number = self.number(name)[rows]
            known = number >= 0
            rows, key = rows[known], (key[known] << 31) | number[known]
        return rows, key
