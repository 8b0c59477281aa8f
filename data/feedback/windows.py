"""Attribution windows: until when an event counts, and when a day has nothing more to learn."""

from datetime import date, timedelta

from data.config import Config
from data.days import day_start
from data.features.recent import used_labels
from data.objectives import positive_label

VIEW = "view"
"""The type of the events that make an item an impression and set no label."""


def read_labels(config: Config) -> set[str]:
    """The labels that later rows' features, or the generators' recent watches, are made of."""
    return used_labels(config) | {positive_label(config)}


def impression_window(config: Config) -> int:
    """ms after a request within which an item of it can become an impression: until the request's day is final, so that
    a day's rows are the same in all its exports. The longest window that features read, or the shortest there is."""
    read = [config.window(label) for label in read_labels(config)]
    return max(*read, min(config.window(label) for label in config.labels))


def final_at(config: Config, day: date) -> int:
    """When a day can be exported for the first time (ms)."""
    return _closed_at(config, day, impression_window(config))


def closed_labels(config: Config, day: date, now: int) -> tuple[str, ...]:
    """The labels of which all windows of the day have closed, in the configuration's order."""
    return tuple(label for label in config.labels if _closed_at(config, day, config.window(label)) <= now)


def _closed_at(config: Config, day: date, window: int) -> int:
    end = day_start(day + timedelta(days=1), config.timezone)
    return end + window + round(1000 * config.events.final_after)
