"""The days before a closed loop: the log that the product's old recommender leaves, as clients that tell of views write it.

Like :func:`data.simulator.write.simulate` with three differences. Only what was looked at is in the log. ``watched``, the
share of its duration that a clicked video was watched for, is a column. Videos that are uploaded later are not in the table.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data.simulator.entities import DAY_MS, Ints
from data.simulator.settings import Purpose, stream
from data.simulator.sittings import Rows
from data.simulator.utility import DISMISSAL_COST
from data.simulator.world import World
from data.simulator.write import _names, _table, _write_users, _write_videos


def write_warm_up(folder: Path, world: World, days: int) -> Rows:
    """Write the world's first days into ``folder``; returns the impressions."""
    users, videos = (_names(prefix, count) for prefix, count in (("u", world.settings.users), ("v", world.settings.videos)))
    folder.mkdir(parents=True)
    _write_users(folder / "users.parquet", world)
    _write_videos(folder / "videos.parquet", world)
    table = pq.read_table(folder / "videos.parquet", partitioning=None)
    pq.write_table(table.filter(pc.less(table.column("upload"), world.start + days * DAY_MS)), folder / "videos.parquet")
    parts = []
    for day in range(days):
        rows = Rows.concatenate(list(world.day(day)))
        rows = rows.take(looked_at(world, day, rows))
        target = folder / "log" / f"day={world.day_name(day)}" / "part-00000.parquet"
        target.parent.mkdir(parents=True)
        shares = np.maximum(rows.watch_time / world.videos.duration[rows.video], 0.001).round(3)
        watched = pa.array(shares.astype(np.float64), mask=rows.click == 0)
        pq.write_table(_table(rows, day, users, videos).append_column("watched", watched), target, store_schema=False)
        parts.append(rows)
    return Rows.concatenate(parts)


def earnings(world: World, rows: Rows) -> tuple[Ints, NDArray[np.float64]]:
    """The videos of watches and dismissals, and what each was worth: the share watched, or less DISMISSAL_COST."""
    watched, dismissed = rows.video[rows.click > 0], rows.video[rows.dismiss > 0]
    shares = rows.watch_time[rows.click > 0] / world.videos.duration[watched]
    return np.concatenate([watched, dismissed]), np.concatenate([shares, np.full(len(dismissed), -DISMISSAL_COST)])


def looked_at(world: World, day: int, rows: Rows) -> NDArray[np.bool_]:
    """Whether each impression [n] was examined, drawn from what its outcomes leave open.

    What was clicked or dismissed was. Else the chance is e q / (e q + 1 - e), where e = P(examine) and q = P(neither click
    nor dismissal | examined).
    """
    truth = world.truth(rows.user, rows.video, rows.timestamp, rows.device)
    happened = (rows.click > 0) | (rows.dismiss > 0)
    examined = world.preferences.examination(rows.position, rows.device)
    unclicked = 1 / (1 + np.exp(-world.settings.dismiss_unclicked))
    neither = examined * (1 - truth["click"]) * (1 - unclicked)
    chance = neither / (neither + 1 - examined)
    return np.asarray(happened | (stream(world.seed, Purpose.WARM_UP, day).random(len(rows)) < chance))
