"""The users' recent rows where they are too many for memory: in files, in the users' order, written by stretches."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.columns import Batch, Column, StringLists, Strings
from data.features.past import with_times
from data.features.storage import ArrayFile
from data.vocabulary import Vocabulary

Ints = NDArray[np.int64]

USERS = "recent_user"


def share_texts(recent: Batch, vocabularies: Mapping[str, Vocabulary]) -> Batch:
    """The same rows; columns with all texts of a vocabulary, as these files have them, read them there."""
    columns = dict(recent.columns)
    for name, column in columns.items():
        if isinstance(column, Strings) and name in vocabularies and column.values == vocabularies[name].texts:
            columns[name] = Strings(column.codes, vocabularies[name].texts)
    return Batch(columns)


class RecentFiles:
    """Recent rows on their way into files, in a new folder: texts as numbers of their vocabularies.

    Args:
        like: batches with the columns that are to come; the files have the columns of all, and types that hold all.
            Times that a stretch lacks are null there.
    """

    def __init__(self, folder: Path, vocabularies: Mapping[str, Vocabulary], like: list[Batch]) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.folder, self._vocabularies = folder, vocabularies
        self._files: dict[str, ArrayFile] = {}
        self._names: dict[str, object] = {name: None for batch in reversed(like) for name in batch.columns}
        self._types = {n: np.result_type(*(b.numbers(n) for b in like if n in b)) for n in _numeric(like)}
        self._behind: dict[str, int] = {}  # of columns of lists, the texts so far

    def append(self, rows: Batch, user: Ints) -> None:
        """Rows in the order of users, who come behind those of before."""
        rows = with_times(self._numbered(rows), self._names)
        for name in self._names:
            self._column(name, rows[name])
        self._put(USERS, user)

    def close(self) -> tuple[Batch, Ints]:
        """All rows, and their users, mapped into memory."""
        found = {name: file.close() for name, file in self._files.items()}
        columns: dict[str, Column] = {}
        for name in (n for n in found if n != USERS and not n.endswith(".offsets")):
            columns[name] = found[name]
            if name in self._vocabularies:
                texts = Strings(found[name], self._vocabularies[name].texts)
                lists = f"{name}.offsets" in found
                columns[name] = StringLists(found[f"{name}.offsets"], texts) if lists else texts
        return Batch(columns), found[USERS]

    def _numbered(self, batch: Batch) -> Batch:
        columns = dict(batch.columns)
        for name, column in columns.items():
            if isinstance(column, StringLists):
                columns[name] = StringLists(column.offsets, numbered(column.flat, self._vocabularies[name]))
            elif isinstance(column, Strings):
                columns[name] = numbered(column, self._vocabularies[name])
        return Batch(columns)

    def _column(self, name: str, column: Column) -> None:
        if isinstance(column, StringLists):
            behind = self._behind.get(name)
            offsets = column.offsets if behind is None else column.offsets[1:] + behind
            self._behind[name] = int(offsets[-1]) if len(offsets) else behind or 0
            self._put(f"{name}.offsets", offsets)
            column = column.flat
        self._put(name, column.codes if isinstance(column, Strings) else column.astype(self._types[name]))

    def _put(self, name: str, array: NDArray[Any]) -> None:
        if name not in self._files:
            self._files[name] = ArrayFile(self.folder / f"{name}.npy")
        self._files[name].append(array)


def numbered(column: Strings, vocabulary: Vocabulary) -> Strings:
    """The same texts, all of which the vocabulary has, by its numbers."""
    if column.values is vocabulary.texts:
        return column
    return Strings(column.map(vocabulary.get, -1), vocabulary.texts)  # type: ignore[arg-type]  # none is missing


def _numeric(batches: list[Batch]) -> set[str]:
    return {name for batch in batches for name, column in batch.columns.items() if isinstance(column, np.ndarray)}
