"""Videos that came through the API, taken into the videos' table with every export and refresh."""

from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from data.config import ColumnConfig, Config, TableConfig
from data.database import database_url, open_database, reading
from data.feedback.schema import catalogue
from data.home import Home
from data.log import ARROW_TYPES
from data.manifest import FILE, Manifest, load_manifest
from data.staging import Staging, open_staging
from data.tables import merge


def bring_tables(config: Config, home: Home) -> None:
    """Take what came through the API into the videos' table of a dataset that is there, between two exports.

    Raises:
        WatchNextError: the database can't be read, or another process holds the dataset.
    """
    engine = open_database(database_url(home))
    try:
        with open_staging(home, config.dataset) as staging:
            manifest = load_manifest(home, config.dataset)
            if manifest is not None and stage_tables(engine, config, home, staging, manifest):
                staging.new(home.logs(config.dataset) / FILE).write_text(manifest.dumps(), encoding="utf-8")
                staging.publish()
    finally:
        engine.dispose()


def stage_tables(engine: sa.Engine, config: Config, home: Home, staging: Staging, manifest: Manifest) -> bool:
    """Stage the videos' table with what came through the API, and an empty users' table where there is none yet. Returns
    whether anything is new."""
    staged = False
    for which, table in (("users", config.users), ("videos", config.videos)):
        if table is None:
            continue
        key = which.removesuffix("s") + "_id"
        target = home.logs(config.dataset) / f"{which}.parquet"
        old = pq.read_table(target, partitioning=None) if which in manifest.tables else None
        new = _live_rows(engine, table) if which == "videos" else _table([], key, table)
        rows, replaced = merge(old, [new], key)
        if old is None or not rows.equals(old):
            pq.write_table(rows, staging.new(target), compression="zstd")
            before = manifest.tables.get(which, {}).get("replaced", 0)
            manifest.tables[which] = {"rows": rows.num_rows, "dated": bool(table.valid_from), "replaced": before + replaced}
            staged = True
    return staged


def _live_rows(engine: sa.Engine, table: TableConfig) -> pa.Table:
    """The rows of the API in order of time, so that the last of a video stands where the table has no times."""
    with reading(engine) as connection:
        found = connection.execute(sa.select(catalogue).order_by(catalogue.c.video_id, catalogue.c.valid_from)).all()
    rows = [{**orjson.loads(r.columns), "video_id": r.video_id, "valid_from": r.valid_from} for r in found]
    return _table(rows, "video_id", table)


def _table(rows: list[dict[str, Any]], key: str, table: TableConfig) -> pa.Table:
    columns = {key: pa.array([row[key] for row in rows], pa.string())}
    if table.valid_from:
        columns["valid_from"] = pa.array([row["valid_from"] for row in rows], pa.int64())
    for name, column in table.columns.items():
        columns[name] = pa.array([_value(row.get(name), column) for row in rows], ARROW_TYPES[column.type])
    return pa.table(columns)


def _value(value: Any, column: ColumnConfig) -> Any:
    """A value from JSON in the column's type."""
    if value is None:
        return None
    match column.type:
        case "category":
            return str(value)
        case "categories":
            return [str(part) for part in value]
        case "number":
            return float(value)
