"""Videos that came through the API, kept and laid over whichever bundle answers; and those taken down."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any, Literal
from weakref import ReferenceType, ref

import numpy as np
import orjson
import sqlalchemy as sa

from data.database import reading, upsert, writing
from data.feedback.schema import catalogue, takedowns
from service.overlay import Rows, VideoRow, bundled, lay, pending
from service.serving import Serving

Stored = Literal["stored", "unchanged", "taken_down"]
ROWS_AT_ONCE = 500
Stamp = tuple[Any, ...]
"""Of the tables' contents: differs once a process has changed them."""
FOREVER = int(np.iinfo(np.int64).max)


@dataclass(frozen=True)
class Known:
    """All that came through the API, at one moment. ``rows`` of a video are in order of time."""

    rows: Mapping[str, tuple[VideoRow, ...]]
    taken_down: Mapping[str, int]


@dataclass(frozen=True)
class Laid:
    """A bundle in use, the rows that it lacks, and what answers in its place (None: itself, which mustn't be kept alive)."""

    below: "ReferenceType[Serving]"
    pending: Rows
    laid: Serving | None


class LiveVideos:
    """Keeps the catalogue's tables and lays them over bundles. A change is on disk, and in the next request, before its
    call returns; changes of other processes come with :meth:`load`."""

    def __init__(self, engine: sa.Engine, clock: Callable[[], int]) -> None:
        self._engine, self._clock = engine, clock
        self._lock = Lock()
        self._known, self._stamp = Known({}, {}), Stamp()
        self._laid: dict[int, Laid] = {}

    def load(self) -> None:
        """Read the tables. Raises DatabaseError."""
        with self._lock:
            with reading(self._engine) as connection:
                self._stamp = _stamp(connection)
                found = connection.execute(sa.select(catalogue).order_by(catalogue.c.video_id, catalogue.c.valid_from)).all()
                gone = connection.execute(sa.select(takedowns)).all()
            videos = [VideoRow(row.video_id, row.valid_from, orjson.loads(row.columns)) for row in found]
            now = Known(_merged({}, videos), {row.video_id: row.taken_down_at for row in gone})
            if now != self._known:
                self._change(now, [*now.rows, *(self._known.rows.keys() - now.rows.keys())])

    def look(self) -> None:
        """:meth:`load` where another process changed something. Raises DatabaseError."""
        with reading(self._engine) as connection:
            stamp = _stamp(connection)
        if stamp != self._stamp:
            self.load()

    def take_over(self, video_ids: Collection[str]) -> None:
        """Read these videos alone, since another process has just changed them. Raises DatabaseError."""
        wanted = frozenset(video_ids)
        with self._lock:
            with reading(self._engine) as connection:
                of_these = sa.select(catalogue).where(catalogue.c.video_id.in_(wanted)).order_by(catalogue.c.valid_from)
                found = connection.execute(of_these).all()
                gone = connection.execute(sa.select(takedowns).where(takedowns.c.video_id.in_(wanted))).all()
            rows = {video: rows for video, rows in self._known.rows.items() if video not in wanted}
            taken_down = {video: time for video, time in self._known.taken_down.items() if video not in wanted}
            new = [VideoRow(row.video_id, row.valid_from, orjson.loads(row.columns)) for row in found]
            taken_down |= {row.video_id: row.taken_down_at for row in gone}
            self._change(Known(_merged(rows, new), taken_down), wanted)

    def get(self, video_id: str, serving: Serving) -> tuple[VideoRow | None, int | None]:
        """The video's last row, of the API or of the bundle, and when it was taken down."""
        (row,) = self._last([video_id], serving)
        return row, self._known.taken_down.get(video_id)

    def store(self, videos: Sequence[VideoRow], restore: frozenset[str], serving: Serving) -> list[Stored]:
        """Add rows, or replace those of the same time. What is known already is not stored again. A video that was taken
        down stays so, unless it is among ``restore``.

        Raises:
            DatabaseError: nothing was stored.
        """
        with self._lock:
            last = self._last([video.video_id for video in videos], serving)
            new = [v for v, old in zip(videos, last, strict=True) if old is None or dict(old.columns) != dict(v.columns)]
            back = restore & self._known.taken_down.keys()
            stored = [video.video_id for video in new]
            if new or back:
                self._write(new, back)
                gone = {video: time for video, time in self._known.taken_down.items() if video not in back}
                self._change(Known(_merged(self._known.rows, new), gone), stored)
            return [self._fate(video.video_id, frozenset(stored)) for video in videos]

    def take_down(self, video_id: str) -> None:
        """Never return the video again, from the next request on. Raises DatabaseError: it was not taken down."""
        with self._lock:
            if video_id in self._known.taken_down:
                return
            now = self._clock()
            with writing(self._engine) as connection:
                insert = upsert(self._engine, takedowns).values(video_id=video_id, taken_down_at=now)
                connection.execute(insert.on_conflict_do_nothing())
            self._change(replace(self._known, taken_down={**self._known.taken_down, video_id: now}), ())

    def over(self, serving: Serving) -> Serving:
        """The bundle with the videos of now laid over it, and without those taken down."""
        held = self._laid.get(id(serving))
        if held is None or held.below() is not serving:
            with self._lock:
                held = self._lay(self._known, serving, pending(self._known.rows, self._known.rows, serving))
                self._laid = {**self._laid, id(serving): held}
        return serving if held.laid is None else held.laid

    def _last(self, video_ids: Sequence[str], serving: Serving) -> list[VideoRow | None]:
        rows = self._known.rows
        return [
            rows[video_id][-1] if video_id in rows else old
            for video_id, old in zip(video_ids, bundled([(v, FOREVER) for v in video_ids], serving), strict=True)
        ]

    def _fate(self, video_id: str, stored: Collection[str]) -> Stored:
        if video_id in self._known.taken_down:
            return "taken_down"
        return "stored" if video_id in stored else "unchanged"

    def _write(self, new: Sequence[VideoRow], back: frozenset[str]) -> None:
        now = self._clock()
        values = [
            {
                "video_id": video.video_id,
                "valid_from": video.valid_from,
                "columns": orjson.dumps(video.columns).decode(),
                "updated_at": now,
            }
            for video in new
        ]
        with writing(self._engine) as connection:
            for first in range(0, len(values), ROWS_AT_ONCE):
                insert = upsert(self._engine, catalogue).values(values[first : first + ROWS_AT_ONCE])
                changed = {name: insert.excluded[name] for name in ("columns", "updated_at")}
                connection.execute(
                    insert.on_conflict_do_update(index_elements=[catalogue.c.video_id, catalogue.c.valid_from], set_=changed)
                )
            for video_id in sorted(back):
                connection.execute(takedowns.delete().where(takedowns.c.video_id == video_id))

    def _change(self, known: Known, changed: Collection[str]) -> None:
        """Make it so, for every bundle in use. Until all is laid, requests go on with what there was."""
        laid, old = {}, frozenset(changed)
        for held in list(self._laid.values()):
            if (serving := held.below()) is not None:
                kept = {video: rows for video, rows in held.pending.items() if video not in old}
                laid[id(serving)] = self._lay(known, serving, {**kept, **pending(known.rows, changed, serving)})
        self._known, self._laid = known, laid

    def _lay(self, known: Known, serving: Serving, waiting: Rows) -> Laid:
        key = id(serving)
        below = ref(serving, lambda _: self._laid.pop(key, None))
        laid = lay(waiting, frozenset(known.taken_down), serving)
        return Laid(below, waiting, None if laid is serving else laid)


def _stamp(connection: sa.Connection) -> Stamp:
    found = [
        connection.execute(sa.select(sa.func.count(), sa.func.max(column))).one()
        for column in (catalogue.c.updated_at, takedowns.c.taken_down_at)
    ]
    return tuple(tuple(row) for row in found)


def _merged(rows: Mapping[str, tuple[VideoRow, ...]], new: Sequence[VideoRow]) -> dict[str, tuple[VideoRow, ...]]:
    merged = dict(rows)
    for video in new:
        others = [row for row in merged.get(video.video_id, ()) if row.valid_from != video.valid_from]
        merged[video.video_id] = tuple(sorted([*others, video], key=lambda row: row.valid_from))
    return merged
