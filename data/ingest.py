"""``watchnext ingest``: from a team's files to checked day partitions.

Reads top to bottom in :func:`ingest`. Nothing in place is touched before everything new is written (data/staging.py);
files already taken in are known by their content and left alone, so that a second run changes nothing.
"""

import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from data.config import Config
from data.days import parse_day
from data.errors import ConfigError, LogError
from data.home import Home
from data.labels import with_visible_at
from data.log_rows import LogReader, source_columns
from data.manifest import FILE, Manifest, SourceRecord, changed_settings, load_manifest, settings_of
from data.partition import count_ids, partition_schema, write_days
from data.readers import kuairand
from data.readers.files import SourceFile, discover
from data.rejected import Rejects, open_rejects
from data.requests import rejoin
from data.spool import Spool
from data.staging import Staging, open_staging
from data.summary import Summary
from data.tables import write_tables

MOSTLY = 0.5
"""A single file with more than this share of bad rows stops the run, whatever the others hold."""
PROXY = "position is a proxy: the ordinal of an impression within the user's session ({:g} s without one end it)"


def ingest(config: Config, sources: Sequence[Path], home: Home, console: Console, now: int | None = None) -> Summary:
    """Take the files of SOURCES into ``logs/<dataset>``.

    Args:
        now: the time in milliseconds against which the future is judged; default: the clock's.

    Raises:
        ConfigError: the configuration doesn't fit the files, or not what was taken in before.
        LogError: no files, unreadable ones, no rows, or too many bad ones. Nothing in place has changed.
    """
    started = time.monotonic()
    config, files, notes = _discover(config, sources)
    with open_staging(home, config.dataset) as staging:
        before = load_manifest(home, config.dataset)
        manifest, new = _what_is_new(config, files, before)
        summary = Summary(
            manifest, len(new), len(files) - len(new), rejected=str(home.rejected(config.dataset)), notes=notes
        )
        if not new:
            return summary
        rejects = {file: open_rejects(home, config.dataset, file, staging) for file in new}
        known = write_tables(config, home, staging, manifest, rejects)
        plans = source_columns(config, manifest, new, notes)
        reader = LogReader(config, known, int(time.time() * 1000) if now is None else now, summary)
        spool = Spool(staging.scratch("spool"), partition_schema(config, manifest.columns), config.timezone)
        with _progress(console) as progress:
            task = progress.add_task("reading", total=sum(file.size for file in plans))
            behind = 0
            for file, plan in plans.items():
                for rows, position in reader.read(file, plan, rejects[file]):
                    spool.add(with_visible_at(rows, config))
                    progress.update(task, completed=behind + position, description=f"reading {escape(file.name)}")
                behind += file.size
            progress.update(task, completed=behind, description="reading")
            _record(manifest, rejects, summary)
            _stop_if_bad(config, rejects)
            if not (spool.pieces or manifest.days):
                raise LogError(_no_rows(rejects))
            leaving = rejoin(spool, config, home, [parse_day(day) for day in manifest.days])
            writing = write_days(spool, config, home, staging, manifest, leaving)
            days = progress.track(writing, len({*spool.pieces, *leaving}), description="writing days")
            summary.duplicates = sum(dropped for _, dropped in days)
        manifest.users, manifest.videos = (
            count_ids(config, home, staging, manifest, key) for key in ("user_id", "video_id")
        )
        _describe(config, manifest)
        _replace(before, manifest, home, staging)
        staging.new(home.logs(config.dataset) / FILE).write_text(manifest.dumps(), encoding="utf-8")
        staging.publish()
    summary.seconds = time.monotonic() - started
    return summary


def _discover(config: Config, sources: Sequence[Path]) -> tuple[Config, list[SourceFile], list[str]]:
    if config.reader == "kuairand":
        config = kuairand.complete(config)
        return config, *kuairand.choose(discover(config, sources), sources)
    return config, discover(config, sources), []


