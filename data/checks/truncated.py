"""Check: a line that is no row. The last line of a file cut mid-row is ``truncated``, any other ``damaged``.

A file may end without a line break; its last line then counts as cut only if it lacks columns or its last one is empty.
A value cut in the last column that still reads as one cannot be told from a whole one.
"""

import csv

from data.readers.chunk import Damaged


def split_line(line: bytes, row: int, columns: int, complete: bool) -> list[str] | Damaged:
    """The fields of one line of a CSV file, or what is wrong with it.

    Args:
        line: without its line break.
        row: its number in the file, from 1.
        columns: how many the header has.
        complete: whether a line break followed; only a file's last line can lack it.
    """
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        return damaged(line, row, "not UTF-8", complete)
    try:
        fields = next(csv.reader([text], strict=True), [])
    except csv.Error:
        return damaged(line, row, "a quote is not closed (a value may not hold a line break)", complete)
    if len(fields) != columns:
        return damaged(line, row, f"expected {columns} columns, got {len(fields)}", complete)
    if not complete and not fields[-1]:
        return damaged(line, row, "the file ends before the last column", complete)
    return fields


def damaged(line: bytes, row: int, detail: str, complete: bool) -> Damaged:
    """``truncated`` at the end of a file that stops mid-line, else ``damaged``."""
    reason = "damaged" if complete else "truncated"
    return Damaged(row, reason, detail, line.decode("utf-8", "surrogateescape"))
