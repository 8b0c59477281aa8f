"""Tables of sorted keys with integer columns that are summed: merged in memory, or by blocks from file to file."""

import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.features.sorting import first_of_each, union
from data.features.storage import ArrayFile, let_go
from data.features.threads import in_turns

Ints = NDArray[np.int64]
Columns = Sequence[Ints]
"""The keys [m], sorted and distinct, and any number of columns of values, [m, ...] each."""

BLOCK_ROWS = 131_072
"""Rows of a table that are looked at at once. Of a file, pages are let go of then."""
MEMORY_ROWS = 1 << 20
"""Up to so many rows a table stays in memory, where it may go to files."""


def fits(rows: int) -> bool:
    """Whether a table of so many rows stays in memory."""
    return rows <= MEMORY_ROWS


def summed(keys: Ints, values: Columns) -> list[Ints]:
    """A table of keys [e] in any order and values [e, ...]: those of equal keys added up. Sorted runs cost the least."""
    if (keys[1:] > keys[:-1]).all():
        return [keys, *values]
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.flatnonzero(first_of_each(ordered))
    return [ordered[starts], *(np.add.reduceat(column[order], starts, axis=0) for column in values)]


def merged(table: Columns, more: Columns) -> list[Ints]:
    """The table of both, in new arrays; values of a key in both are added up."""
    most = len(table[0]) + len(more[0])
    into, rows = [np.empty((most, *column.shape[1:]), column.dtype) for column in table], 0
    for found in _merged_blocks(table, more):
        for column, part in zip(into, found, strict=True):
            column[rows : rows + len(part)] = part
        rows += len(found[0])
    for column in into:
        column.resize((rows, *column.shape[1:]), refcheck=False)  # in place: nothing else knows of it
    return into


def _merged_blocks(table: Columns, more: Columns) -> Iterator[list[Ints]]:
    """What follows each other in the table of both, a block of the old one at a time."""
    blocks = _blocks(table, more[0])
    return in_turns(partial(_merged, [c[block] for c in table], [c[later] for c in more]) for block, later in blocks)


def _merged(table: Columns, more: Columns) -> list[Ints]:
    rows = len(table[0])
    if not rows:
        return list(more)
    if len(table) == 1:
        return [union(table[0], more[0])]
    keys = np.concatenate([table[0], more[0]])
    order = np.argsort(keys, kind="stable")  # two runs, which are merged: old ones before their equals
    ordered = keys.take(order)
    first = first_of_each(ordered)
    once, twice = np.flatnonzero(first), np.flatnonzero(~first)
    source = order.take(once)
    new, old = np.flatnonzero(source >= rows), twice - 1 - np.arange(len(twice))
    result = [ordered.take(once)]
    for column, later in zip(table[1:], more[1:], strict=True):
        items = _items(column).take(source, mode="clip")
        items[new] = _items(later).take(source.take(new) - rows)
        items[old] = _items(_values(items[old], column) + _values(_items(later).take(order.take(twice) - rows), column))
        result.append(_values(items, column))
    return result


def _items(column: Ints) -> NDArray[Any]:
    """Each row as one item, which numpy moves several times as fast."""
    if column.ndim == 1:
        return column
    return np.ascontiguousarray(column).view(np.dtype((np.void, column.itemsize * column.shape[1])))[:, 0]


def _values(items: NDArray[Any], like: Ints) -> Ints:
    """The rows of :func:`_items` as such of ``like`` again."""
    return items.view(like.dtype).reshape(-1, *like.shape[1:])


def merge_files(table: Columns, more: Columns, names: Sequence[str], folder: Path) -> list[NDArray[Any]]:
    """What :func:`merged` gives, as one .npy file a column in a new ``folder``, mapped into memory.

    One pass over the old table, block by block; its pages are let go of, if it is mapped itself. It may not lie in
    ``folder``.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    files = [ArrayFile(folder / f"{name}.npy") for name in names]
    for found in _merged_blocks(table, more):
        for file, column in zip(files, found, strict=True):
            file.append(column)
    return [file.close() for file in files]


def folder_after(before: Path | None, within: Path) -> Path:
    """A new folder's name, within a folder for one table's."""
    return within / ("0" if before is None else str(int(before.name) + 1))


def _blocks(table: Columns, keys: Ints) -> Iterator[tuple[slice, slice]]:
    """Blocks of the table, each with the stretch of ``keys`` that belongs before the next one begins. A glance at a file
    can map megabytes, so that where all blocks begin is not looked up beforehand."""
    first, rows = 0, len(table[0])
    for start in range(0, max(rows, 1), BLOCK_ROWS):
        after = start + BLOCK_ROWS
        behind = int(keys.searchsorted(table[0][after])) if after < rows else len(keys)
        yield slice(start, after), slice(first, behind)
        let_go(*table)
        first = behind


def look_up_by_blocks(table: Columns, keys: Ints) -> list[Ints]:
    """The values [n, ...] of keys [n] in any order, 0 where the table lacks them. Of a mapped table little stays
    resident."""
    order = np.argsort(keys, kind="stable")  # those of rows in the order of their users are nearly sorted
    ordered = keys[order]
    found = [np.zeros((len(keys), *column.shape[1:]), column.dtype) for column in table[1:]]
    for block, mine in _blocks(table, ordered):
        if mine.start == mine.stop:
            continue
        part, wanted = table[0][block], ordered[mine]
        place = np.minimum(part.searchsorted(wanted), len(part) - 1)
        known = part[place] == wanted
        for values, column in zip(found, table[1:], strict=True):
            values[order[mine][known]] = column[block][place[known]]
    return found
