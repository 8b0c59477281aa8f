"""Writing one day's partition: sorted, repeats dropped, what it held before included."""

from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from data.checks import duplicates
from data.config import Config
from data.days import day_start, parse_day
from data.errors import LogError
from data.home import Home
from data.log import ROWS_FILE, log_schema
from data.manifest import DayFigures, Manifest
from data.requests import Leaving
from data.sessions import Sessions
from data.spool import Spool
from data.staging import Staging

ROW_GROUP = 1 << 18
SESSIONS_FILE = "sessions.parquet"


class LeavesOut(Protocol):
    """Says which of the rows that a partition holds stay in it."""

    def without(self, rows: pa.Table) -> pa.Table: ...


def partition_schema(config: Config, columns: list[str]) -> pa.Schema:
    """The columns of log.py that ``columns`` (of the sources) and the configuration call for, and ``source_row``, the
    CRC-32 of the row as the source has it, by which repeats are told from rows that only look alike."""
    wanted = {*columns, "visible_at"} | ({"position"} if config.log.session_gap is not None else set())
    fields = [field for field in log_schema(config) if field.name in wanted]
    return pa.schema([*fields, pa.field("source_row", pa.uint32())])


def write_days(
    spool: Spool, config: Config, home: Home, staging: Staging, manifest: Manifest, leaving: Mapping[date, Leaving]
) -> Iterator[tuple[date, int]]:
    """Stage every day that got rows or has some ``leaving``, and those after it whose sessions began in it; enters them in
    the manifest and yields each with how many repeats were dropped. A day that is left without rows goes.

    Where positions are the sessions' ordinals, a day hands its open sessions on through ``sessions.parquet``.
    """
    gap = config.log.session_gap if "position" not in manifest.columns else None
    sessions: Sessions | None = None
    known = {parse_day(day): figures for day, figures in manifest.days.items()}
    previous: date | None = None
    changed = False
    for day in sorted({*known, *spool.pieces}):
        if day in leaving and day not in spool.pieces and _all_leave(home.day(config.dataset, day), leaving[day]):
            _remove(home.day(config.dataset, day), staging)
            del manifest.days[day.isoformat()]
            changed = sessions is not None
            continue
        if day in spool.pieces or day in leaving or changed:
            if gap is not None and sessions is None:
                sessions = _load_sessions(gap, home.day(config.dataset, previous) if previous else None)
            before = known.get(day)
            figures = write_day(spool, day, config, home, staging, sessions, before, leaving.get(day))
            manifest.days[day.isoformat()] = figures
            changed = sessions is not None and (before is None or not _handed_on(sessions, home.day(config.dataset, day)))
            yield day, figures.duplicates - (before.duplicates if before else 0)
        else:
            sessions = None
        previous = day
    manifest.days = dict(sorted(manifest.days.items()))


def count_ids(config: Config, home: Home, staging: Staging, manifest: Manifest, key: str) -> int:
    """How many users (``key`` user_id) or videos the partitions hold, the staged ones in place of the old."""
    seen: list[pa.Array] = []
    for day in manifest.days:
        path = staging.current(home.day(config.dataset, parse_day(day)) / ROWS_FILE)
        seen.append(pq.read_table(path, columns=[key], partitioning=None).column(key).unique())
    return len(pa.chunked_array(seen, pa.string()).unique())


def _load_sessions(gap: float, folder: Path | None) -> Sessions:
    milliseconds = round(gap * 1000)
    if folder is None:
        return Sessions(milliseconds)
    return Sessions(milliseconds, pq.read_table(folder / SESSIONS_FILE, partitioning=None))


def _handed_on(sessions: Sessions, folder: Path) -> bool:
    """Whether the day handed on the same before."""
    return bool(pq.read_table(folder / SESSIONS_FILE, partitioning=None).equals(sessions.table()))


def write_day(
    spool: Spool,
    day: date,
    config: Config,
    home: Home,
    staging: Staging,
    sessions: Sessions | None,
    before: DayFigures | None,
    leaving: LeavesOut | None = None,
) -> DayFigures:
    """Stage the partition of ``day``: what the spool has of it and, where ``before`` says so, what it holds already but
    for the rows that are ``leaving``. ``sessions`` gives (and carries) the positions where the log has none."""
    figures = DayFigures(duplicates=before.duplicates if before else 0)
    target = home.day(config.dataset, day)
    first = list(_unpack(target / ROWS_FILE, spool, staging.scratch("before"), leaving)) if before else []
    with _RowGroups(staging.new(target / ROWS_FILE), spool.schema) as out:
        for rows in spool.slices(day, first):
            if config.ingest.duplicates == "drop":
                found = duplicates.find(rows.drop_columns(["position"]) if sessions else rows)
                figures.duplicates += int((~found.keep).sum())
                figures.sharing += found.sharing
                rows = rows.filter(pa.array(found.keep))
            if sessions is not None:
                rows = _positioned(rows, sessions)
            figures.count(rows, list(config.labels))
            out.write(rows)
    figures.labels = {name: (seen, round(total, 3)) for name, (seen, total) in figures.labels.items()}
    for path in first:
        path.unlink()
    spool.forget(day)
    if sessions is not None:
        sessions.forget_before(day_start(day + timedelta(days=1), config.timezone))
        pq.write_table(sessions.table(), staging.new(target / SESSIONS_FILE))
    return figures


def _all_leave(folder: Path, leaving: Leaving) -> bool:
    rows = pq.read_table(folder / ROWS_FILE, columns=["timestamp", "request_id"], partitioning=None)
    return bool(leaving.without(rows).num_rows == 0)


def _remove(folder: Path, staging: Staging) -> None:
    for path in folder.glob("*.parquet"):
        staging.delete(path)


def _unpack(path: Path, spool: Spool, folder: Path, leaving: LeavesOut | None) -> Iterator[Path]:
    """The rows that the partition holds and keeps, as pieces for the spool."""
    try:
        for i, batch in enumerate(pq.ParquetFile(path).iter_batches(ROW_GROUP)):
            rows = pa.Table.from_batches([batch])
            yield spool.piece(folder / f"{i:08d}.arrow", leaving.without(rows) if leaving else rows)
    except (OSError, pa.ArrowInvalid) as error:
        raise LogError(f"{path} is damaged ({error}): move the dataset away and ingest all sources again") from None


def _positioned(rows: pa.Table, sessions: Sessions) -> pa.Table:
    ordinals = sessions.ordinals(rows.column("user_id").combine_chunks(), rows.column("timestamp").to_numpy())
    return rows.set_column(rows.schema.get_field_index("position"), "position", pa.array(ordinals))


class _RowGroups:
    """Writes rows in groups of ROW_GROUP however they come, so that the same rows give the same bytes."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.writer = pq.ParquetWriter(path, schema, compression="zstd")
        self.waiting: list[pa.Table] = []
        self.count = 0

    def __enter__(self) -> "_RowGroups":
        return self

    def write(self, rows: pa.Table) -> None:
        self.waiting.append(rows)
        self.count += rows.num_rows
        while self.count >= ROW_GROUP:
            self._flush(ROW_GROUP)

    def _flush(self, n: int) -> None:
        rows = pa.concat_tables(self.waiting)
        self.writer.write_table(rows.slice(0, n).combine_chunks(), row_group_size=ROW_GROUP)
        self.waiting = [rows.slice(n)]
        self.count -= n

    def __exit__(self, *exc: object) -> None:
        if self.count:
            self._flush(self.count)
        self.writer.close()