def _what_is_new(config: Config, files: Sequence[SourceFile], before: Manifest | None) -> tuple[Manifest, list[SourceFile]]:
    """The manifest to extend, and the files to take in: those not in it; all, if the settings changed and all are here.

    Raises:
        ConfigError: the partitions were made with other settings, and not all of their sources are here; or a file
            changed and repeated rows are to be kept, so that what it held before can't be told from what it holds now.
    """
    settings = settings_of(config)
    fresh = Manifest(config.dataset, settings)
    if before is None:
        return fresh, list(files)
    changed = changed_settings(before.settings, settings)
    if changed and before.exports:
        raise ConfigError(
            f"dataset {config.dataset!r} was made with other settings ({', '.join(changed)} changed), and holds days of "
            f"what was served, which no source can rebuild: name another dataset"
        )
    if changed:
        lost = [source.name for source in before.sources if not any(source.is_of(file) for file in files)]
        if lost:
            raise ConfigError(
                f"dataset {config.dataset!r} was taken in with other settings ({', '.join(changed)} changed). "
                f"To rebuild it, give all of its sources; missing: {', '.join(lost[:5])}{' ...' if len(lost) > 5 else ''}. "
                f"Or name another dataset"
            )
        return fresh, list(files)
    new = [file for file in files if not any(source.is_of(file) for source in before.sources)]
    names = {source.name for source in before.sources if source.kind == "log"}
    regrown = [file.name for file in new if file.kind == "log" and file.name in names]
    if regrown and config.ingest.duplicates == "keep":
        raise ConfigError(
            f'{regrown[0]} was taken in before with other content: ingest.duplicates = "keep" would take its rows in twice'
        )
    return before, new


def _record(manifest: Manifest, rejects: dict[SourceFile, Rejects], summary: Summary) -> None:
    """Enter the new files, and sum up what was set aside."""
    for file, rows in rejects.items():
        rows.close()
        counts = dict(sorted(rows.counts.items()))
        name = rows.target.name if counts else None
        manifest.sources.append(SourceRecord(file.kind, file.name, file.size, file.sha256, rows.read, counts, name))
        summary.count(rows)
    manifest.sources.sort(key=lambda source: (source.kind, source.name, source.sha256))


def _stop_if_bad(config: Config, rejects: dict[SourceFile, Rejects]) -> None:
    """Raise when too much is bad: of the log, of a table, or, of any one file, most."""
    for kind in ("log", "users", "videos"):
        of_kind = [rows for file, rows in rejects.items() if file.kind == kind]
        read, bad = sum(rows.read for rows in of_kind), sum(rows.bad for rows in of_kind)
        if bad > config.ingest.max_bad_share * read:
            raise LogError(_too_bad(f"{bad:,} of {read:,} {kind} rows", config.ingest.max_bad_share, of_kind))
        for rows in of_kind:
            if rows.bad > max(MOSTLY, config.ingest.max_bad_share) * rows.read:
                raise LogError(_too_bad(f"{rows.bad:,} of {rows.read:,} rows of {rows.file.path}", MOSTLY, [rows]))


def _too_bad(what: str, allowed: float, rejects: Sequence[Rejects]) -> str:
    lines = [
        f"{what} are bad, more than the {allowed:.0%} allowed (ingest.max_bad_share); nothing was changed. For example:"
    ]
    for rows in rejects:
        for reason, places in rows.examples.items():
            lines += [f"  {reason} ({rows.counts[reason]:,}): {place}" for place in places[:1]]
    return "\n".join(lines[:12])


def _no_rows(rejects: dict[SourceFile, Rejects]) -> str:
    log = [rows for file, rows in rejects.items() if file.kind == "log"]
    aside = sum(rows.total for rows in log)
    what = f"all {aside:,} rows were set aside" if aside else "they are empty"
    return f"no impressions in {', '.join(str(rows.file.path) for rows in log[:5])}: {what}"


def _describe(config: Config, manifest: Manifest) -> None:
    """What a reader of the figures must know."""
    notes = []
    if config.log.session_gap is not None and "position" not in manifest.columns:
        notes.append(PROXY.format(config.log.session_gap))
    for which, table in (("users", config.users), ("videos", config.videos)):
        if table and not table.valid_from:
            notes.append(f"the {which}' table is undated: a row holds for all times")
    manifest.notes = notes


def _replace(before: Manifest | None, manifest: Manifest, home: Home, staging: Staging) -> None:
    """Of a dataset that is rebuilt, have removed what the new one doesn't have."""
    if before is None or before is manifest:
        return
    logs = home.logs(manifest.dataset)
    for path in [*logs.glob("day=*/*.parquet"), *logs.glob("*.parquet"), *home.rejected(manifest.dataset).glob("*.jsonl")]:
        staging.delete(path)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), console=console
    )
