"""A served request with the events on it, as the profiles and the export read it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.config import Config
from data.feedback.outcomes import Events, Floats, Ints, Items
from data.feedback.served import Served, ServedColumns, ServedItem
from data.feedback.windows import impression_window


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


class Slate(Sequence[Shown]):
    """Items as columns, since few of a long slate are ever looked at."""

    def __init__(self, items: Sequence[ServedItem]) -> None:
        if isinstance(items, ServedColumns):
            self._columns = [tuple(getattr(items, name)) for name in Shown._fields]
        else:
            self._columns = [tuple(map(attrgetter(name), items)) for name in Shown._fields]

    def __len__(self) -> int:
        return len(self._columns[0])

    def __getitem__(self, place: Any) -> Any:
        return Shown._make(column[place] for column in self._columns)

    def __iter__(self) -> Iterator[Shown]:
        return map(Shown._make, zip(*self._columns, strict=True))


class Sight(NamedTuple):
    """What of a configuration says which items are impressions: places seen when served, and the impression window."""

    fold: int
    window: int

    @classmethod
    def of(cls, config: Config) -> "Sight":
        fold = config.events.above_fold if config.events.impression == "served" else 0
        return cls(fold, impression_window(config))


class Piece(NamedTuple):
    """A request's share of :class:`Items` and :class:`Events`, never changed: the items that may be impressions, ordered by
    (video, position), the events on them, ``item`` among these, and the videos that are impressions by now."""

    items: tuple[Shown, ...]
    position: Ints
    propensity: Floats
    is_exploration: Floats
    item: Ints
    type: NDArray[np.str_]
    value: Floats
    received_at: Ints
    seen: frozenset[str]


@dataclass
class Request:
    """All but the events stands from the beginning; they come by :meth:`add`."""

    request_id: str
    name: str
    user_id: str
    timestamp: int
    answered_at: int
    query_video_id: str | None
    context: Mapping[str, Any]
    rebuildable: bool
    items: Sequence[Shown]
    events: dict[str, Happened] = field(default_factory=dict)
    _piece: tuple[Sight, Piece] | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, served: Served, answered_at: int, rebuildable: bool) -> "Request":
        who = served.request_id, served.name, served.user_id, served.timestamp
        return cls(*who, answered_at, served.query_video_id, served.context, rebuildable, Slate(served.items))

    def add(self, event: Happened) -> None:
        """Take an event in, unless it is there."""
        if event.event_id not in self.events:
            self.events[event.event_id] = event
            self._piece = None

    @cached_property
    def place(self) -> Mapping[str, int]:
        """The position of each video."""
        return {item.video_id: item.position for item in reversed(self.items)}

    def is_seen(self, sight: Sight, video_id: str) -> bool:
        """Whether the item is an impression by now."""
        until = self.timestamp + sight.window
        if self.place[video_id] < sight.fold and self.answered_at <= until:
            return True
        return any(e.video_id == video_id and e.received_at <= until for e in self.events.values())

    def piece(self, sight: Sight) -> Piece:
        """As arrays, kept until an event comes."""
        if not self.events and not sight.fold:
            return NOTHING
        if self._piece is None or self._piece[0] != sight:
            self._piece = sight, _piece_of(self, sight)
        return self._piece[1]


def _piece_of(request: Request, sight: Sight) -> Piece:
    touched = {event.video_id for event in request.events.values()}
    chosen = [item for item in request.items if item.position < sight.fold or item.video_id in touched]
    items = tuple(sorted(chosen, key=lambda item: (item.video_id, item.position)))
    row = {item.video_id: n for n, item in reversed([*enumerate(items)])}
    events = [event for event in request.events.values() if event.video_id in row]
    events.sort(key=lambda event: (row[event.video_id], event.received_at, event.event_id))
    return Piece(
        items,
        np.array([item.position for item in items], np.int64),
        _floats([item.propensity for item in items]),
        _floats([item.is_exploration for item in items]),
        np.array([row[event.video_id] for event in events], np.int64),
        np.array([event.type for event in events], np.str_),
        _floats([event.value for event in events]),
        np.array([event.received_at for event in events], np.int64),
        frozenset(video for video in row if request.is_seen(sight, video)),
    )


def _floats(values: Sequence[float | bool | None]) -> Floats:
    return np.array([np.nan if value is None else float(value) for value in values], np.float64)


_NONE = np.zeros(0)
NOTHING = Piece(
    (),
    _NONE.astype(np.int64),
    _NONE,
    _NONE,
    _NONE.astype(np.int64),
    _NONE.astype(np.str_),
    _NONE,
    _NONE.astype(np.int64),
    frozenset(),
)
"""Of a request on which nothing happened; they share it."""


def as_arrays(config: Config, requests: Sequence[Request]) -> tuple[Items, Events]:
    """The items of these requests in the order of the log, (timestamp, user, video, request, position), and the events on
    them. Items that can't be impressions, for want of an event, are left out, and so are events on what was not shown."""
    sight = Sight.of(config)
    return joined([(request, request.piece(sight)) for request in requests])


def joined(pieces: Sequence[tuple[Request, Piece]]) -> tuple[Items, Events]:
    """:func:`as_arrays` of requests with their pieces."""
    pieces = sorted(pieces, key=lambda pair: (pair[0].timestamp, pair[0].user_id, pair[0].request_id))
    requests, parts = [request for request, _ in pieces], [piece for _, piece in pieces]
    counts = np.array([len(part.items) for part in parts], np.int64)
    starts = np.cumsum(counts) - counts
    items = Items(
        np.repeat(np.arange(len(parts)), counts),
        [request.request_id for request in requests],
        [request.user_id for request in requests],
        [request.timestamp for request in requests],
        [request.answered_at for request in requests],
        [request.query_video_id for request in requests],
        [request.context for request in requests],
        [item.video_id for part in parts for item in part.items],
        _joined([part.position for part in parts], np.int64),
        _joined([part.propensity for part in parts], np.float64),
        _joined([part.is_exploration for part in parts], np.float64),
    )
    events = Events(
        _joined([part.item + start for part, start in zip(parts, starts.tolist(), strict=True)], np.int64),
        _joined([part.type for part in parts], np.str_),
        _joined([part.value for part in parts], np.float64),
        _joined([part.received_at for part in parts], np.int64),
    )
    keys = [(request.timestamp, request.user_id) for request in requests]
    return _interleaved(items, events) if len(set(keys)) < len(keys) else (items, events)


def _joined(parts: Sequence[NDArray[Any]], kind: Any) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.zeros(0, kind)


def _interleaved(items: Items, events: Events) -> tuple[Items, Events]:
    """Requests of one user and time have their items between each other's: put all items in their order."""
    request = items.request.tolist()
    keys = [
        (items.timestamp[r], items.user_id[r], video, items.request_id[r], position)
        for r, video, position in zip(request, items.video_id, items.position.tolist(), strict=True)
    ]
    order = np.array(sorted(range(len(keys)), key=keys.__getitem__), np.int64)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    moved = place[events.item]
    by_item = np.argsort(moved, kind="stable")
    items = replace(
        items,
        request=items.request[order],
        video_id=[items.video_id[row] for row in order.tolist()],
        position=items.position[order],
        propensity=items.propensity[order],
        is_exploration=items.is_exploration[order],
    )
    return items, replace(events.take(by_item), item=moved[by_item])
