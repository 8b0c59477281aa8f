"""When a row's outcomes could be known."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.config import Config

LONGEST_SECONDS = 1e9


def with_visible_at(rows: pa.Table, config: Config) -> pa.Table:
    """Adds ``visible_at`` (ms): timestamp + the label named by ``log.visible_after`` (seconds, rounded to the
    millisecond; null or negative counts as none), or the timestamp itself. ``feedback_delay`` is not in it."""
    times = rows.column("timestamp")
    if config.log.visible_after is not None:
        seconds = pc.fill_null(rows.column(config.log.visible_after), 0.0).to_numpy()
        wait = np.rint(np.clip(seconds, 0.0, LONGEST_SECONDS) * 1000).astype(np.int64)
        times = pc.add(times, pa.array(wait))
    return rows.append_column("visible_at", times)
