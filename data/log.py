"""The log contract on disk: day partitions and the users' and videos' tables, in Parquet.

``logs/<dataset>/day=YYYY-MM-DD/rows.parquet`` holds one row per impression of that day (the configuration's
timezone), sorted by (timestamp, user_id, video_id), ties in file order. Rows of a request that began before midnight are
with its first ones (data/requests.py):

| column | Arrow type | |
|---|---|---|
| user_id, video_id | string | never null |
| timestamp | int64 | ms since the epoch, UTC |
| visible_at | int64 | when the row's outcomes could be known (ms); a label's own ``<label>_visible_at`` overrides |
| seen_at | int64 | of what we served ourselves: when the item became an impression (ms); null on rows of files |
| request_id, query_video_id | string | where the source has them |
| position | int32 | from 0, null where unknown |
| propensity | float64 | null where unknown |
| is_exploration | bool | null where unknown |
| every context column | string, list<string> or float64 | by the configuration's type |
| every label | float64 | natural units, null where it could not be observed |
| source_row | uint32 | CRC-32 of the source's row, by which ingest tells repeats; not read here |

``users.parquet`` and ``videos.parquet`` hold ``user_id`` (``video_id``), ``valid_from`` (int64 ms, where the team has
it) and the configured columns, sorted by (id, valid_from).
"""

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data.columns import Batch, Column, StringLists, Strings
from data.config import ColumnConfig, Config
from data.days import parse_day
from data.errors import LogError
from data.home import Home

ROWS_FILE = "rows.parquet"
ARROW_TYPES: Mapping[str, pa.DataType] = {
    "category": pa.string(),
    "categories": pa.list_(pa.string()),
    "number": pa.float64(),
}
_FIXED: Mapping[str, pa.DataType] = {
    "user_id": pa.string(),
    "video_id": pa.string(),
    "timestamp": pa.int64(),
    "visible_at": pa.int64(),
    "seen_at": pa.int64(),
    "request_id": pa.string(),
    "query_video_id": pa.string(),
    "position": pa.int32(),
    "propensity": pa.float64(),
    "is_exploration": pa.bool_(),
}


def log_schema(config: Config) -> pa.Schema:
    """All columns that a day partition of this configuration may have; the first four and those declared it must."""
    fields: list[Any] = [pa.field(name, kind) for name, kind in _FIXED.items()]
    fields += [pa.field(name, ARROW_TYPES[column.type]) for name, column in config.log.context.items()]
    for label in config.labels:
        fields += [pa.field(label, pa.float64()), pa.field(f"{label}_visible_at", pa.int64())]
    return pa.schema(fields)


def table_schema(key: str, columns: Mapping[str, ColumnConfig]) -> pa.Schema:
    """The schema of the users' (``key`` user_id) or the videos' table."""
    fields: list[Any] = [pa.field(key, pa.string()), pa.field("valid_from", pa.int64())]
    return pa.schema(fields + [pa.field(name, ARROW_TYPES[column.type]) for name, column in columns.items()])


def list_days(home: Home, dataset: str) -> list[date]:
    """The days that have rows, in order.

    Raises:
        LogError: an ingest was interrupted while it replaced partitions, so old and new ones may stand side by side.
    """
    if (home.logs(dataset) / ".staging" / "journal.json").exists():
        raise LogError(f"an ingest of dataset {dataset!r} was interrupted, or is at work: run `watchnext ingest` again")
    found = home.logs(dataset).glob(f"day=*/{ROWS_FILE}")
    return sorted(parse_day(path.parent.name.removeprefix("day=")) for path in found if _has_rows(path))


def _has_rows(path: Path) -> bool:
    """Whether the partition has rows; a damaged one counts, so that whoever reads it says what is wrong."""
    try:
        return bool(pq.read_metadata(path).num_rows > 0)
    except (OSError, pa.ArrowInvalid):
        return True


def read_day(home: Home, config: Config, day: date) -> Batch:
    """The impressions of a day.

    Raises:
        LogError: no such partition, or columns that the configuration needs are missing.
    """
    path = home.day(config.dataset, day) / ROWS_FILE
    if not path.is_file():
        raise LogError(f"no logs for {day} in dataset {config.dataset!r}: run `watchnext ingest` first ({path} is missing)")
    needed = ["user_id", "video_id", "timestamp", "visible_at", *config.log.context, *config.labels]
    return read_batch(path, log_schema(config), needed)


def read_table(home: Home, config: Config, which: str) -> Batch | None:
    """The ``users`` or ``videos`` table, or None where the configuration has none."""
    table = config.users if which == "users" else config.videos
    if table is None:
        return None
    path = home.logs(config.dataset) / f"{which}.parquet"
    key = which.removesuffix("s") + "_id"
    return read_batch(path, table_schema(key, table.columns), [key, *table.columns])


def read_batch(path: Path, schema: pa.Schema, needed: list[str]) -> Batch:
    """Read the columns of ``schema`` that the file has."""
    try:
        table = pq.read_table(path, partitioning=None)
    except (OSError, pa.ArrowInvalid) as error:
        raise LogError(f"cannot read {path}: {error}") from None
    missing = [name for name in needed if name not in table.column_names]
    if missing:
        lacks = f"{path} lacks the columns {', '.join(missing)}"
        raise LogError(f"{lacks}: the configuration changed; run `watchnext ingest` again")
    names = [name for name in schema.names if name in table.column_names]
    return Batch({name: _column(table.column(name), schema.field(name).type, path) for name in names})


def _column(values: Any, kind: pa.DataType, path: Path) -> Column:
    if values.type != kind:
        try:
            values = values.cast(kind)
        except pa.ArrowInvalid as error:
            raise LogError(f"{path}: a column is {values.type}, expected {kind}: {error}") from None
    if pa.types.is_string(kind):
        return _strings(values)
    if pa.types.is_list(kind):
        array: Any = values.combine_chunks()
        lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        return StringLists(offsets, _strings(pa.chunked_array([pc.list_flatten(array)])))
    if pa.types.is_int64(kind) and values.null_count == 0:
        return np.asarray(values.to_numpy())
    if pa.types.is_boolean(kind):
        values = values.cast(pa.int8())
    return np.asarray(values.cast(pa.float64()).to_numpy())


def _strings(values: Any) -> Strings:
    encoded: Any = values.dictionary_encode().combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.chunk(0) if encoded.num_chunks else pa.array([], pa.dictionary(pa.int32(), pa.string()))
    codes = pc.fill_null(encoded.indices.cast(pa.int32()), -1).to_numpy(zero_copy_only=False)
    return Strings(codes.astype(np.int32), encoded.dictionary.to_pylist())
