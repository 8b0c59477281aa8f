"""KuaiRand (Gao et al., CIKM 2022; https://kuairand.com) in its official file format, a slice or a full release.

The general reader does the work; here are the release's file and column names, filled in where the configuration
leaves them out, and its traps:

- ``video_features_statistic_*`` holds averages over the whole month, the test days included: a leak. Found, it is
  left alone; configured, it is an error. Counts are built from the log, point in time.
- Pure, 1K and 27K number their users and videos differently and can't be mixed.
- ``date`` and ``hourmin`` lag ``time_ms`` and are not read. ``is_rand`` marks the random-exposure rows.
"""

from collections.abc import Sequence
from pathlib import Path

from data.config import Config, TableConfig
from data.errors import ConfigError, LogError
from data.readers.files import SourceFile, candidates

COLUMNS = {"timestamp": "time_ms", "is_exploration": "is_rand"}
LOG_FILES = ("log_*_pure.csv", "log_*_1k.csv", "log_*_27k*.csv")
UNKNOWN = {"is_live_streamer": ("-124",)}
LEAK = "video_features_statistic"
WHY = "averages over the whole month, test days included: a leak"
VARIANTS = ("pure", "1k", "27k")


def complete(config: Config) -> Config:
    """The configuration with the release's names where it has none of its own.

    Raises:
        ConfigError: it names the statistics file as a source.
    """
    for table in (config.users, config.videos):
        for pattern in table.files if table else ():
            if "statistic" in pattern:
                raise ConfigError(f"{pattern!r} is refused as a source of features: {LEAK}_* {WHY}")
    log = config.log
    columns = {**COLUMNS, **log.columns}
    files = LOG_FILES if "files" not in log.model_fields_set else log.files
    return config.model_copy(
        update={
            "log": log.model_copy(update={"columns": columns, "files": files}),
            "users": _with_nulls(config.users),
            "videos": _with_nulls(config.videos),
        }
    )


def _with_nulls(table: TableConfig | None) -> TableConfig | None:
    if table is None:
        return None
    columns = {
        name: column.model_copy(update={"null": UNKNOWN.get(column.source or name, ())}) if not column.null else column
        for name, column in table.columns.items()
    }
    return table.model_copy(update={"columns": columns})


def choose(files: Sequence[SourceFile], sources: Sequence[Path]) -> tuple[list[SourceFile], list[str]]:
    """The files to read, and what to tell of the others.

    Raises:
        LogError: files of more than one variant, or no log among them.
    """
    leaks = sorted({name for source in sources for name, _ in candidates(source) if LEAK in name})
    chosen = [file for file in files if LEAK not in file.name]
    variants = {v for v in VARIANTS for file in chosen if f"_{v}." in file.name or f"_{v}_" in file.name}
    if len(variants) > 1:
        raise LogError(
            f"files of KuaiRand {' and '.join(sorted(variants))} together: their ids mean different users and videos"
        )
    if not any(file.kind == "log" for file in chosen):
        raise LogError(f"no log files: {', '.join(leaks)} {WHY}")
    notes = [f"{name} is left alone, it {WHY}" for name in leaks]
    return chosen, notes
