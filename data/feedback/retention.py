"""What need not be kept any longer: served slates and events of days that were exported for good."""

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import sqlalchemy as sa

from data.config import Config
from data.database import database_url, open_database, reading, writing
from data.days import day_start, parse_day
from data.feedback.batches import of_time
from data.feedback.schema import events, served, served_items, writers
from data.home import Home
from data.manifest import load_manifest

CHUNK = 1_000
"""Requests, or orphans, that go in one transaction, so that a service at work is never held up for long."""
DAY_MS = 86_400_000


@dataclass(frozen=True)
class Removed:
    requests: int = 0
    orphans: int = 0


def retain(config: Config, home: Home, now: int, live_from: date | None = None) -> Removed:
    """Delete the days that ended more than ``events.retention_days`` ago and were exported with every label closed, and
    orphans as old. A day that was never exported is kept however old it is. Can be stopped and repeated at any point.

    Args:
        live_from: this day and all after it are kept too: live profiles are made of them, as the bundle that serves ends
            before it. An old champion would otherwise forget what it is not trained on.

    Raises:
        WatchNextError: the database or the manifest can't be read.
    """
    manifest = load_manifest(home, config.dataset)
    engine = open_database(database_url(home))
    before = now - config.events.retention_days * DAY_MS
    requests = 0
    try:
        for name, record in manifest.exports.items() if manifest else ():
            day = parse_day(name)
            end = day_start(day + timedelta(days=1), config.timezone)
            if end <= before and (live_from is None or day < live_from) and set(config.labels) <= set(record.closed):
                requests += _remove_day(engine, config, day)
        old = sa.select(events.c.event_id).where(events.c.fate == "orphan", events.c.received_at < before).limit(CHUNK)
        orphans = 0
        while ids := _ids(engine, old):
            with writing(engine) as connection:
                connection.execute(events.delete().where(events.c.event_id.in_(ids)))
            orphans += len(ids)
        with writing(engine) as connection:
            connection.execute(writers.delete().where(writers.c.closed_at < before))
    finally:
        engine.dispose()
    return Removed(requests, orphans)


def _remove_day(engine: sa.Engine, config: Config, day: date) -> int:
    start, end = (day_start(each, config.timezone) for each in (day, day + timedelta(days=1)))
    of_day = of_time(config, start, end)
    removed = 0
    while ids := _ids(engine, sa.select(served.c.request_id).where(*of_day).limit(CHUNK)):
        with writing(engine) as connection:
            for table in (events, served_items, served):
                connection.execute(table.delete().where(table.c.request_id.in_(ids)))
        removed += len(ids)
    return removed


def _ids(engine: sa.Engine, query: sa.Select[Any]) -> list[str]:
    with reading(engine) as connection:
        return [str(row[0]) for row in connection.execute(query)]
