"""Rows set aside: ``rejected/<dataset>/<file>-<checksum>.jsonl``, a line per row with reason, detail, file, row number
and the row as the source has it. Nothing is lost."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa

from data.checks import window
from data.checks.finding import Finding, first_findings
from data.home import Home
from data.readers.chunk import Chunk
from data.readers.files import SourceFile
from data.staging import Staging

EXAMPLES = 3


@dataclass(frozen=True)
class Place:
    """An example of a row set aside."""

    file: str
    row: int
    detail: str

    def __str__(self) -> str:
        return f"{self.file}, row {self.row}: {self.detail}"


@dataclass
class Rejects:
    """Writes the rows of one file that are set aside; counts them by reason and remembers the first of each."""

    file: SourceFile
    target: Path
    staging: Staging
    read: int = 0  # rows looked at
    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[Place]] = field(default_factory=dict)
    _out: IO[str] | None = None

    def add(self, reason: str, detail: str, row: int, text: str) -> None:
        if self._out is None:
            self._out = self.staging.new(self.target).open("w", encoding="ascii")
        line = {"reason": reason, "detail": detail, "file": self.file.name, "row": row, "text": text}
        self._out.write(json.dumps(line) + "\n")
        self.counts[reason] += 1
        places = self.examples.setdefault(reason, [])
        if len(places) < EXAMPLES:
            places.append(Place(self.file.name, row, detail))

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def bad(self) -> int:
        """Rows set aside because something is wrong with them."""
        return self.total - self.counts[window.REASON]

    def close(self) -> None:
        if self._out is not None:
            self._out.close()
            self._out = None


def open_rejects(home: Home, dataset: str, file: SourceFile, staging: Staging) -> Rejects:
    name = "".join(c if c.isalnum() or c in "._-" else "_" for c in file.name)
    return Rejects(file, home.rejected(dataset) / f"{name}-{file.sha256[:12]}.jsonl", staging)


def set_aside(chunk: Chunk, rows: pa.Table, findings: Sequence[Finding], rejects: Rejects) -> pa.Table:
    """The rows that no finding is about; the others go to ``rejects``, with the chunk's damaged lines."""
    for line in chunk.damaged:
        rejects.add(line.reason, line.detail, line.row, line.text)
    first = first_findings(findings, len(chunk))
    bad = np.flatnonzero(first >= 0)
    for row in bad.tolist():
        finding = findings[first[row]]
        rejects.add(finding.reason, finding.detail, int(chunk.rows[row]), chunk.text(row))
    return rows.filter(pa.array(first < 0)) if len(bad) else rows
