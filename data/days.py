"""Days of the configuration's timezone, and their bounds in milliseconds since the epoch (UTC)."""

from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from data.errors import ConfigError


def parse_day(text: str) -> date:
    """A day written YYYY-MM-DD."""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        day = None
    if day is None or day.isoformat() != text:  # 20260101 and week dates are ISO too
        raise ConfigError(f"expected a day as YYYY-MM-DD, got {text!r}")
    return day


def day_start(day: date, timezone: str) -> int:
    """The first millisecond of ``day``."""
    local = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(timezone))
    return int(local.timestamp() * 1000)


def day_of(timestamp: int, timezone: str) -> date:
    """The day that a time in milliseconds falls on."""
    return datetime.fromtimestamp(timestamp / 1000, ZoneInfo(timezone)).date()


def day_bounds(first: date, last: date, timezone: str) -> NDArray[np.int64]:
    """Starts of the days ``first..last`` and of the day after, so that day i is [bounds[i], bounds[i + 1])."""
    count = (last - first).days + 2
    return np.array([day_start(first + timedelta(days=i), timezone) for i in range(count)], np.int64)


def days_of(timestamps: NDArray[np.int64], timezone: str) -> tuple[list[date], NDArray[np.int64]]:
    """The sorted distinct days of ``timestamps`` [n], and each row's index among them [n]."""
    if not len(timestamps):
        return [], np.zeros(0, np.int64)
    first, last = (day_of(int(t), timezone) for t in (timestamps.min(), timestamps.max()))
    bounds = day_bounds(first, last, timezone)
    index = np.searchsorted(bounds, timestamps, side="right") - 1
    used, inverse = np.unique(index, return_inverse=True)
    return [first + timedelta(days=int(i)) for i in used], inverse
