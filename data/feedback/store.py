"""What was served and what came back, on disk and in memory: the one door for the service.

A time is stamped, the memory changed and the row queued under one lock, in that order. So whoever takes a time t from
:meth:`Feedback.now` and then reads a profile finds every event with ``received_at`` < t; and since the queue is written in
order, a served slate that is on disk builds on no event that is not.
"""

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from pathlib import Path

import sqlalchemy as sa
import structlog

from data.columns import Batch
from data.config import Config
from data.database import create_tables, reading
from data.errors import WatchNextError
from data.feedback.commit import counts_of, write_group
from data.feedback.events import Event, Fate, Rules
from data.feedback.memory import Memory, User
from data.feedback.on_disk import OnDisk
from data.feedback.outcomes import log_rows
from data.feedback.queue import Operation, WriteQueue
from data.feedback.requests import Happened, Piece, Request, Sight, joined
from data.feedback.rows import event_row, known_events, read_requests, requests_by_id, served_row, users_by_request
from data.feedback.schema import served as served_table
from data.feedback.served import Served
from data.feedback.writers import close_writer, ledger_folder, open_writer, read_counts

Clock = Callable[[], int]

REMEMBERED = 200_000
"""Event ids that are known without asking the database: far more than can come while one batch is looked at."""
TRIES = 5
"""How often what was read from the database may be outrun by what is forgotten in memory."""

PATIENCE = 60
"""Seconds that a caller waits for the disk. What is confirmed later is a duplicate when it is sent again."""

log = structlog.get_logger()


class FeedbackError(WatchNextError):
    """Nothing of the batch was accepted: the disk is full, the database locked, too much is waiting, or there is no
    configuration yet. The same batch may be sent again."""


