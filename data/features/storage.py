"""Batches and named arrays on disk: .npy files (memory-mapped on load) and .json for texts. No pickle."""

import json
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


def save_arrays(arrays: Mapping[str, NDArray[Any]], folder: Path) -> None:
    """One .npy file per array."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)


def load_array(path: Path) -> NDArray[Any]:
    """A memory-mapped array (an empty one cannot be mapped and is read)."""
    try:
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except ValueError:
        return np.asarray(np.load(path, allow_pickle=False))


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


def save_batch(batch: Batch, folder: Path) -> None:
    """A batch, column by column; ``columns.json`` names them and their kinds in order."""
    folder.mkdir(parents=True, exist_ok=True)
    kinds = {name: type(column).__name__ for name, column in batch.columns.items()}
    (folder / "columns.json").write_text(json.dumps(kinds))
    for name, column in batch.columns.items():
        if isinstance(column, StringLists):
            np.save(folder / f"{name}.offsets.npy", column.offsets, allow_pickle=False)
            column = column.flat
        if isinstance(column, Strings):
            column = column.compact()  # kept rows share the vocabulary's texts
            (folder / f"{name}.json").write_text(json.dumps(list(column.values), ensure_ascii=False), encoding="utf-8")
            column = column.codes
        np.save(folder / f"{name}.npy", column, allow_pickle=False)


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
