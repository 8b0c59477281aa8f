"""Served slates and events as rows of the tables, and back."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from operator import attrgetter
from typing import Any

import orjson
import sqlalchemy as sa

from data.feedback.events import Event, Fate
from data.feedback.requests import Happened, Request, Shown
from data.feedback.schema import events, served, served_items
from data.feedback.served import Served, ServedColumns

MOST_VALUES = 500
"""In one IN (...)."""

STORED = sa.select(events.c.event_id).where(events.c.event_id.in_(sa.bindparam("ids", expanding=True)))
"""Asked with every batch of events: made once, it costs two thirds of one that is made each time."""

Row = dict[str, Any]


def served_row(slate: Served) -> Row:
    """All but ``answered_at`` and ``rebuildable``."""
    names = ("request_id", "name", "user_id", "timestamp", "route", "query_video_id", "model_version", "experiment", "arm")
    row: Row = {name: getattr(slate, name) for name in names}
    row |= {"context": json_text(dict(slate.context)), "weights": json_text(dict(slate.weights))}
    return row | {"candidates": slate.candidates}


ITEM = tuple(column.name for column in served_items.columns)
"""The order of the values that :func:`item_rows` gives."""


def item_rows(slate: Served) -> list[tuple[Any, ...]]:
    """The values of the slate's items, in the order of :data:`ITEM`. In bulk, since no request is ranked meanwhile."""
    items = slate.items

    def column(name: str) -> Iterable[Any]:
        return getattr(items, name) if isinstance(items, ServedColumns) else map(attrgetter(name), items)

    values: dict[str, Iterable[Any]] = {name: column(name) for name in ITEM if name != "request_id"}
    values["request_id"] = [slate.request_id] * len(items)
    values["score"] = map(_finite, values["score"])
    values["predictions"] = _json_texts(list(map(dict, values["predictions"])))
    values["generators"] = map(",".join, values["generators"])
    return list(zip(*(values[name] for name in ITEM), strict=True))


def event_row(event: Event, fate: Fate, user_id: str | None, received_at: int) -> Row:
    names = ("event_id", "request_id", "video_id", "type", "value", "timestamp")
    row: Row = {name: getattr(event, name) for name in names}
    return row | {"user_id": user_id, "received_at": received_at, "fate": fate.status}


def json_text(value: Any) -> str:
    """JSON; a number that is not finite is null."""
    return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY).decode()


def _json_texts(rows: Sequence[dict[str, Any]]) -> list[str]:
    """:func:`json_text` of each. Names are those of objectives and values numbers, so that no brace is within."""
    return [f"{{{text}}}" for text in json_text(rows)[2:-2].split("},{")] if rows else []


def _finite(value: float | None) -> float | None:
    return None if value is None or value != value or abs(value) == float("inf") else float(value)


def read_requests(connection: sa.Connection, condition: sa.ColumnElement[bool]) -> list[Request]:
    """The requests that meet a condition on ``served``, with their items and the events that are no orphans, ordered by
    (timestamp, request_id)."""
    head = sa.select(
        served.c.request_id,
        served.c.name,
        served.c.user_id,
        served.c.timestamp,
        served.c.answered_at,
        served.c.query_video_id,
        served.c.context,
        served.c.rebuildable,
    )
    requests: dict[str, Request] = {}
    items: dict[str, list[Shown]] = {}
    for row in connection.execute(head.where(condition).order_by(served.c.timestamp, served.c.request_id)):
        shown = items[row.request_id] = []
        requests[row.request_id] = Request(*row[:6], orjson.loads(row.context), row.rebuildable, shown)
    if not requests:
        return []
    of_served = served_items.join(served, served_items.c.request_id == served.c.request_id)
    columns = [served_items.c[name] for name in ("request_id", *Shown._fields)]
    for row in connection.execute(sa.select(*columns).select_from(of_served).where(condition)):
        if row.request_id in requests:  # PostgreSQL may have committed more in between
            items[row.request_id].append(Shown._make(row[1:]))
    of_served = events.join(served, events.c.request_id == served.c.request_id)
    columns = [events.c[name] for name in ("request_id", *Happened._fields)]
    wanted = sa.and_(condition, events.c.fate != "orphan")
    for row in connection.execute(sa.select(*columns).select_from(of_served).where(wanted)):
        if row.request_id in requests:
            requests[row.request_id].add(Happened._make(row[1:]))
    return list(requests.values())


def requests_by_id(connection: sa.Connection, ids: Iterable[str]) -> list[Request]:
    return [request for some in _groups(ids) for request in read_requests(connection, served.c.request_id.in_(some))]


def users_by_request(connection: sa.Connection, ids: Iterable[str]) -> dict[str, str]:
    """The users of those of the requests that are stored."""
    wanted = sa.select(served.c.request_id, served.c.user_id)
    found = (connection.execute(wanted.where(served.c.request_id.in_(some))) for some in _groups(ids))
    return {row.request_id: row.user_id for rows in found for row in rows}


def known_events(connection: sa.Connection, ids: Iterable[str]) -> set[str]:
    """Those of the ids that are stored."""
    return {event_id for some in _groups(ids) for event_id in connection.execute(STORED, {"ids": some}).scalars()}


def _groups(ids: Iterable[str]) -> Iterator[Sequence[str]]:
    rest = iter(ids)
    while some := list(islice(rest, MOST_VALUES)):
        yield some
