"""The users' or the videos' table, joined as of a time."""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.columns import Batch, Column, StringLists, Strings
from data.features.storage import load_batch, save_batch
from data.vocabulary import Vocabulary

Ints = NDArray[np.int64]


class EntityTable:
    """Rows sorted by (id, valid_from). A row holds from its ``valid_from`` until the id's next one.

    Without a ``valid_from`` column the table is undated: its one row per id is taken to hold always.
    """

    def __init__(self, key: str, batch: Batch) -> None:
        self.key = key
        self.batch = batch
        self.ids = Vocabulary(batch.strings(key).in_order())
        self._entity = batch.strings(key).map(lambda text: self.ids.get(text) or 0, -1).astype(np.int64)
        self.dated = "valid_from" in batch and not np.isnan(batch.numbers("valid_from").astype(np.float64)).all()
        always = np.zeros(len(batch), np.int64)
        self.valid_from: Ints = np.nan_to_num(batch.numbers("valid_from")).astype(np.int64) if self.dated else always
        order = np.lexsort((self.valid_from, self._entity))
        if not np.array_equal(order, np.arange(len(order))):
            self.batch, self._entity, self.valid_from = batch.take(order), self._entity[order], self.valid_from[order]
        self._starts = np.searchsorted(self._entity, np.arange(len(self.ids) + 1))
        self._remembered: tuple[Sequence[str], Ints] = [], always[:0]  # a list that no column has

    @property
    def size(self) -> int:
        """How many rows there are."""
        return len(self.batch)

    def rows_at(self, ids: Strings, time: Ints) -> Ints:
        """The row that held before each time [n], -1 where none did (or the id is not in the table)."""
        return self.rows_of(self.entities(ids), time)

    def row_at(self, text: str, time: int) -> int:
        """:meth:`rows_at` of one id and time."""
        entity = self.ids.get(text)
        if entity is None:
            return -1
        if not self.dated:
            return int(self._starts[entity])
        return int(self.rows_of(np.array([entity], np.int64), np.array([time], np.int64))[0])

    def remember(self, texts: Sequence[str]) -> None:
        """Look these ids up once for all columns that have just these texts."""
        self._remembered = texts, self.ids.known(texts).astype(np.int64)

    def entities(self, ids: Strings) -> Ints:
        """Where the ids stand [n], for :meth:`rows_of`; -1 where unknown."""
        texts, places = self._remembered
        if ids.values is texts:
            return places[ids.codes]
        return self.ids.number(ids).astype(np.int64)

    def rows_of(self, entity: Ints, time: Ints) -> Ints:
        """:meth:`rows_at` of ids that were looked up before."""
        if not self.size:
            return np.full(len(entity), -1)
        if not self.dated:
            return np.where(entity >= 0, self._starts.take(entity), -1)
        known = np.maximum(entity, 0)
        first = self._starts.take(known)
        row = np.where(self.valid_from.take(first) < time, first, -1)
        several = np.flatnonzero(self._starts.take(known + 1) - first > 1)
        if len(several):
            row[several] = self._last_before(entity[several], time[several])
        return np.where((entity >= 0) & (row >= first), row, -1)

    def _last_before(self, entity: Ints, time: Ints) -> Ints:
        """Position of the last row with (entity, valid_from) < (entity, time), by ranks so that any times fit."""
        times, keys = self._ranked
        stride = len(times) + 1
        return np.searchsorted(keys, entity * stride + np.searchsorted(times, time, side="left"), side="left") - 1

    @cached_property
    def _ranked(self) -> tuple[Ints, Ints]:
        """The distinct times, and the rows' (entity, rank of valid_from) as one number each, in order."""
        times = np.unique(self.valid_from)
        return times, self._entity * (len(times) + 1) + np.searchsorted(times, self.valid_from)

    def forget(self) -> None:
        """Let go of the ids that were asked for last."""
        self.ids.forget()

    def first_valid(self) -> Ints:
        """The time of each id's first row."""
        return np.asarray(self.valid_from[self._starts[:-1]])

    def last_valid(self) -> Ints:
        """The time of each id's last row."""
        return np.asarray(self.valid_from[self._starts[1:] - 1])

    def column(self, name: str, rows: Ints) -> Column:
        """A column at these rows [n]; null where the row is -1."""
        column = self.batch[name]
        known = rows >= 0
        if isinstance(column, Strings):
            return Strings(np.where(known, column.codes.take(rows), np.int32(-1)), column.values)
        if isinstance(column, StringLists):
            taken = column.take(np.maximum(rows, 0))
            if known.all():
                return taken
            lengths = np.where(known, np.diff(taken.offsets), 0)
            keep = np.repeat(known, np.diff(taken.offsets))
            return StringLists(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), taken.flat.take(keep))
        return np.where(known, column[np.maximum(rows, 0)], np.nan)

    def save(self, folder: Path) -> None:
        save_batch(self.batch, folder)
        (folder / "key.json").write_text(json.dumps(self.key))

    @classmethod
    def load(cls, folder: Path) -> "EntityTable":
        return cls(json.loads((folder / "key.json").read_text()), load_batch(folder))


Tables = Mapping[str, EntityTable]
"""``users`` and ``videos``, each where the configuration has it."""
