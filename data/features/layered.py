"""A table with newer rows laid over it: videos that came through the API, beside those of the bundle."""

import numpy as np
from numpy.typing import NDArray

from data.columns import Batch, Column, Strings, concatenate
from data.features.tables import EntityTable

Ints = NDArray[np.int64]


class LayeredTable(EntityTable):
    """Reads as one table that holds the rows of both; costs nothing to make, however large the lower one is.

    Of a dated table the row that began last holds; of an undated one, the upper row. Rows of ``above`` are numbered behind
    those of ``below``.
    """

    def __init__(self, below: EntityTable, above: EntityTable) -> None:
        self.key, self.batch, self.dated = below.key, below.batch, below.dated
        self._below, self._above, self._split = below, above, len(below.batch)

    @property
    def size(self) -> int:
        return self._split + len(self._above.batch)

    def forget(self) -> None:
        self._below.forget()
        self._above.forget()

    def entities(self, ids: Strings) -> Ints:
        """Where the ids stand in both tables [n, 2]."""
        return np.stack([self._below.entities(ids), self._above.entities(ids)], axis=1)

    def rows_of(self, entity: Ints, time: Ints) -> Ints:
        lower, upper = self._below.rows_of(entity[:, 0], time), self._above.rows_of(entity[:, 1], time)
        if not (upper >= 0).any():
            return lower
        began = np.where(lower >= 0, np.append(self._below.valid_from, 0)[lower], np.iinfo(np.int64).min)
        newer = (upper >= 0) & (self._above.valid_from[np.maximum(upper, 0)] >= began)
        return np.where(newer, upper + self._split, lower)

    def column(self, name: str, rows: Ints) -> Column:
        lower, upper = np.where(rows < self._split, rows, -1), np.where(rows < self._split, -1, rows - self._split)
        values = self._below.column(name, lower)
        if not (upper >= 0).any():
            return values
        both = concatenate(Batch({name: values}), Batch({name: self._above.column(name, upper)}))
        return both.take(np.arange(len(rows)) + len(rows) * (upper >= 0))[name]
