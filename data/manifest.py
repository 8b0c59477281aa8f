"""``logs/<dataset>/manifest.json``: what the partitions were made from. Holds no clock and no machine paths, so that the
same input gives the same bytes."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data.config import Config
from data.days import parse_day
from data.errors import LogError
from data.home import Home
from data.log import ROWS_FILE
from data.readers.files import SourceFile

FORMAT = 1
FILE = "manifest.json"


@dataclass
class DayFigures:
    """rows: kept. duplicates: dropped, ever. sharing: kept rows that share user, video and time with another.
    labels: per label, how often it was observed and the sum of its values."""

    rows: int = 0
    duplicates: int = 0
    sharing: int = 0
    labels: dict[str, tuple[int, float]] = field(default_factory=dict)

    def count(self, rows: pa.Table, labels: list[str]) -> None:
        self.rows += rows.num_rows
        for name in labels:
            seen, total = self.labels.get(name, (0, 0.0))
            values = rows.column(name)
            self.labels[name] = seen + len(values) - values.null_count, total + (pc.sum(values).as_py() or 0.0)


@dataclass
class SourceRecord:
    """A file that was taken in. read = kept + repeats + set aside."""

    kind: str
    name: str
    size: int
    sha256: str
    rows_read: int
    set_aside: dict[str, int]
    rejected: str | None  # the file with the rows set aside, within rejected/<dataset>

    def is_of(self, file: SourceFile) -> bool:
        return (self.kind, self.sha256) == (file.kind, file.sha256)


@dataclass
class ExportRecord:
    """A day of what we served ourselves, as it was last exported: its rows, the labels whose windows had closed (all others
    are null), and the SHA-256 of the partition's file then."""

    revision: int
    rows: int
    closed: list[str]
    sha256: str | None


@dataclass
class Manifest:
    dataset: str
    settings: dict[str, Any]  # what of the configuration the partitions depend on
    columns: list[str] = field(default_factory=list)  # of the partitions
    sources: list[SourceRecord] = field(default_factory=list)
    days: dict[str, DayFigures] = field(default_factory=dict)
    users: int = 0  # distinct in the log
    videos: int = 0
    tables: dict[str, dict[str, Any]] = field(default_factory=dict)
    exports: dict[str, ExportRecord] = field(default_factory=dict)  # by day
    notes: list[str] = field(default_factory=list)
    format: int = FORMAT

    def dumps(self) -> str:
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"

    @property
    def rows(self) -> int:
        return sum(day.rows for day in self.days.values())


def settings_of(config: Config) -> dict[str, Any]:
    """What of a configuration the partitions depend on: not where files are, nor features, objectives or delays."""
    everything = config.model_dump(mode="json")
    kept: dict[str, Any] = {"format": FORMAT, "timezone": config.timezone}
    kept["log"] = {key: value for key, value in everything["log"].items() if key != "files"}
    for table in ("users", "videos"):
        kept[table] = {key: value for key, value in (everything[table] or {}).items() if key != "files"}
    kept["labels"] = {
        name: {key: value for key, value in label.items() if key != "feedback_delay"}
        for name, label in everything["labels"].items()
    }
    kept["ingest"] = {key: value for key, value in everything["ingest"].items() if key != "max_bad_share"}
    return kept


def load_manifest(home: Home, dataset: str) -> Manifest | None:
    """The manifest, or None where nothing was ever taken in.

    Raises:
        LogError: it is damaged, or there are partitions without one, or it lists days that are gone.
    """
    path = home.logs(dataset) / FILE
    if not path.is_file():
        if any(home.logs(dataset).glob("day=*")):
            raise LogError(
                f"{home.logs(dataset)} has day partitions but no {FILE}: not made by `watchnext ingest`; move them away"
            )
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        values["sources"] = [SourceRecord(**source) for source in values["sources"]]
        values["days"] = {day: _figures(figures) for day, figures in values["days"].items()}
        values["exports"] = {day: ExportRecord(**record) for day, record in values.get("exports", {}).items()}
        manifest = Manifest(**values)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise LogError(f"{path} is damaged ({error}): move {path.parent} away and ingest all sources again") from None
    for day in manifest.days:
        rows = home.day(dataset, parse_day(day)) / ROWS_FILE
        if not rows.is_file():
            raise LogError(f"{rows} is missing: move {path.parent} away and ingest all sources again")
    return manifest


def _figures(values: dict[str, Any]) -> DayFigures:
    values["labels"] = {name: (int(seen), float(total)) for name, (seen, total) in values["labels"].items()}
    return DayFigures(**values)


def changed_settings(old: dict[str, Any], new: dict[str, Any]) -> Sequence[str]:
    """The sections that differ."""
    return [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
