"""A served request with the events on it, as the profiles and the export read it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from data.config import Config
from data.feedback.outcomes import Events, Items
from data.feedback.served import Served


class Happened(NamedTuple):
    """An event on an item, as far as labels are made of it."""

    event_id: str
    video_id: str
    type: str
    value: float | None
    received_at: int


class Shown(NamedTuple):
    """An item, as far as rows of the log are made of it."""

    video_id: str
    position: int
    propensity: float | None
    is_exploration: bool | None


@dataclass
class Request:
    """``events`` by id; all else stands from the beginning."""

    request_id: str
    name: str
    user_id: str
    timestamp: int
    answered_at: int
    query_video_id: str | None
    context: Mapping[str, Any]
    rebuildable: bool
    items: list[Shown]
    events: dict[str, Happened] = field(default_factory=dict)

    @classmethod
    def of(cls, served: Served, answered_at: int, rebuildable: bool) -> "Request":
        items = [Shown(i.video_id, i.position, i.propensity, i.is_exploration) for i in served.items]
        who = served.request_id, served.name, served.user_id, served.timestamp
        return cls(*who, answered_at, served.query_video_id, served.context, rebuildable, items)

    def copy(self) -> "Request":
        """One whose events don't change."""
        return replace(self, events=dict(self.events))

    @cached_property
    def place(self) -> Mapping[str, int]:
        """The position of each video."""
        return {item.video_id: item.position for item in reversed(self.items)}

    def is_seen(self, config: Config, video_id: str, until: int) -> bool:
        """Whether the item had become an impression by ``until`` (ms)."""
        if config.events.impression == "served" and self.place[video_id] < config.events.above_fold:
            return self.answered_at <= until
        return any(e.video_id == video_id and e.received_at <= until for e in self.events.values())


def as_arrays(config: Config, requests: Sequence[Request]) -> tuple[Items, Events]:
    """The items of these requests in the order of the log, (timestamp, user, video, request, position), and the events on
    them. Items that can't be impressions, for want of an event, are left out, and so are events on what was not shown."""
    every = ((n, r, i) for n, r in enumerate(requests) for i in _candidates(config, r))
    places = [(r.timestamp, r.user_id, i.video_id, r.request_id, i.position, n, i) for n, r, i in every]
    places.sort(key=lambda place: place[:5])
    shown = [place[6] for place in places]
    items = Items(
        np.array([place[5] for place in places], np.int64),
        [r.request_id for r in requests],
        [r.user_id for r in requests],
        [r.timestamp for r in requests],
        [r.answered_at for r in requests],
        [r.query_video_id for r in requests],
        [r.context for r in requests],
        [i.video_id for i in shown],
        np.array([i.position for i in shown], np.int64),
        _floats([i.propensity for i in shown]),
        _floats([i.is_exploration for i in shown]),
    )
    row = {(place[5], place[2]): n for n, place in reversed([*enumerate(places)])}
    found = [
        (row[n, e.video_id], e.received_at, e.event_id, e)
        for n, r in enumerate(requests)
        for e in r.events.values()
        if (n, e.video_id) in row
    ]
    found.sort(key=lambda f: f[:3])
    events = Events(
        np.array([f[0] for f in found], np.int64),
        np.array([f[3].type for f in found], np.str_),
        _floats([f[3].value for f in found]),
        np.array([f[1] for f in found], np.int64),
    )
    return items, events


def _candidates(config: Config, request: Request) -> Sequence[Shown]:
    """The items that may be impressions."""
    fold = config.events.above_fold if config.events.impression == "served" else 0
    touched = {event.video_id for event in request.events.values()}
    return [item for item in request.items if item.position < fold or item.video_id in touched]


def _floats(values: Sequence[float | bool | None]) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    return np.array([np.nan if value is None else float(value) for value in values], np.float64)
