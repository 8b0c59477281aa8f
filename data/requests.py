"""Requests that cross midnight: all of their rows go into the partition of the day on which they began.

A row's feature time is its request's, so a request must be in one piece (:func:`data.features.slates.feature_times`).
A row within CROSSING_MS of a day's start belongs to the day before, if its request has a row in the last CROSSING_MS of
that; a request that goes on for longer is cut in two there.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data.config import Config
from data.days import day_start
from data.errors import LogError
from data.features.slates import CROSSING_MS
from data.home import Home
from data.log import ROWS_FILE
from data.spool import Spool


@dataclass(frozen=True)
class Leaving:
    """The rows before ``until`` (ms) of these requests leave a day's partition for the day before's."""

    requests: pa.Array
    until: int

    def without(self, rows: pa.Table) -> pa.Table:
        return rows.filter(pc.invert(self.chosen(rows)))

    def chosen(self, rows: pa.Table) -> pa.Array:
        return pc.and_(pc.less(rows.column("timestamp"), self.until), pc.is_in(rows.column("request_id"), self.requests))


def rejoin(spool: Spool, config: Config, home: Home, known: Collection[date]) -> Mapping[date, Leaving]:
    """Move such rows within the spool, and those in the partitions of the days ``known`` into it; returns what is to be
    left out of the partitions that lose some.

    Memory grows with the requests of the hours around one midnight.
    """
    if "request_id" not in spool.schema.names:
        return {}
    leaving: dict[date, Leaving] = {}
    new = set(spool.pieces)
    for day in sorted(new | {later - timedelta(days=1) for later in new}):
        after = day + timedelta(days=1)
        midnight = day_start(after, config.timezone)
        places = [home.day(config.dataset, each) / ROWS_FILE if each in known else None for each in (day, after)]
        began = _requests(spool, day, places[0], midnight - CROSSING_MS, midnight)
        going_on = _requests(spool, after, places[1], midnight, midnight + CROSSING_MS)
        crossing = Leaving(began.filter(pc.is_in(began, going_on)), midnight + CROSSING_MS)
        if not len(crossing.requests):
            continue
        if places[1] is not None and "request_id" in _columns(places[1]):
            stored = _read(places[1], None, midnight, crossing.until)
            stored = stored.filter(crossing.chosen(stored))
            if stored.num_rows:
                spool.put(day, stored)
                leaving[after] = crossing
        spool.move(after, day, crossing.chosen, crossing.until)
    return leaving


def _requests(spool: Spool, day: date, partition: Path | None, start: int, end: int) -> pa.Array:
    """The distinct requests of the day's rows with start <= timestamp < end."""
    parts = [rows.column("request_id").unique() for rows in spool.between(day, start, end)]
    if partition is not None and "request_id" in _columns(partition):
        parts.append(_read(partition, ["request_id"], start, end).column("request_id").unique())
    return pa.chunked_array(parts, pa.string()).unique().drop_null()


def _columns(partition: Path) -> list[str]:
    with _damage_named(partition):
        return list(pq.read_schema(partition).names)


def _read(partition: Path, columns: list[str] | None, start: int, end: int) -> pa.Table:
    filters = [("timestamp", ">=", start), ("timestamp", "<", end)]
    with _damage_named(partition):
        return pq.read_table(partition, columns=columns, filters=filters, partitioning=None)


@contextmanager
def _damage_named(partition: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowInvalid) as error:
        raise LogError(f"{partition} is damaged ({error}): move the dataset away and ingest all sources again") from None
