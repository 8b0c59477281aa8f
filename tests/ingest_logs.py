"""Small logs written by hand, and their configuration."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from data.config import Config, parse_config
from data.home import Home
from data.ingest import ingest
from data.summary import Summary

NOW = 1_710_000_000_000
"""The clock of the tests: 2024-03-09 16:00 UTC."""
T0 = 1_709_251_200_000
"""2024-03-01 00:00 UTC."""
DAY = 86_400_000
HEADER = "user_id,video_id,timestamp,tab,click,watch"


def log_config(**changes: Any) -> Config:
    """A log with a tab, a click and a watch time in seconds; ``changes`` replace or extend sections."""
    values: dict[str, Any] = {
        "name": "hand",
        "dataset": "hand",
        "seed": 1,
        "log": {"context": {"tab": {"type": "category"}}},
        "labels": {"click": {"type": "binary"}, "watch": {"type": "number", "minimum": 0, "maximum": 3600}},
        "features": [{"kind": "category", "name": "user", "column": "user_id"}],
        "objectives": [{"name": "click", "family": "engagement", "label": "click", "kind": "binary"}],
    }
    for key, change in changes.items():
        old = values.get(key)
        values[key] = {**old, **change} if isinstance(old, dict) and isinstance(change, dict) else change
    return parse_config(values, "hand")


def write_lines(path: Path, *lines: str, end: str = "\n") -> Path:
    """A text file of these lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + end, encoding="utf-8")
    return path


def row(user: str = "u1", video: str = "v1", time: int = 0, tab: str = "a", click: str = "0", watch: str = "1.5") -> str:
    """A line under HEADER, ``time`` milliseconds after T0."""
    return f"{user},{video},{T0 + time},{tab},{click},{watch}"


def good_rows(count: int, user: str = "u1") -> list[str]:
    """Rows a minute apart, each of its own video."""
    return [row(user, f"v{i}", 60_000 * i) for i in range(count)]


def run(config: Config, home: Path, *sources: Path) -> Summary:
    return ingest(config, list(sources), Home(home), Console(quiet=True), now=NOW)


def rejected(home: Path, dataset: str = "hand") -> list[Mapping[str, Any]]:
    """All rows set aside, in the order of their files and rows."""
    files: Sequence[Path] = sorted((home / "rejected" / dataset).glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]
