"""Rows on their way to the day partitions: Arrow files on disk, one per stretch of rows and day, each sorted by time.

A day is then read back slice by slice in order of time, so that memory holds a slice and not the day.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from data.days import days_of

SLICE_ROWS = 1 << 19
SORTED = [("timestamp", "ascending"), ("user_id", "ascending"), ("video_id", "ascending")]


class Spool:
    """Pieces of each day in the order in which they were added."""

    def __init__(self, folder: Path, schema: pa.Schema, timezone: str) -> None:
        self.folder, self.schema, self.timezone = folder, schema, timezone
        self.pieces: dict[date, list[Path]] = defaultdict(list)
        self._count = 0

    def add(self, rows: pa.Table) -> None:
        """Rows in file order, of any days. Columns of the schema that they lack are null."""
        rows = conform(rows, self.schema)
        order = np.argsort(rows.column("timestamp").to_numpy(), kind="stable")
        if not np.array_equal(order, np.arange(len(order))):
            rows = rows.take(pa.array(order))
        days, index = days_of(rows.column("timestamp").to_numpy(), self.timezone)
        ends = np.searchsorted(index, np.arange(len(days)), side="right").tolist()
        for day, start, end in zip(days, [0, *ends], ends, strict=False):
            self._write(day, rows.slice(start, end - start))

    def _write(self, day: date, rows: pa.Table) -> None:
        path = self.piece(self.folder / f"{day}-{self._count:08d}.arrow", rows)
        self._count += 1
        self.pieces[day].append(path)

    def put(self, day: date, rows: pa.Table) -> None:
        """Rows sorted by time, as the first of ``day``'s pieces whatever day they are of."""
        self._write(day, rows)
        self.pieces[day].insert(0, self.pieces[day].pop())

    def between(self, day: date, start: int, end: int) -> Iterator[pa.Table]:
        """The day's rows with start <= timestamp < end, piece by piece."""
        for path in self.pieces.get(day, ()):
            rows = _Piece(path).between(start, end)
            if rows is not None:
                yield rows

    def move(self, day: date, to: date, chosen: Callable[[pa.Table], pa.Array], until: int) -> None:
        """Put the chosen rows of ``day`` among those of another; none at or after ``until`` is one."""
        kept = []
        for path in self.pieces.pop(day, ()):
            piece = _Piece(path)
            rows = piece.between(None, until)
            mask = None if rows is None else chosen(rows)
            if rows is None or not pc.any(mask).as_py():
                kept.append(path)
                continue
            self._write(to, rows.filter(mask))
            rest = [rows.filter(pc.invert(mask)), piece.between(until, None)]
            left = pa.concat_tables([part for part in rest if part is not None and part.num_rows] or [rows.slice(0, 0)])
            if left.num_rows:
                kept.append(self.piece(path.with_suffix(".rest.arrow"), left))
            path.unlink()
        if kept:
            self.pieces[day] = kept

    def piece(self, path: Path, rows: pa.Table) -> Path:
        """Write rows sorted by time as a piece of their own; :meth:`slices` takes such pieces as ``first``."""
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, self.schema) as writer:
            writer.write_table(conform(rows, self.schema).combine_chunks())
        return path

    def slices(self, day: date, first: list[Path] | None = None) -> Iterator[pa.Table]:
        """The day's rows sorted by (timestamp, user_id, video_id), ties in the order of adding (``first`` before all
        others), in slices that no time straddles."""
        pieces = [_Piece(path) for path in [*(first or ()), *self.pieces.get(day, ())]]
        if not pieces:
            return
        times = np.sort(np.concatenate([piece.times for piece in pieces]))
        edges = np.unique(times[SLICE_ROWS::SLICE_ROWS])
        del times
        for start, end in zip([None, *edges.tolist()], [*edges.tolist(), None], strict=True):
            parts = [piece.between(start, end) for piece in pieces]
            rows = pa.concat_tables([part for part in parts if part is not None])
            yield rows.take(pc.sort_indices(rows, sort_keys=SORTED)).combine_chunks()

    def forget(self, day: date) -> None:
        """Delete the day's pieces."""
        for path in self.pieces.pop(day, ()):
            path.unlink()


class _Piece:
    """One file of a day, sorted by time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with pa.memory_map(str(path)) as file:
            self.times: NDArray[np.int64] = np.array(pa.ipc.open_file(file).read_all().column("timestamp").to_numpy())

    def between(self, start: int | None, end: int | None) -> pa.Table | None:
        """The rows with start <= timestamp < end, or None where there are none."""
        low = 0 if start is None else int(np.searchsorted(self.times, start))
        high = len(self.times) if end is None else int(np.searchsorted(self.times, end))
        if low == high:
            return None
        with pa.memory_map(str(self.path)) as file:
            return pa.ipc.open_file(file).read_all().slice(low, high - low)


def conform(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """The schema's columns in its order, null where ``rows`` has none."""
    n = rows.num_rows
    columns = [
        rows.column(field.name).cast(field.type) if field.name in rows.column_names else pa.nulls(n, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)
