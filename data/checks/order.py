"""Check: order in time. A row far in the past or in the future is bad; rows out of order in a file are sorted, and
counted, since many of them hint at a wrong time column."""

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.checks.finding import Finding
from data.readers.convert import mask

REASON = "time"
AHEAD_MS = 86_400_000
"""Clocks may run ahead of ours by a day."""


def check(rows: pa.Table, earliest: int, now: int) -> list[Finding]:
    """``timestamp`` within [earliest, now + a day], milliseconds."""
    times = rows.column("timestamp")
    early, late = mask(pc.less(times, earliest)), mask(pc.greater(times, now + AHEAD_MS))
    found = [Finding(REASON, f"timestamp: expected {_written(earliest)} or later", early)] if early.any() else []
    return found + ([Finding(REASON, "timestamp: expected no time in the future", late)] if late.any() else [])


def count_backwards(times: "np.ndarray[tuple[int], np.dtype[np.int64]]", previous: int | None) -> int:
    """How many of ``times`` [n] come before the one ahead of them in the file."""
    if not len(times):
        return 0
    return int((np.diff(times) < 0).sum()) + int(previous is not None and times[0] < previous)


def _written(time: int) -> str:
    return datetime.fromtimestamp(time / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
