"""Which source columns a configuration reads, and the sentence for a column that isn't there."""

from collections.abc import Mapping, Sequence

from data.config import LOG_COLUMNS, ColumnConfig, Config, TableConfig
from data.errors import ConfigError

REQUIRED = ("user_id", "video_id", "timestamp")


def log_plan(config: Config, present: Sequence[str], where: str) -> dict[str, str]:
    """Our name -> the file's, of every column of the log that is read from a file with columns ``present``.

    Required ones, declared context and labels must be there; the other columns of the contract and
    ``<label>_visible_at`` are read where they are (or where ``log.columns`` says so).

    Raises:
        ConfigError: a column is missing; names it, the file and the columns that exist.
    """
    plan: dict[str, str] = {}
    for name in LOG_COLUMNS:
        source = config.log.columns.get(name, name)
        if name in REQUIRED or name in config.log.columns or source in present:
            plan[name] = source
    plan |= _sources(config.log.context)
    plan |= {name: label.source or name for name, label in config.labels.items()}
    _require(plan, present, where)
    for name, label in config.labels.items():
        for source in (f"{name}_visible_at", f"{label.source}_visible_at"):
            if source in present:
                plan.setdefault(f"{name}_visible_at", source)
    return plan


def table_plan(table: TableConfig, key: str, present: Sequence[str], where: str) -> dict[str, str]:
    """The same for a file of the users' (``key`` user_id) or the videos' table."""
    plan = {key: table.key} | ({"valid_from": table.valid_from} if table.valid_from else {}) | _sources(table.columns)
    _require(plan, present, where)
    return plan


def _sources(columns: Mapping[str, ColumnConfig]) -> dict[str, str]:
    return {name: column.source or name for name, column in columns.items()}


def _require(plan: Mapping[str, str], present: Sequence[str], where: str) -> None:
    for name, source in plan.items():
        if source not in present:
            known = "" if source == name else f" (for {name!r})"
            raise ConfigError(f"{where} has no column {source!r}{known}; its columns are: {', '.join(present)}")
