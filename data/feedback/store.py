"""What was served and what came back, on disk and in memory: the one door for the service."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import sqlalchemy as sa

from data.columns import Batch
from data.config import Config
from data.errors import WatchNextError
from data.feedback.events import Event, Fate
from data.feedback.served import Served

Clock = Callable[[], int]


class FeedbackError(WatchNextError):
    """Nothing of the batch was accepted: the disk is full, the database locked, too much is waiting, or there is no
    configuration yet. The same batch may be sent again."""


class Feedback:
    """Takes in served slates and events; answers with users' profiles. Any number of threads may share it.

    One process owns the profiles. It can be closed once; what is queued is written first.

    Args:
        config_of: the configuration that serves now, or None.
        clock: ms since the epoch, UTC.
        maximum_queue: served slates and event batches that may wait for the disk.
        ledger: the folder where the number of slates taken in is kept (data/feedback/ledger.py); default: beside the
            SQLite file, and none with another database.
    """

    def __init__(
        self,
        engine: sa.Engine,
        config_of: Callable[[], Config | None],
        clock: Clock,
        *,
        maximum_queue: int = 10_000,
        ledger: Path | None = None,
    ) -> None:
        raise NotImplementedError

    def now(self) -> int:
        """The clock, never going back: take a request's time from it before reading the profile."""
        raise NotImplementedError

    def log_served(self, served: Served) -> None:
        """Queue a slate for the disk. Never waits and never raises; what doesn't fit is dropped and counted. Call it
        before the answer leaves, so that no event can come before it."""
        raise NotImplementedError

    def accept(self, events: Sequence[Event]) -> list[Fate]:
        """The fate of each event, in order, once all that is to be kept is on disk.

        Raises:
            FeedbackError: nothing of it was accepted.
        """
        raise NotImplementedError

    def profile(self, name: str, user_id: str, since_ms: int, as_of: int) -> Batch | None:
        """The user's impressions of requests at or after ``since_ms`` as known just before ``as_of``, as rows of the log
        (for ``RequestEncoder.request(history=...)``); None where there are none.

        Raises:
            FeedbackError: the database cannot be read.
        """
        raise NotImplementedError

    def seen(self, name: str, user_id: str, since_ms: int) -> set[str]:
        """Ids of the videos that the user had impressions of, of requests at or after ``since_ms``."""
        raise NotImplementedError

    def counters(self) -> Mapping[str, int]:
        """All counts, those not yet on disk included."""
        raise NotImplementedError

    def close(self) -> None:
        """Write what is queued and stop."""
        raise NotImplementedError
