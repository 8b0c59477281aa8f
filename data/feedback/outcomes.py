"""The one function from served items and the events on them to rows of the log.

The live profile of a user is what it says of the user's requests as of now; an exported day is what it says of the day's
requests once their windows have closed. For any time t, features of t from the one and from the other are the same, since
a row, a value and a time that this function gives as of t never change afterwards but by what features of t can't see.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.columns import Batch, Column, Strings
from data.config import Config
from data.features.history import context_column
from data.feedback.windows import impression_window

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Items:
    """Served items [n], a request's next to each other. ``context`` holds a request's values by name, and ``request`` [n]
    says which request an item is of."""

    request: Ints
    request_id: Sequence[str]
    user_id: Sequence[str]
    timestamp: Sequence[int]
    answered_at: Sequence[int]
    query_video_id: Sequence[str | None]
    context: Sequence[Mapping[str, Any]]
    video_id: Sequence[str]
    position: Ints
    propensity: Floats
    is_exploration: Floats


@dataclass(frozen=True)
class Events:
    """Events on these items [m], sorted by (item, received_at, event_id): of one item in the order in which they count."""

    item: Ints
    type: NDArray[np.str_]
    value: Floats
    received_at: Ints

    def take(self, chosen: NDArray[Any]) -> "Events":
        return Events(self.item[chosen], self.type[chosen], self.value[chosen], self.received_at[chosen])


def log_rows(config: Config, items: Items, events: Events, as_of: int) -> Batch:
    """The impressions among ``items`` as known just before ``as_of`` (ms), as rows of the log in the items' order.

    Columns: those of the log contract, ``seen_at``, the context, every label with ``<label>_visible_at``. A label whose
    window is open is null but for a binary one with an event; one whose window closed without an event is ``absent``.
    """
    timestamp = np.array(items.timestamp, np.int64)[items.request]
    events = events.take(events.received_at < as_of)
    seen = _seen_at(config, items, timestamp, events)
    rows = np.flatnonzero(seen < as_of)
    columns: dict[str, Column] = _shared(config, items, rows)
    columns |= {"timestamp": timestamp[rows], "visible_at": seen[rows], "seen_at": seen[rows].astype(np.float64)}
    columns |= {"position": items.position[rows].astype(np.float64), "propensity": items.propensity[rows]}
    columns["is_exploration"] = items.is_exploration[rows]
    for label in config.labels:
        value, visible = _outcome(config, label, timestamp, events, as_of)
        columns[label] = value[rows]
        known = np.maximum(visible, seen)[rows].astype(np.float64)
        columns[f"{label}_visible_at"] = np.where(np.isnan(value[rows]), np.nan, known)
    return Batch(columns)


def _shared(config: Config, items: Items, rows: Ints) -> dict[str, Column]:
    """What an impression has of its request."""
    request = items.request[rows]
    columns: dict[str, Column] = {
        "user_id": Strings.of(items.user_id).take(request),
        "video_id": Strings.of(items.video_id).take(rows),
        "request_id": Strings.of(items.request_id).take(request),
        "query_video_id": Strings.of(items.query_video_id).take(request),
    }
    for name, column in config.log.context.items():
        values = context_column(column, [context.get(name) for context in items.context])
        columns[name] = values[request] if isinstance(values, np.ndarray) else values.take(request)
    return columns


def _seen_at(config: Config, items: Items, timestamp: Ints, events: Events) -> Ints:
    """When each item became an impression [n], ms; NEVER where it has not.

    At its first event, whatever its type: clients lose views. With ``events.impression = "served"`` the first places at
    once: when the slate was taken in, since a request under way at its feature time could not know of it. Nothing makes
    an impression after :func:`data.feedback.windows.impression_window`.
    """
    seen = np.full(len(timestamp), NEVER)
    if config.events.impression == "served" and len(seen):
        above = items.position < config.events.above_fold
        seen[above] = np.array(items.answered_at, np.int64)[items.request][above]
    np.minimum.at(seen, events.item, events.received_at)
    return np.where(seen <= timestamp + impression_window(config), seen, NEVER)


def _outcome(config: Config, label: str, timestamp: Ints, events: Events, as_of: int) -> tuple[Floats, Ints]:
    """A label's values [n], null where unknown, and when they could be known [n], ms."""
    closes = timestamp + config.window(label)
    of_label = events.take(events.type == config.event_of(label))
    of_label = of_label.take(of_label.received_at <= closes[of_label.item])
    some = np.zeros(len(timestamp), bool)
    some[of_label.item] = True
    closed = closes < as_of
    absent = config.absent(label)
    value = np.where(closed & ~some, np.nan if absent is None else absent, np.nan)
    if config.labels[label].type == "binary":
        first = np.full(len(timestamp), NEVER)
        np.minimum.at(first, of_label.item, of_label.received_at)
        return np.where(some, 1.0, value), np.where(some, first, closes)
    return np.where(closed & some, _aggregate(config.labels[label].aggregate, of_label, len(timestamp)), value), closes


def _aggregate(how: str, events: Events, n: int) -> Floats:
    """The sum of each item's values, or its last one [n]. Summed one by one in the events' order, so that the same events
    give the same bits."""
    if how == "sum":
        return np.asarray(np.bincount(events.item, weights=events.value, minlength=n), np.float64)
    last = np.zeros(n)
    last[events.item] = events.value  # of repeated places the last assignment stands
    return last
