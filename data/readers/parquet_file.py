"""Parquet, some rows at a time."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from zlib import crc32

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data.errors import LogError
from data.readers.chunk import Chunk

ROWS = 1 << 17


def column_names(path: Path) -> list[str]:
    return list(_open(path).schema_arrow.names)


def read_chunks(path: Path, columns: Sequence[str]) -> Iterator[Chunk]:
    file = _open(path)
    size, total, first = path.stat().st_size, max(file.metadata.num_rows, 1), 1
    try:
        for batch in file.iter_batches(ROWS):
            table = pa.Table.from_batches([batch])
            n = table.num_rows
            rows = np.arange(first, first + n)
            first += n
            yield Chunk(table.select(columns), rows, _digests(table, columns), (), _Text(table), size * first // total)
    except (OSError, pa.ArrowInvalid) as error:
        raise LogError(f"cannot read {path} after row {first - 1}: {error}") from None


class _Text:
    """The original of a row: all its columns as JSON."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def __call__(self, row: int) -> str:
        return json.dumps(self.table.slice(row, 1).to_pylist()[0], default=str)


def _digests(table: pa.Table, read: Sequence[str]) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    """CRC-32 over the columns that are not read (those that are get compared themselves); nested ones don't count."""
    others = [
        pc.fill_null(table.column(name).cast(pa.string()), "")
        for name, kind in zip(table.schema.names, table.schema.types, strict=True)
        if name not in read and _plain(kind)
    ]
    if not others:
        return np.zeros(table.num_rows, np.uint32)
    joined = pc.binary_join_element_wise(*others, "\x1f")
    return np.fromiter((crc32(text.encode()) for text in joined.to_pylist()), np.uint32, table.num_rows)


def _plain(kind: pa.DataType) -> bool:
    checks = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_string, pa.types.is_temporal)
    return any(check(kind) for check in checks)


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise LogError(f"cannot read {path}: {error}") from None
