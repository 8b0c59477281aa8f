"""The log's rows, read and checked: what passes every check goes on, the rest is set aside."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from data.checks import label_before_impression, order, ranges, types, unknown_ids, window
from data.checks.finding import Finding
from data.config import Config
from data.errors import ConfigError
from data.log import log_schema
from data.manifest import Manifest
from data.readers.ahead import ahead
from data.readers.files import SourceFile
from data.readers.plan import log_plan
from data.readers.table import column_names, read_chunks
from data.rejected import Rejects, set_aside
from data.summary import Summary


def source_columns(
    config: Config, manifest: Manifest, files: Sequence[SourceFile], notes: list[str]
) -> dict[SourceFile, dict[str, str]]:
    """For each log file that isn't empty, our name -> the file's of every column that is read. The manifest then lists
    the columns of all sources.

    Raises:
        ConfigError: a column is missing; or positions come where those so far were counted in sessions.
    """
    plans: dict[SourceFile, dict[str, str]] = {}
    for file in files:
        if file.kind == "log":
            names = column_names(file.path)
            if names:
                plans[file] = log_plan(config, names, str(file.path))
            else:
                notes.append(f"{file.name} is empty")
    present = {*manifest.columns}.union(*plans.values())
    if config.log.session_gap is not None and manifest.columns and "position" in present - {*manifest.columns}:
        raise ConfigError(
            f"positions so far were counted in sessions (log.session_gap), but {files[0].path.parent} has a position column"
        )
    manifest.columns = [name for name in log_schema(config).names if name in present]
    return plans


@dataclass
class LogReader:
    """Reads files and checks their rows.

    Attributes:
        known: the ids of the users' and videos' tables, by key.
        now: milliseconds, against which the future is judged.
        summary: gets the rows out of order and those with unknown ids.
    """

    config: Config
    known: Mapping[str, pa.Array]
    now: int
    summary: Summary

    def read(self, file: SourceFile, plan: Mapping[str, str], rejects: Rejects) -> Iterator[tuple[pa.Table, int]]:
        """The good rows of a file, chunk by chunk, and how far into the file each reaches (bytes)."""
        previous: int | None = None
        for chunk in ahead(read_chunks(file.path, list(dict.fromkeys(plan.values())))):
            rejects.read += len(chunk) + len(chunk.damaged)
            rows, findings = types.log_rows(chunk.columns, plan, self.config)
            findings += self._check(rows)
            rows = set_aside(chunk, rows.append_column("source_row", pa.array(chunk.digests)), findings, rejects)
            if rows.num_rows:
                times = rows.column("timestamp").to_numpy()
                self.summary.backwards += order.count_backwards(times, previous)
                previous = int(times[-1])
                yield rows, chunk.bytes_read

    def _check(self, rows: pa.Table) -> list[Finding]:
        config = self.config
        return [
            *order.check(rows, config.ingest.min_timestamp, self.now),
            *ranges.check_log(rows, config),
            *label_before_impression.check(rows, config.labels),
            *window.check(rows, config),
            *self._unknown(rows),
        ]

    def _unknown(self, rows: pa.Table) -> Iterator[Finding]:
        for key, known in self.known.items():
            missing = unknown_ids.missing(rows, key, known)
            if self.config.ingest.unknown_ids == "reject":
                yield Finding(unknown_ids.REASON, f"{key}: not in the table", missing)
            elif missing.any():
                self.summary.unknown[key] = self.summary.unknown.get(key, 0) + int(missing.sum())
