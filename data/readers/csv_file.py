"""CSV in blocks: Arrow's parser where a block is whole, line by line where something is wrong in it."""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from zlib import crc32

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from data.checks.truncated import split_line
from data.errors import LogError
from data.readers.chunk import Chunk, Damaged
from data.readers.lines import Block, read_blocks

BOM = b"\xef\xbb\xbf"


def column_names(path: Path) -> list[str]:
    """The header's names; empty for an empty file.

    Raises:
        LogError: unreadable, or two columns of one name.
    """
    first = next(iter(read_blocks(path, 1 << 16)), None)
    if first is None:
        return []
    try:
        names = next(csv.reader(io.StringIO(first.lines()[0].removeprefix(BOM).decode("utf-8")), strict=True), [])
    except (UnicodeDecodeError, csv.Error):
        raise LogError(f"{path}: the first line is not a CSV header") from None
    for name in names:
        if names.count(name) > 1:
            raise LogError(f"{path}: two columns are called {name!r}")
    return names


def read_chunks(path: Path, columns: Sequence[str]) -> Iterator[Chunk]:
    names = column_names(path)
    for block in read_blocks(path):
        if block.first == 1:
            rest = block.text.partition(b"\n")[2]
            block = Block(rest, 2, block.bytes_read)
        if block.text:
            yield _whole(block, names, columns) or _by_line(block, names, columns)


def _whole(block: Block, names: list[str], columns: Sequence[str]) -> Chunk | None:
    """The block by Arrow's parser; None unless every line is one good row."""
    if not block.complete or b"\r" in block.text:
        return None
    n = block.text.count(b"\n")
    try:
        table = pa_csv.read_csv(
            pa.BufferReader(block.text),
            read_options=pa_csv.ReadOptions(column_names=names, block_size=4 << 20),
            parse_options=pa_csv.ParseOptions(ignore_empty_lines=True),
            convert_options=_options(names, columns),
        )
    except pa.ArrowInvalid:
        return None
    if table.num_rows != n:
        return None
    starts: list[int] = []

    def text(row: int) -> str:
        if not starts:
            starts.extend(block.starts().tolist())
        return block.text[starts[row] : starts[row + 1] - 1].decode("utf-8")

    digests = np.fromiter(map(crc32, block.lines()), np.uint32, n)
    return Chunk(table, np.arange(block.first, block.first + n), digests, (), text, block.bytes_read)


def _options(names: list[str], columns: Sequence[str]) -> pa_csv.ConvertOptions:
    return pa_csv.ConvertOptions(
        column_types={name: pa.string() for name in names},
        include_columns=list(columns),
        null_values=[""],
        strings_can_be_null=True,
        quoted_strings_can_be_null=True,
    )


def _by_line(block: Block, names: list[str], columns: Sequence[str]) -> Chunk:
    """The block line by line, so that a bad line costs itself and nothing else. Empty lines are skipped."""
    lines = block.lines()
    good: list[int] = []
    fields: list[list[str]] = []
    bad: list[Damaged] = []
    for i, line in enumerate(lines):
        if not line.strip(b"\r"):
            continue
        complete = block.complete or i < len(lines) - 1
        result = split_line(line, block.first + i, len(names), complete)
        if isinstance(result, Damaged):
            bad.append(result)
        else:
            good.append(i)
            fields.append(result)
    places = [names.index(column) for column in columns]
    table = pa.table(
        {c: pa.array([row[p] or None for row in fields], pa.string()) for c, p in zip(columns, places, strict=True)}
    )
    rows = np.array(good, np.int64)
    digests = np.fromiter((crc32(lines[i]) for i in good), np.uint32, len(good))
    return Chunk(table, rows + block.first, digests, bad, lambda row: lines[good[row]].decode("utf-8"), block.bytes_read)
