"""Videos that came through the API, laid over whichever bundle answers; and those taken down."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any, Literal
from weakref import ReferenceType, ref

import numpy as np
import orjson
import sqlalchemy as sa
from numpy.typing import NDArray

from data.columns import Batch, Column, Strings
from data.config import Config
from data.database import reading, upsert, writing
from data.features.history import context_column
from data.features.layout import Block
from data.features.tables import EntityTable
from data.feedback.schema import catalogue, takedowns
from service.generators.live import with_live_videos
from service.serving import Catalogue, Serving

Stored = Literal["stored", "unchanged", "taken_down"]
ROWS_AT_ONCE = 500
Stamp = tuple[Any, ...]
"""Of the tables' contents: differs once a process has changed them."""
FOREVER = int(np.iinfo(np.int64).max)


@dataclass(frozen=True)
class VideoRow:
    """What holds of a video from ``valid_from`` (ms) until its next row."""

    video_id: str
    valid_from: int
    columns: Mapping[str, Any]


@dataclass(frozen=True)
class Known:
    """All that came through the API, at one moment. ``rows`` of a video are in order of time."""

    rows: Mapping[str, tuple[VideoRow, ...]]
    taken_down: Mapping[str, int]


@dataclass(frozen=True)
class LaidCatalogue:
    """The bundle's rows, and behind the unknown video's those of ``live``."""

    below: Catalogue
    live: Block
    first: int

    def take(self, rows: NDArray[np.int64]) -> Block:
        upper = rows >= self.first
        block = self.below.take(np.where(upper, -1, rows))
        if upper.any():
            ours = self.live.take(rows[upper] - self.first)
            block.ints[upper], block.floats[upper] = ours.ints, ours.floats
        return block


@dataclass(frozen=True)
class Laid:
    """A bundle in use, the rows that it lacks, and what answers in its place (None: itself, which mustn't be kept alive)."""

    below: "ReferenceType[Serving]"
    known: Known
    pending: Mapping[str, Sequence[VideoRow]]
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
        if held is not None and held.below() is serving and held.known is self._known:
            return serving if held.laid is None else held.laid
        with self._lock:
            return self._lay(serving, pending(self._known, self._known.rows, serving))

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
        """Make it so, for every bundle in use: no request has to wait for it."""
        self._known = known
        for held in list(self._laid.values()):
            if (serving := held.below()) is not None:
                kept = {video: rows for video, rows in held.pending.items() if video not in changed}
                self._lay(serving, {**kept, **pending(known, changed, serving)})

    def _lay(self, serving: Serving, waiting: Mapping[str, Sequence[VideoRow]]) -> Serving:
        key = id(serving)
        below = ref(serving, lambda _: self._laid.pop(key, None))
        laid = lay(self._known, waiting, serving)
        self._laid[key] = Laid(below, self._known, waiting, None if laid is serving else laid)
        return laid


def _stamp(connection: sa.Connection) -> Stamp:
    found = [
        connection.execute(sa.select(sa.func.count(), sa.func.max(column))).one()
        for column in (catalogue.c.updated_at, takedowns.c.taken_down_at)
    ]
    return tuple(tuple(row) for row in found)


def lay(known: Known, waiting: Mapping[str, Sequence[VideoRow]], serving: Serving) -> Serving:
    """``serving`` with the rows ``waiting`` over it, and without what was taken down."""
    gone = frozenset(known.taken_down)
    rows = [row for versions in waiting.values() for row in versions]
    laid = replace(serving, taken_down=gone) if gone else serving
    if rows:
        table = EntityTable("video_id", _batch(rows, serving))
        features = serving.features.with_videos(table)
        first = len(serving.features.video_ids) + 1
        over = LaidCatalogue(serving.catalogue, features.live_catalogue(), first)
        laid = replace(laid, features=features, catalogue=over)
        laid = replace(laid, sources=with_live_videos(laid, table, first))
    hidden = frozenset(row for row in laid.index_rows(list(gone)).tolist() if row >= 0)
    return replace(laid, taken_down_rows=hidden) if hidden else laid


def pending(known: Known, video_ids: Iterable[str], serving: Serving) -> dict[str, list[VideoRow]]:
    """By video, the rows that the bundle doesn't know: those that its table lacks, and those that began after its features
    of videos were computed. Of an undated table only the last row counts."""
    table = serving.features.state.tables.get("videos")
    dated, as_of = table is not None and table.dated, serving.features.as_of
    versions = [known.rows[video] for video in video_ids if video in known.rows]
    rows = [row for of_video in versions for row in (of_video if dated else of_video[-1:])]
    found: dict[str, list[VideoRow]] = {}
    for row, old in zip(rows, bundled([(row.video_id, row.valid_from + 1) for row in rows], serving), strict=True):
        same = old is not None and old.columns == completed(row.columns, serving.config)
        if not same or (dated and (old is None or old.valid_from != row.valid_from or row.valid_from >= as_of)):
            found.setdefault(row.video_id, []).append(row)
    return found


def bundled(wanted: Sequence[tuple[str, int]], serving: Serving) -> list[VideoRow | None]:
    """The row of the bundle's own table that held of each (video, time) [n]."""
    table, config = serving.features.state.tables.get("videos"), serving.config
    if table is None:
        known = [serving.features.index_row(video_id) for video_id, _ in wanted]
        first = len(serving.features.video_ids)
        return [VideoRow(v, 0, {}) if 0 <= row < first else None for (v, _), row in zip(wanted, known, strict=True)]
    ids, times = Strings.of(video_id for video_id, _ in wanted), np.array([time for _, time in wanted], np.int64)
    places = table.rows_at(ids, times)
    columns = {name: table.column(name, places).tolist() for name in config.video_columns}
    return [
        None if place < 0 else VideoRow(v, int(table.valid_from[place]), {n: _plain(c[i]) for n, c in columns.items()})
        for i, ((v, _), place) in enumerate(zip(wanted, places.tolist(), strict=True))
    ]


def completed(columns: Mapping[str, Any], config: Config) -> dict[str, Any]:
    """Values of all the configuration's columns: what is missing is null, or no texts."""
    return {
        name: (columns.get(name) or []) if column.type == "categories" else columns.get(name)
        for name, column in config.video_columns.items()
    }


def _plain(value: Any) -> Any:
    return None if value != value else value


def _merged(rows: Mapping[str, tuple[VideoRow, ...]], new: Sequence[VideoRow]) -> dict[str, tuple[VideoRow, ...]]:
    merged = dict(rows)
    for video in new:
        others = [row for row in merged.get(video.video_id, ()) if row.valid_from != video.valid_from]
        merged[video.video_id] = tuple(sorted([*others, video], key=lambda row: row.valid_from))
    return merged


def _batch(rows: Sequence[VideoRow], serving: Serving) -> Batch:
    """The rows as the videos' table has them."""
    config = serving.config
    table = serving.features.state.tables.get("videos")
    full = [completed(row.columns, config) for row in rows]
    columns: dict[str, Column] = {"video_id": Strings.of(row.video_id for row in rows)}
    if table is None or table.dated:
        columns["valid_from"] = np.array([row.valid_from for row in rows], np.int64)
    for name, column in config.video_columns.items():
        columns[name] = context_column(column, [values[name] for values in full])
    return Batch(columns)
