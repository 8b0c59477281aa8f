"""Where produced files live: everything under ``$WATCHNEXT_HOME`` (default ``./var``)."""

import os
from dataclasses import dataclass
from datetime import date
from pathlib import Path


@dataclass(frozen=True)
class Home:
    """The folder layout of DESIGN.md. ``dataset`` and ``name`` are keys of the configuration."""

    root: Path

    @classmethod
    def from_environment(cls) -> "Home":
        return cls(Path(os.environ.get("WATCHNEXT_HOME", "var")).resolve())

    def logs(self, dataset: str) -> Path:
        return self.root / "logs" / dataset

    def day(self, dataset: str, day: date) -> Path:
        return self.logs(dataset) / f"day={day.isoformat()}"

    def rejected(self, dataset: str) -> Path:
        return self.root / "rejected" / dataset

    def runs(self, name: str) -> Path:
        return self.root / "runs" / name

    def registry(self, name: str) -> Path:
        return self.root / "registry" / name

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def benchmarks(self) -> Path:
        return self.root / "benchmarks"
