"""What an ingest did, for a person to read."""

from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

from data.manifest import Manifest
from data.rejected import EXAMPLES, Place, Rejects


@dataclass
class Summary:
    """Counts of this run, and the manifest: the state after it."""

    manifest: Manifest
    files: int = 0  # taken in now
    known: int = 0  # taken in before, left alone
    rows_read: int = 0
    duplicates: int = 0
    log_aside: int = 0
    backwards: int = 0  # rows earlier than the one before them in their file
    unknown: dict[str, int] = field(default_factory=dict)  # rows whose user (video) is not in the table
    set_aside: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[Place]] = field(default_factory=dict)
    rejected: str = ""  # the folder of the rows set aside
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def count(self, rows: Rejects) -> None:
        """Add what was read of a file and set aside."""
        if rows.file.kind == "log":
            self.rows_read += rows.read
            self.log_aside += rows.total
        for reason, number in rows.counts.items():
            name = reason if rows.file.kind == "log" else f"{reason} ({rows.file.kind}' table)"
            self.set_aside[name] = self.set_aside.get(name, 0) + number
            self.examples.setdefault(name, []).extend(rows.examples[reason])

    @property
    def kept(self) -> int:
        """Rows of this run that reached the partitions."""
        return self.rows_read - self.duplicates - self.log_aside

    def print(self, console: Console) -> None:
        if not self.files:
            console.print(f"Nothing new: all {self.known} files were taken in before.")
        else:
            self._print_run(console)
        for note in [*self.notes, *self.manifest.notes]:
            console.print(f"Note: {note}.", markup=False, highlight=False)
        self._print_state(console)

    def _print_run(self, console: Console) -> None:
        speed = f", {self.rows_read / self.seconds:,.0f} rows/s" if self.seconds else ""
        known = f"; {self.known} known files left alone" if self.known else ""
        console.print(f"Read {self.rows_read:,} log rows; {self.files} new files{known} ({self.seconds:.1f} s{speed}).")
        console.print(
            f"Kept {self.kept:,}; dropped {self.duplicates:,} exact repeats; set aside {sum(self.set_aside.values()):,}."
        )
        for reason, count in sorted(self.set_aside.items()):
            console.print(f"  {reason}: {count:,}")
            for place in self.examples.get(reason, [])[:EXAMPLES]:
                console.print(f"    {place}", markup=False, highlight=False)
        if self.set_aside:
            console.print(f"  The rows are in {self.rejected}", markup=False, highlight=False)
        if self.backwards:
            console.print(f"{self.backwards:,} rows were out of time order in their file; partitions are sorted.")
        for key, count in self.unknown.items():
            console.print(f"{count:,} rows have a {key} that is not in the table of {key.removesuffix('_id')}s.")

    def _print_state(self, console: Console) -> None:
        m = self.manifest
        span = f"{min(m.days)} to {max(m.days)}" if m.days else "none"
        size = f"{m.rows:,} impressions, {len(m.days)} days ({span}), {m.users:,} users, {m.videos:,} videos"
        console.print(f"Dataset {m.dataset}: {size}.")
        sharing = sum(day.sharing for day in m.days.values())
        if sharing:
            console.print(f"{sharing:,} rows share user, video and time with another and differ; all were kept.")
        table = Table("label", "observed", "mean", "above 0 or sum")
        for name, (seen, total) in label_totals(m).items():
            table.add_row(name, f"{seen:,}", f"{total / seen:.5g}" if seen else "none observed", f"{total:,.0f}")
        console.print(table)


def label_totals(manifest: Manifest) -> dict[str, tuple[int, float]]:
    """Per label, how often it was observed and the sum of its values, over all days."""
    totals: dict[str, tuple[int, float]] = {}
    for day in manifest.days.values():
        for name, (seen, total) in day.labels.items():
            before = totals.get(name, (0, 0.0))
            totals[name] = before[0] + seen, before[1] + total
    return totals
