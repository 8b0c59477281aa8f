"""JSON lines: an object a line. Numbers, booleans and texts become text; lists of them stay lists."""

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pyarrow as pa

from data.checks.truncated import damaged
from data.readers.chunk import Chunk, Damaged
from data.readers.lines import Block, read_blocks

HEAD_ROWS = 10_000
"""How many rows are looked at to learn which keys there are."""
BLOCK_BYTES = 8 << 20


def column_names(path: Path) -> list[str]:
    """The keys of the first rows, in order of appearance."""
    names: dict[str, None] = {}
    lines = (line for block in read_blocks(path, BLOCK_BYTES) for line in block.lines())
    for line in islice(lines, HEAD_ROWS):
        row = _parse(line)
        if isinstance(row, dict):
            names.update(dict.fromkeys(row))
    return list(names)


def read_chunks(path: Path, columns: Sequence[str]) -> Iterator[Chunk]:
    for block in read_blocks(path, BLOCK_BYTES):
        yield _chunk(block, columns)


def _chunk(block: Block, columns: Sequence[str]) -> Chunk:
    lines = block.lines()
    good: list[int] = []
    objects: list[dict[str, Any]] = []
    bad: list[Damaged] = []
    for i, line in enumerate(lines):
        if not line.strip():
            continue
        row = _parse(line)
        if isinstance(row, dict):
            good.append(i)
            objects.append(row)
        else:
            complete = block.complete or i < len(lines) - 1
            bad.append(damaged(line, block.first + i, row, complete))
    table = pa.table({column: _column([row.get(column) for row in objects]) for column in columns})
    digests = np.fromiter((crc32(lines[i]) for i in good), np.uint32, len(good))
    rows = np.array(good, np.int64) + block.first
    return Chunk(table, rows, digests, bad, lambda row: lines[good[row]].decode("utf-8"), block.bytes_read)


def _parse(line: bytes) -> dict[str, Any] | str:
    """The object on a line, or what is wrong with it."""
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        return "not UTF-8"
    except (json.JSONDecodeError, RecursionError) as error:
        return f"not JSON: {error}"
    return row if isinstance(row, dict) else f"expected an object, got {type(row).__name__}"


def _column(values: list[Any]) -> pa.Array:
    if any(isinstance(value, list) for value in values):
        return pa.array([_texts(value) for value in values], pa.list_(pa.string()))
    return pa.array([_text(value) for value in values], pa.string())


def _texts(value: Any) -> list[str | None] | None:
    if value is None:
        return None
    return [_text(item) for item in value] if isinstance(value, list) else [_text(value)]


def _text(value: Any) -> str | None:
    """As the decimal text of an integer (12.0 is 12), true, false, or JSON again where it is an object."""
    match value:
        case None | "":
            return None
        case str():
            return value.encode("utf-8", "replace").decode("utf-8")
        case float() if value.is_integer() and abs(value) < 2**53:
            return str(int(value))
        case bool() | list() | dict():
            return json.dumps(value)
        case _:
            return str(value)