class Feedback:
    """Takes in served slates and events; answers with users' profiles. Any number of threads may share it.

    One process owns the profiles. It can be closed once; what is queued is written first.

    Args:
        config_of: the configuration that serves now, or None.
        clock: ms since the epoch, UTC.
        maximum_queue: served slates and event batches that may wait for the disk; a kill loses no more slates.
        ledger: the folder where the number of slates taken in is kept (data/feedback/ledger.py); default: beside the
            SQLite file, and none with another database.
        memory: what is kept of users in memory, in served items (data/feedback/memory.py).
    """

    def __init__(
        self,
        engine: sa.Engine,
        config_of: Callable[[], Config | None],
        clock: Clock,
        *,
        maximum_queue: int = 10_000,
        ledger: Path | None = None,
        memory: int = 500_000,
    ) -> None:
        create_tables(engine)  # it may have been opened before these tables were known
        self._engine, self._config_of, self._clock = engine, config_of, clock
        self._lock = threading.RLock()
        self._last = clock()
        self._on_disk = OnDisk()
        self._on_disk.start(engine)
        self._memory = Memory(memory, self._on_disk)
        self._remembered: OrderedDict[str, None] = OrderedDict()
        self._rules: Rules | None = None
        self._sight: tuple[Config, Sight] | None = None
        self._unsure: list[tuple[int, int]] = []
        self._dropped = self._told = 0  # slates that never reached the queue or the disk; of these, being written down
        self._writer, self._ledger = open_writer(engine, ledger or ledger_folder(engine), self._last)
        self._counts = Counter(read_counts(engine))
        self._queue = WriteQueue(engine, self._write, self._settle, self._lock, maximum_queue)
        self._queue.start()

    def now(self) -> int:
        """The clock, never going back: take a request's time from it before reading the profile."""
        with self._lock:
            self._last = max(self._last, self._clock())
            return self._last

    def log_served(self, served: Served) -> None:
        """Queue a slate for the disk. Never waits for it and never raises; what doesn't fit is dropped and counted. Call
        it before the answer leaves, so that no event can come before it."""
        row = served_row(served)
        with self._lock:
            if self._ledger is not None and not self._queue.closed:
                self._ledger.add()
            if self._queue.closed or self._queue.full or served.request_id in self._memory.requests:
                self._dropped += 1
                return
            stamp = self.now()
            rebuildable = served.rebuildable and served.timestamp <= stamp and not self._is_unsure(served.timestamp)
            self._memory.adopt(Request.of(served, stamp, rebuildable))
            user = self._memory.pin((served.name, served.user_id))
            counts = {"served.logged": 1} | ({} if rebuildable else {"served.not_rebuildable": 1})
            row |= {"answered_at": stamp, "rebuildable": rebuildable}
            self._queue.put(Operation(stamp, (row, served), (), counts, [user]))

    def accept(self, events: Sequence[Event]) -> list[Fate]:
        """The fate of each event, in order, once all that is to be kept is on disk.

        Raises:
            FeedbackError: nothing of it was accepted.
        """
        config = self._config_of()
        if config is None:
            raise FeedbackError("there is no configuration yet by which events could be judged: no bundle serves")
        done: Future[None] = Future()
        try:
            fates = self._take_in(config, events, done)
            done.result(PATIENCE)
        except WatchNextError as error:
            raise FeedbackError(f"the events were not accepted: {error}") from error
        except TimeoutError:
            raise FeedbackError(f"the disk has not confirmed the events within {PATIENCE} s: send them again") from None
        return fates

    def profile(self, name: str, user_id: str, since_ms: int, as_of: int, config: Config | None = None) -> Batch | None:
        """The user's impressions of requests at or after ``since_ms`` as known just before ``as_of``, as rows of the log
        (for ``RequestEncoder.request(history=...)``); None where there are none. What can't be rebuilt is left out, as in
        an export. ``config``: default the one that serves.

        Raises:
            FeedbackError: the database cannot be read.
        """
        config = config or self._config_of()
        if config is None:
            return None
        pieces = [pair for pair in self._pieces(config, name, user_id, since_ms) if pair[0].rebuildable]
        rows = log_rows(config, *joined(pieces), as_of) if pieces else None
        return rows if rows is not None and len(rows) else None

    def at_hand(self, name: str, user_id: str, since_ms: int) -> bool:
        """Whether :meth:`profile` and :meth:`seen` have no need of the database now."""
        with self._lock:
            return self._memory.at_hand((name, user_id), since_ms)

    def seen(self, name: str, user_id: str, since_ms: int) -> set[str]:
        """Ids of the videos that the user had impressions of, of requests at or after ``since_ms``."""
        config = self._config_of()
        if config is None:
            return set()
        return set().union(*(piece.seen for _, piece in self._pieces(config, name, user_id, since_ms)))

    def users_of(self, request_ids: Sequence[str]) -> Mapping[str, str]:
        """The users of those of the requests that are on disk.

        Raises:
            FeedbackError: the database cannot be read.
        """
        try:
            with reading(self._engine) as connection:
                return users_by_request(connection, request_ids)
        except WatchNextError as error:
            raise FeedbackError(f"the requests cannot be read: {error}") from error

    @property
    def dropped(self) -> int:
        """Slates that were dropped, which the database does not know of yet."""
        return self._dropped

    def counters(self, dropped_elsewhere: int | None = None) -> Mapping[str, int]:
        """All counts, those not yet on disk included.

        Args:
            dropped_elsewhere: what other processes that write too :attr:`dropped`; the rest is then read from the database.

        Raises:
            DatabaseError: it can't be read.
        """
        if dropped_elsewhere is not None:
            stored = read_counts(self._engine)
            return {**stored, "served.dropped": stored.get("served.dropped", 0) + self._dropped + dropped_elsewhere}
        with self._lock:
            dropped = self._counts["served.dropped"] + self._dropped
            return {**self._counts, "served.dropped": dropped}

    def close(self) -> None:
        """Write what is queued and stop."""
        if self._queue.closed:
            return
        self._queue.close()
        self._on_disk.close()
        close_writer(self._engine, self._writer, self._ledger, self._dropped, self.now())

    def _take_in(self, config: Config, events: Sequence[Event], done: "Future[None]") -> list[Fate]:
        """Judge a batch, remember and queue it. What the database has to say is read first, without the lock; with it at the
        last try, which nothing can outrun."""
        wanted = {event.request_id for event in events}
        for left in reversed(range(TRIES)):
            with self._lock if not left else nullcontext():
                with self._lock:
                    epoch, missing = self._memory.epoch, wanted - self._memory.requests.keys()
                with reading(self._engine) as connection:
                    found = requests_by_id(connection, missing) if missing else []
                    known = known_events(connection, {event.event_id for event in events})
                with self._lock:
                    if self._memory.epoch != epoch:
                        continue
                    if self._queue.full or self._queue.closed:
                        why = "the service is stopping" if self._queue.closed else "too much waits for the disk"
                        raise FeedbackError(why)
                    for request in found:
                        self._memory.adopt(request)
                    return self._judge(config, events, known, done)
        raise AssertionError

    def _judge(self, config: Config, events: Sequence[Event], known: set[str], done: "Future[None]") -> list[Fate]:
        if self._rules is None or self._rules.config is not config:
            self._rules = Rules(config)
        stamp, counts, pins = self.now(), Counter[str](), list[User]()
        rows, fates = [], []
        for event in events:
            request = self._memory.requests.get(event.request_id)
            fate = self._fate(event, request, known, stamp)
            fates.append(fate)
            counts.update(_counted(fate))
            if fate.status in ("duplicate", "rejected"):
                continue
            self._remember(event.event_id)
            ours = request is not None and fate.status != "orphan"
            if request is not None and ours:
                happened = Happened(event.event_id, event.video_id, event.type, event.value, stamp)
                request.add(happened)
                pins.append(self._memory.pin((request.name, request.user_id)))
            rows.append(event_row(event, fate, request.user_id if request is not None and ours else event.user_id, stamp))
        self._queue.put(Operation(stamp, None, rows, dict(counts), pins, done))
        return fates

    def _fate(self, event: Event, request: Request | None, known: set[str], stamp: int) -> Fate:
        assert self._rules is not None
        if event.event_id in known or event.event_id in self._remembered:
            return Fate(event.event_id, "duplicate")
        return self._rules.judge(event, request, stamp)

    def _remember(self, event_id: str) -> None:
        self._remembered[event_id] = None
        if len(self._remembered) > REMEMBERED:
            self._remembered.popitem(last=False)

    def _pieces(self, config: Config, name: str, user_id: str, since: int) -> list[tuple[Request, Piece]]:
        """The user's requests at or after ``since``, as they are now."""
        key, sight = (name, user_id), self._sight_of(config)
        with self._lock:
            if self._memory.knows_nothing(key):
                return []
            user = self._memory.pin(key)
            self._memory.complete(user, key)
        try:
            while True:
                with self._lock:
                    if user.at_hand(since):
                        self._memory.trim(user, since)
                        return [(r, r.piece(sight)) for r in user.requests.values() if r.timestamp >= since]
                user = self._read(user, key, since)
        finally:
            with self._lock:
                user.pinned -= 1

    def _sight_of(self, config: Config) -> Sight:
        """Worked out once for the configuration that serves: every request asks for it."""
        known = self._sight
        if known is None or known[0] is not config:
            known = self._sight = config, Sight.of(config)
        return known[1]

    def _read(self, user: User, key: tuple[str, str], since: int) -> User:
        """Complete a pinned user from the database; returns the one in memory, pinned in its place."""
        of_user = sa.and_(served_table.c.name == key[0], served_table.c.user_id == key[1], served_table.c.timestamp >= since)
        try:
            with reading(self._engine) as connection:
                requests = read_requests(connection, of_user)
        except WatchNextError as error:
            raise FeedbackError(f"the profile cannot be read: {error}") from error
        with self._lock:
            now = self._memory.user(key)
            if now is not user:  # all was forgotten in the meantime: what was read may lack what came since
                user.pinned -= 1
                now.pinned += 1
                return now
            for request in requests:
                self._memory.adopt(request)
            user.since = since if user.since is None else min(since, user.since)
            self._memory.shrink()
            return user

    def _is_unsure(self, timestamp: int) -> bool:
        """Whether a request of that time may have read events that then did not reach the disk."""
        return any(first < timestamp <= last for first, last in self._unsure)

    def _write(self, connection: sa.Connection, group: Sequence[Operation]) -> None:
        """A group's rows and counts, in the open transaction."""
        with self._lock:
            self._told = self._dropped
        write_group(connection, self._engine, group, self._writer, self._told)

    def _settle(self, group: Sequence[Operation], error: Exception | None) -> None:
        """After a group's end; the lock is held. What was not written must not be remembered either."""
        if error is None:
            self._counts += counts_of(group, self._told)
            self._dropped -= self._told
            for op in group:
                for user in op.pins:
                    user.pinned -= 1
            self._memory.shrink()
            return
        log.error("feedback was not written", error=str(error), operations=len(group))
        self._dropped += sum(op.slate is not None for op in group)
        self._memory.forget_all()
        self._remembered.clear()
        self._unsure = [*self._unsure[-99:], (min(op.stamp for op in group), self.now())]


def _counted(fate: Fate) -> list[str]:
    """The counters that an event's fate adds to."""
    return [f"events.{fate.status}", *([f"events.{fate.status}.{fate.reason}"] if fate.reason else [])]
