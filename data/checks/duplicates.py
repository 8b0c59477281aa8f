"""Check: duplicates. Rows that repeat exactly are the same impression logged twice; rows that share user, video and
time but differ are kept and counted."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

KEY = ("timestamp", "user_id", "video_id")


class Duplicates(NamedTuple):
    """keep: [n] rows that are the first of their kind. sharing: how many kept rows share their key with another."""

    keep: NDArray[np.bool_]
    sharing: int


def find(rows: pa.Table) -> Duplicates:
    """Among rows sorted by KEY. Equal means equal in every column, ``source_row`` (a checksum of the source's row)
    included."""
    keep = np.ones(rows.num_rows, bool)
    alike = np.ones(max(rows.num_rows - 1, 0), bool)
    for name in KEY:
        column = rows.column(name).combine_chunks()
        alike &= pc.equal(column[1:], column[:-1]).to_numpy(zero_copy_only=False).astype(bool)
    same = np.zeros(rows.num_rows, bool)
    same[1:] |= alike
    same[:-1] |= alike
    places = np.flatnonzero(same)
    if not len(places):
        return Duplicates(keep, 0)
    keep[places] = _first_of_kind(rows.take(pa.array(places)))
    kept = rows.select(KEY).take(pa.array(places[keep[places]])).group_by(list(KEY)).aggregate([([], "count_all")])
    counts = kept.column("count_all").to_numpy()
    return Duplicates(keep, int(counts[counts > 1].sum()))


def _first_of_kind(rows: pa.Table) -> NDArray[np.bool_]:
    columns = {}
    for name in rows.column_names:
        column = rows.column(name)
        if pa.types.is_list(column.type):
            column = pc.binary_join(column, "\x1f")
        columns[name] = column
    numbered = pa.table({**columns, "\x00row": np.arange(rows.num_rows)})
    groups = numbered.group_by(list(columns), use_threads=False).aggregate([("\x00row", "min")])
    first = np.zeros(rows.num_rows, bool)
    first[groups.column("\x00row_min").to_numpy()] = True
    return first
