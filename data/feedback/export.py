"""``watchnext export``: days of what was served, once final, as day partitions; exactly once, resumable."""

from dataclasses import dataclass
from datetime import date

from rich.console import Console

from data.config import Config
from data.home import Home


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


def export_days(config: Config, home: Home, now: int, console: Console) -> list[Exported]:
    """Publish every day that has become final, and again those where more labels closed since. Returns these, in order.

    Raises:
        WatchNextError: the database can't be read, the dataset is held by another process or was made with other
            settings. A second call goes on where the first was stopped.
    """
    raise NotImplementedError
