"""The users' and the videos' table: read whole, checked, sorted by (id, valid_from). Of rows with one id (and time) the
last stands; how many gave way is in the manifest."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data.checks import ranges, types
from data.config import Config, TableConfig
from data.errors import ConfigError, LogError
from data.home import Home
from data.log import table_schema
from data.manifest import Manifest
from data.readers.chunk import Chunk
from data.readers.files import SourceFile
from data.readers.plan import table_plan
from data.readers.table import column_names, read_chunks
from data.rejected import Rejects, set_aside
from data.spool import conform
from data.staging import Staging


def write_tables(
    config: Config, home: Home, staging: Staging, manifest: Manifest, rejects: Mapping[SourceFile, Rejects]
) -> dict[str, pa.Array]:
    """Stage the tables that new files (the keys of ``rejects``) bring; the ids that each table knows, by key.

    Raises:
        ConfigError: a configured column is missing, or a table for which no file was ever found.
        LogError: a file is unreadable or empty.
    """
    known: dict[str, pa.Array] = {}
    for which, table in (("users", config.users), ("videos", config.videos)):
        if table is None:
            continue
        key = which.removesuffix("s") + "_id"
        target = home.logs(config.dataset) / f"{which}.parquet"
        old = pq.read_table(target, partitioning=None) if which in manifest.tables else None
        new = [_read(file, rows, table, key) for file, rows in rejects.items() if file.kind == which]
        if old is None and not new:
            raise ConfigError(f"the configuration has a {which}' table but no file is called {' or '.join(table.files)}")
        rows, replaced = merge(old, new, key)
        if new:
            pq.write_table(rows, staging.new(target), compression="zstd")
            before = manifest.tables.get(which, {}).get("replaced", 0)
            manifest.tables[which] = {"rows": rows.num_rows, "dated": bool(table.valid_from), "replaced": before + replaced}
        known[key] = rows.column(key).combine_chunks().unique()
    return known


def _read(file: SourceFile, rejects: Rejects, config: TableConfig, key: str) -> pa.Table:
    names = column_names(file.path)
    if not names:
        raise LogError(f"{file.path} is empty: expected a table with a column {config.key!r}")
    plan = table_plan(config, key, names, str(file.path))
    schema = table_schema(key, config.columns)
    if not config.valid_from:
        schema = schema.remove(schema.get_field_index("valid_from"))
    kept = [schema.empty_table()]
    for chunk in read_chunks(file.path, list(dict.fromkeys(plan.values()))):
        rejects.read += len(chunk) + len(chunk.damaged)
        kept.append(conform(_good_rows(chunk, plan, config, key, rejects), schema))
    return pa.concat_tables(kept)


def _good_rows(chunk: Chunk, plan: dict[str, str], config: TableConfig, key: str, rejects: Rejects) -> pa.Table:
    rows, findings = types.table_rows(chunk.columns, plan, config, key)
    findings += ranges.check_table(rows, config.columns)
    return set_aside(chunk, rows, findings, rejects)


def merge(old: pa.Table | None, new: Sequence[pa.Table], key: str) -> tuple[pa.Table, int]:
    """One table of what there was and what came, sorted by (key, valid_from); of rows with the same id (and time) the
    one that came last. Also how many rows gave way to one that differs."""
    rows = pa.concat_tables([*([old] if old is not None else []), *new])
    keys = [key] + (["valid_from"] if "valid_from" in rows.column_names else [])
    numbered = rows.append_column("\x00row", pa.array(np.arange(rows.num_rows)))
    order = pc.sort_indices(numbered, sort_keys=[(name, "ascending") for name in [*keys, "\x00row"]])
    ordered = rows.take(order).combine_chunks()
    if ordered.num_rows < 2:
        return ordered, 0
    same = _same_as_next(ordered, keys)
    differs = same & ~_same_as_next(ordered, ordered.column_names)
    return ordered.filter(pa.array(np.append(~same, True))).combine_chunks(), int(differs.sum())


def _same_as_next(rows: pa.Table, names: Sequence[str]) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    same = np.ones(rows.num_rows - 1, bool)
    for name in names:
        column = rows.column(name)
        if pa.types.is_list(column.type):
            column = pc.binary_join(column, "\x1f")
        array = column.combine_chunks()
        a, b = array[:-1], array[1:]
        equal = pc.or_(pc.fill_null(pc.equal(a, b), False), pc.and_(a.is_null(), b.is_null()))
        same &= equal.to_numpy(zero_copy_only=False).astype(bool)
    return same
