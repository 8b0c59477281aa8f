"""``watchnext export``: days of what was served, once final, as day partitions; exactly once, resumable.

A day is published through the dataset's staging like an ingest: its partition and the manifest that says so appear
together or not at all. The manifest is what counts; the ``exports`` table repeats it and is mended after a kill.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path
from zlib import crc32

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa
from rich.console import Console

from data.columns import Batch
from data.config import LOG_COLUMNS, Config
from data.database import database_url, open_database, reading, upsert, writing
from data.days import day_of, day_start, parse_day
from data.errors import ConfigError
from data.feedback.arrow import to_table
from data.feedback.batches import impressions, of_time
from data.feedback.catalogue import stage_tables
from data.feedback.rows import json_text
from data.feedback.schema import exports, served
from data.feedback.windows import closed_labels, final_at
from data.home import Home
from data.log import ROWS_FILE, log_schema
from data.manifest import FILE, ExportRecord, Manifest, changed_settings, load_manifest, settings_of
from data.partition import SESSIONS_FILE, count_ids, partition_schema, write_day
from data.sessions import Sessions
from data.spool import Spool
from data.staging import Staging, open_staging


@dataclass(frozen=True)
class Exported:
    """A day as it now stands in ``logs/<dataset>``. ``closed`` are the labels whose windows had closed, all others are
    masked; ``skipped`` counts requests that can't be rebuilt."""

    dataset: str
    day: date
    revision: int
    rows: int
    closed: tuple[str, ...]
    sha256: str | None
    skipped: int = 0


@dataclass(frozen=True)
class OursOut:
    """Leaves out of a partition what an earlier revision put there."""

    def without(self, rows: pa.Table) -> pa.Table:
        return rows.filter(rows.column("seen_at").is_null()) if "seen_at" in rows.column_names else rows


def export_days(config: Config, home: Home, now: int, console: Console) -> list[Exported]:
    """Publish every day that has become final, and again those where more labels closed since. Returns these, in order.

    What is published of a day depends on the labels closed alone, not on ``now`` (ms) or on how often it was tried.

    Raises:
        WatchNextError: the database can't be read, the dataset is held by another process or was made with other
            settings. A second call goes on where the first was stopped.
    """
    engine = open_database(database_url(home))
    done: list[Exported] = []
    try:
        with open_staging(home, config.dataset):  # finishes what a killed run had begun to publish
            _mend(engine, config, load_manifest(home, config.dataset))
        for day in _final_days(engine, config, now):
            with open_staging(home, config.dataset) as staging:
                exported = _export(engine, config, home, staging, day, now)
            if exported is not None:
                done.append(exported)
                masked = [label for label in config.labels if label not in exported.closed]
                console.print(
                    f"{day}: {exported.rows:,} impressions, revision {exported.revision}"
                    + (f"; still open: {', '.join(masked)}" if masked else "")
                    + (f"; {exported.skipped:,} requests with a history of their own left out" if exported.skipped else ""),
                    highlight=False,
                    soft_wrap=True,
                )
    finally:
        engine.dispose()
    return done


def _final_days(engine: sa.Engine, config: Config, now: int) -> Iterator[date]:
    """The final days on which something was served, in order."""
    bounds = sa.select(sa.func.min(served.c.timestamp), sa.func.max(served.c.timestamp)).where(served.c.name == config.name)
    with reading(engine) as connection:
        first, last = connection.execute(bounds).one()
    day = None if first is None else day_of(first, config.timezone)
    while day is not None and day <= day_of(last, config.timezone) and final_at(config, day) <= now:
        with reading(engine) as connection:
            some = connection.execute(sa.select(sa.literal(1)).where(*_of_day(config, day)).limit(1)).first()
        if some is not None:
            yield day
        day += timedelta(days=1)


def _of_day(config: Config, day: date) -> list[sa.ColumnElement[bool]]:
    return of_time(config, *_bounds(config, day))


def _bounds(config: Config, day: date) -> tuple[int, int]:
    return day_start(day, config.timezone), day_start(day + timedelta(days=1), config.timezone)


