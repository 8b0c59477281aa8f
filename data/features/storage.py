"""Batches and named arrays on disk: .npy files (memory-mapped on load) and .json for texts. No pickle."""

import json
import mmap
import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.columns import Batch, Column, StringLists, Strings
from data.config import Side
from data.features.layout import SIDES, Block

PARTS = ("ints", "floats")


def save_arrays(arrays: Mapping[str, NDArray[Any]], folder: Path, place: Path | None = None) -> None:
    """One .npy file per array; ``place``: where they lie in files already, which are given a second name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        _save(array, name, folder, place)


def _save(array: NDArray[Any], name: str, folder: Path, place: Path | None) -> None:
    if place is not None and _lies_in(place):
        link_or_copy(place / f"{name}.npy", folder / f"{name}.npy")
    else:
        np.save(folder / f"{name}.npy", array, allow_pickle=False)


def _lies_in(place: Path | None) -> bool:
    """Whether the files are there; they may be gone with their run, and what is mapped can still be read."""
    return place is not None and place.is_dir()


def load_array(path: Path) -> NDArray[Any]:
    """A memory-mapped array (an empty one cannot be mapped and is read)."""
    try:
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except ValueError:
        return np.asarray(np.load(path, allow_pickle=False))


class ArrayFile:
    """A .npy file that grows by rows, all of one shape and type; it has one row or more when it is closed, or the shape of
    an empty array that was appended."""

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, path.open("wb")
        self._rows = 0
        self._like: NDArray[Any] | None = None  # how a row looks

    def append(self, array: NDArray[Any]) -> None:
        if self._like is None:
            self._like = array[:0]
            self._head()
        self._rows += len(array)
        np.ascontiguousarray(array).tofile(self._file)

    def close(self) -> NDArray[Any]:
        """The whole, memory-mapped."""
        self._file.seek(0)
        self._head()
        self._file.close()
        return load_array(self._path)

    def _head(self) -> None:
        assert self._like is not None, f"nothing was appended to {self._path}"
        shape = (self._rows, *self._like.shape[1:])  # the header leaves room for a larger number of rows
        whole = {"shape": shape, "fortran_order": False, "descr": self._like.dtype.str}
        np.lib.format.write_array_header_1_0(self._file, whole)


def let_go(*arrays: NDArray[Any]) -> None:
    """Pages of mapped arrays that were read so far count as resident memory; they are read again where needed. An array
    in memory stays as it is."""
    for array in arrays:
        owner: Any = array
        while isinstance(owner, np.ndarray):
            owner = owner.base
        if isinstance(owner, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            owner.madvise(mmap.MADV_DONTNEED)


def let_go_of_blocks(blocks: Mapping[Side, Block]) -> None:
    """The same of encoded rows."""
    let_go(*(getattr(block, part) for block in blocks.values() for part in PARTS))


def link_or_copy(source: Path, target: Path) -> None:
    """The same file under another name, where the file system can; files that are linked are never written to again."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def save_blocks(blocks: Mapping[Side, Block], folder: Path) -> None:
    """Encoded rows, two arrays a side."""
    save_arrays({f"{side}.{part}": getattr(block, part) for side, block in blocks.items() for part in PARTS}, folder)


def write_blocks(parts: Iterable[Mapping[Side, Block]], rows: int, folder: Path) -> dict[Side, Block]:
    """Write encoded rows part by part, as :func:`save_blocks` would have them whole; returns them memory-mapped.

    Args:
        parts: one at least, of ``rows`` rows together; each is let go of before the next is asked for.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        files: dict[str, Any] = {}
        for blocks in parts:
            for side, block in blocks.items():
                for part in PARTS:
                    array, name = getattr(block, part), f"{side}.{part}"
                    if name not in files:
                        files[name] = stack.enter_context((folder / f"{name}.npy").open("wb"))
                        whole = {"shape": (rows, array.shape[1]), "fortran_order": False}
                        np.lib.format.write_array_header_1_0(files[name], {**whole, "descr": array.dtype.str})
                    array.tofile(files[name])
            del blocks, block, array
    return load_blocks(folder)


def load_blocks(folder: Path) -> dict[Side, Block]:
    """What :func:`save_blocks` wrote, memory-mapped."""
    return {side: Block(*(load_array(folder / f"{side}.{part}.npy") for part in PARTS)) for side in SIDES}


def save_batch(batch: Batch, folder: Path, place: Path | None = None) -> None:
    """A batch, column by column; ``columns.json`` names them and their kinds in order.

    Args:
        place: where the arrays lie in files already, which are given a second name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kinds = {name: type(column).__name__ for name, column in batch.columns.items()}
    (folder / "columns.json").write_text(json.dumps(kinds))
    for name, column in batch.columns.items():
        if isinstance(column, StringLists):
            _save(column.offsets, f"{name}.offsets", folder, place)
            column = column.flat
        if isinstance(column, Strings):
            column = column if _lies_in(place) else column.compact()  # kept rows share the vocabulary's texts
            (folder / f"{name}.json").write_text(json.dumps(list(column.values), ensure_ascii=False), encoding="utf-8")
            column = column.codes
        _save(column, name, folder, place)


def load_batch(folder: Path) -> Batch:
    """What :func:`save_batch` wrote."""
    kinds: dict[str, str] = json.loads((folder / "columns.json").read_text())
    return Batch({name: _load_column(folder, name, kind) for name, kind in kinds.items()})


def _load_column(folder: Path, name: str, kind: str) -> Column:
    array = load_array(folder / f"{name}.npy")
    if kind not in ("Strings", "StringLists"):
        return array
    texts = Strings(array, json.loads((folder / f"{name}.json").read_text(encoding="utf-8")))
    return StringLists(load_array(folder / f"{name}.offsets.npy"), texts) if kind == "StringLists" else texts
