"""Newer rows of videos laid over a bundle: what it lacks of them, and a :class:`Serving` that knows it all."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.columns import Batch, Column, Strings
from data.config import Config
from data.features.history import context_column
from data.features.layout import Block
from data.features.tables import EntityTable
from service.generators.live import with_live_videos
from service.serving import Catalogue, Serving

Rows = Mapping[str, Sequence["VideoRow"]]
"""By video, in order of time."""


@dataclass(frozen=True)
class VideoRow:
    """What holds of a video from ``valid_from`` (ms) until its next row."""

    video_id: str
    valid_from: int
    columns: Mapping[str, Any]


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


def lay(waiting: Rows, gone: frozenset[str], serving: Serving) -> Serving:
    """``serving`` with the rows ``waiting`` over it, and without the videos ``gone``."""
    rows = [row for versions in waiting.values() for row in versions]
    laid = replace(serving, taken_down=gone) if gone else serving
    if rows:
        table = EntityTable("video_id", _batch(rows, serving))
        features = serving.features.with_videos(table)
        first = len(serving.features.video_ids) + 1
        over = LaidCatalogue(serving.catalogue, serving.encode(features.live_catalogue()), first)
        laid = replace(laid, features=features, catalogue=over)
        laid = replace(laid, sources=with_live_videos(laid, table, first))
    hidden = frozenset(row for row in laid.index_rows(list(gone)).tolist() if row >= 0)
    return replace(laid, taken_down_rows=hidden) if hidden else laid


def pending(known: Rows, video_ids: Iterable[str], serving: Serving) -> dict[str, list[VideoRow]]:
    """Of the rows ``known`` of these videos, by video, those that the bundle doesn't know: its table lacks them, or they
    began after its features of videos were computed. Of an undated table only the last row counts."""
    table = serving.features.state.tables.get("videos")
    dated, as_of = table is not None and table.dated, serving.features.as_of
    versions = [known[video] for video in video_ids if video in known]
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