def _export(engine: sa.Engine, config: Config, home: Home, staging: Staging, day: date, now: int) -> Exported | None:
    """Publish a day; None where it stands as it should already."""
    manifest = _manifest(config, home)
    closed = closed_labels(config, day, now)
    before = manifest.exports.get(day.isoformat())
    if before is not None and set(closed) <= set(before.closed):
        return None
    manifest.columns = _columns(config, manifest)
    spool = Spool(staging.scratch("spool"), partition_schema(config, manifest.columns), config.timezone)
    rows = sum(_spooled(spool, batch, config, closed) for batch in impressions(engine, config, *_bounds(config, day), now))
    digest = _stage_day(spool, config, home, staging, manifest, day)
    record = ExportRecord((before.revision if before else 0) + 1, rows, list(closed), digest)
    manifest.exports = dict(sorted({**manifest.exports, day.isoformat(): record}.items()))
    stage_tables(engine, config, home, staging, manifest)
    manifest.users, manifest.videos = (count_ids(config, home, staging, manifest, key) for key in ("user_id", "video_id"))
    staging.new(home.logs(config.dataset) / FILE).write_text(manifest.dumps(), encoding="utf-8")
    staging.publish()
    _enter(engine, config, day, record, now)
    with reading(engine) as connection:
        unfit = sa.select(sa.func.count()).where(*_of_day(config, day), served.c.rebuildable.is_(False))
        skipped = connection.execute(unfit).scalar_one()
    return Exported(config.dataset, day, record.revision, rows, closed, digest, skipped)


def _manifest(config: Config, home: Home) -> Manifest:
    settings = settings_of(config)
    manifest = load_manifest(home, config.dataset)
    if manifest is None:
        return Manifest(config.dataset, settings)
    if changed := changed_settings(manifest.settings, settings):
        raise ConfigError(
            f"dataset {config.dataset!r} was made with other settings ({', '.join(changed)} changed): name another dataset; "
            f"all days that are still in the database will be exported into it"
        )
    return manifest


def _columns(config: Config, manifest: Manifest) -> list[str]:
    """Those of the dataset so far and of what we served. Where positions so far are ordinals of sessions, they stay so."""
    ours = {*LOG_COLUMNS, "seen_at", *config.log.context, *config.labels, *(f"{name}_visible_at" for name in config.labels)}
    if config.log.session_gap is not None and manifest.columns and "position" not in manifest.columns:
        ours -= {"position"}
    return [name for name in log_schema(config).names if name in {*manifest.columns, *ours}]


def _spooled(spool: Spool, batch: Batch, config: Config, closed: tuple[str, ...]) -> int:
    """Put impressions into the spool, open labels masked; how many."""
    if not len(batch):
        return 0
    masked = {name for label in config.labels if label not in closed for name in (label, f"{label}_visible_at")}
    nothing = np.full(len(batch), np.nan)
    batch = Batch({name: nothing if name in masked else column for name, column in batch.columns.items()})
    rows = to_table(batch, log_schema(config))
    named = zip(batch.strings("request_id").tolist(), batch.numbers("position").tolist(), strict=True)
    source = pa.array([crc32(f"{request} {position:.0f}".encode()) for request, position in named], pa.uint32())
    spool.add(rows.append_column("source_row", source))
    return len(batch)


def _stage_day(spool: Spool, config: Config, home: Home, staging: Staging, manifest: Manifest, day: date) -> str | None:
    """Stage the partition: what is spooled, and what of it came from files. Its SHA-256, or None where it is empty."""
    target, name = home.day(config.dataset, day), day.isoformat()
    before = manifest.days.get(name)
    if before is None and day not in spool.pieces:
        return None
    manifest.days[name] = write_day(spool, day, config, home, staging, None, before, OursOut())
    manifest.days = dict(sorted(manifest.days.items()))
    if config.log.session_gap is not None and "position" not in manifest.columns and before is None:
        pq.write_table(Sessions(round(config.log.session_gap * 1000)).table(), staging.new(target / SESSIONS_FILE))
    return _sha256(staging.current(target / ROWS_FILE))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _enter(engine: sa.Engine, config: Config, day: date, record: ExportRecord, now: int) -> None:
    """Repeat in the database what the manifest says of a day."""
    path = f"logs/{config.dataset}/day={day}/{ROWS_FILE}"
    facts = {**asdict(record), "path": path, "closed": json_text(record.closed), "exported_at": now}
    row = upsert(engine, exports).values(dataset=config.dataset, day=str(day), **facts)
    with writing(engine) as connection:
        connection.execute(row.on_conflict_do_update(index_elements=["dataset", "day"], set_=facts))


def _mend(engine: sa.Engine, config: Config, manifest: Manifest | None) -> None:
    """Enter the days that were published just before a kill."""
    with reading(engine) as connection:
        entered = sa.select(exports.c.day, exports.c.revision).where(exports.c.dataset == config.dataset)
        known = {row.day: row.revision for row in connection.execute(entered)}
    for name, record in manifest.exports.items() if manifest else ():
        if known.get(name) != record.revision:
            day = parse_day(name)
            _enter(engine, config, day, record, final_at(config, day))
