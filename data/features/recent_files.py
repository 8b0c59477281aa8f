"""The users' recent rows where they are too many for memory: in files, in the users' order, gone over by stretches."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.columns import Batch, Column, StringLists, Strings, concatenate
from data.config import Config
from data.features.past import after_window, join, seen_at, timings, visible_at, with_times
from data.features.sorting import distinct, stable_order
from data.features.storage import ArrayFile
from data.vocabulary import Vocabulary

Ints = NDArray[np.int64]

STRETCH_ROWS = 1 << 17
"""Recent rows, and as many of the day, looked at at once, and the rest of a user's."""
USERS = "recent_user"


class Stretch(NamedTuple):
    """Some users: where their recent rows lie, and the places of the day's [n], in the users' order, each user's in the
    log's."""

    recent: slice
    today: Ints


def stretches(user: Ints, today: Ints) -> list[Stretch]:
    """The recent rows and the day's, some users at a time.

    Args:
        user: the users [m] of the recent rows, sorted.
        today: the users [n] of the day's rows.
    """
    order = stable_order(today)
    ordered = today[order]
    inner = distinct(np.concatenate([each[STRETCH_ROWS::STRETCH_ROWS] for each in (user, ordered)]))  # who begin one
    ends = [0, *user.searchsorted(inner).tolist(), len(user)]
    days = [0, *ordered.searchsorted(inner).tolist(), len(order)]
    return [Stretch(slice(*ends[i : i + 2]), order[days[i] : days[i + 1]]) for i in range(len(inner) + 1)]


def asleep(recent: Batch, user: Ints, today: Ints, config: Config, since: int) -> NDArray[np.bool_]:
    """The recent rows [m] of users of whom nothing can change; nobody's, where these are the lesser part of the rows, and to
    look at all costs less than to part them.

    Args:
        user: the users [m] of the recent rows, sorted.
        today: the users [n] of the day's rows of a stretch.
        since: ms; a user who has no row in the day, and of whom nothing was seen or became known from then on, sleeps.
    """
    sleeps = ~np.isin(user, today)
    absent = np.flatnonzero(sleeps)
    if len(absent):
        pending = user[absent[latest(recent.take(absent), config) >= since]]
        sleeps[absent] = ~np.isin(user[absent], pending)
    return sleeps if 2 * int(sleeps.sum()) > len(sleeps) else np.zeros(len(user), bool)


def latest(batch: Batch, config: Config) -> Ints:
    """The last time [n] (ms) at which a row was seen, or an outcome of it becomes visible or begins to count."""
    delays, windows = timings(config)
    last = seen_at(batch)
    for label in config.labels:
        visible = visible_at(batch, label) + delays[label]
        counts = after_window(batch, visible, windows[label] + delays[label])
        last = np.maximum(last, np.maximum(visible, counts))
    return last


def share_texts(recent: Batch, vocabularies: Mapping[str, Vocabulary]) -> Batch:
    """The same rows; columns with all texts of a vocabulary, as these files have them, read them there."""
    columns = dict(recent.columns)
    for name, column in columns.items():
        if isinstance(column, Strings) and name in vocabularies and column.values == vocabularies[name].texts:
            columns[name] = Strings(column.codes, vocabularies[name].texts)
    return Batch(columns)


def side_by_side(one: Batch, its_user: Ints, other: Batch, other_user: Ints) -> tuple[Batch, Ints]:
    """The rows of both, each in the order of users of whom neither has one of the other's; and their users."""
    if not len(its_user):
        return other, other_user
    users = np.concatenate([its_user, other_user])
    order = np.argsort(users, kind="stable")  # two runs, which are merged
    return join(one, other).take(order), users[order]


class RecentRows:
    """Recent rows in memory, some users' at a time.

    Args:
        like: batches with the columns that are to come. Times that some rows lack are null there.
    """

    def __init__(self, like: list[Batch]) -> None:
        self._names: dict[str, object] = {name: None for batch in reversed(like) for name in batch.columns}
        self._rows: list[tuple[Batch, Ints]] = []

    def append(self, rows: Batch, user: Ints) -> None:
        """Rows in the order of users, who come behind those of before."""
        self._rows.append((with_times(rows, self._names), user))

    def close(self) -> tuple[Batch, Ints]:
        """All rows, and their users."""
        rows, users = zip(*self._rows, strict=True)
        return concatenate(*rows), np.concatenate(users)


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
