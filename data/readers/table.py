"""The general reader: CSV, JSON lines and Parquet by the configuration's column names. No code per data set.

A CSV file has a header, commas and at most RFC 4180 quotes; a value holds no line break; an empty value is null. An
object of a JSON-lines file is a row; a key it lacks is null. Text and JSON files may be gzipped.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from data.errors import LogError
from data.readers import csv_file, json_file, parquet_file
from data.readers.chunk import Chunk

SUFFIXES = (".csv", ".csv.gz", ".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz", ".parquet")


def format_of(path: Path) -> str | None:
    """``csv``, ``json`` or ``parquet`` by the file's name; None where it is none of these."""
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(".csv"):
        return "csv"
    if name.endswith((".jsonl", ".ndjson")):
        return "json"
    return "parquet" if path.name.lower().endswith(".parquet") else None


def column_names(path: Path) -> list[str]:
    """The columns that a file has (of JSON lines: the keys of its first rows). Empty for an empty file."""
    match format_of(path):
        case "csv":
            return csv_file.column_names(path)
        case "json":
            return json_file.column_names(path)
        case "parquet":
            return parquet_file.column_names(path)
    raise LogError(f"{path}: unknown format, expected a name ending in one of {', '.join(SUFFIXES)}")


def read_chunks(path: Path, columns: Sequence[str]) -> Iterator[Chunk]:
    """The file's rows in order, ``columns`` of them (each must exist), in bounded memory."""
    match format_of(path):
        case "csv":
            return csv_file.read_chunks(path, columns)
        case "json":
            return json_file.read_chunks(path, columns)
        case _:
            return parquet_file.read_chunks(path, columns)
