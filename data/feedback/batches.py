"""Everybody's impressions from the database, as rows of the log."""

from collections.abc import Iterator
from functools import reduce

import sqlalchemy as sa

from data.columns import Batch, concatenate
from data.config import Config
from data.database import reading
from data.feedback.outcomes import log_rows
from data.feedback.requests import as_arrays
from data.feedback.rows import read_requests
from data.feedback.schema import served

CHUNK = 2_000
"""Requests that are in memory at a time."""


def of_time(config: Config, since: int, until: int) -> list[sa.ColumnElement[bool]]:
    """The served requests of the configuration's name with ``since`` <= timestamp < ``until`` (ms)."""
    return [served.c.name == config.name, served.c.timestamp >= since, served.c.timestamp < until]


def impressions(engine: sa.Engine, config: Config, since: int, until: int, as_of: int) -> Iterator[Batch]:
    """The impressions of these requests as known just before ``as_of``, some at a time, in the order of the requests'
    (timestamp, id). Those that can't be rebuilt are left out."""
    key = served.c.timestamp, served.c.request_id
    of_day = [*of_time(config, since, until), served.c.rebuildable.is_(True)]
    after: list[sa.ColumnElement[bool]] = []
    while True:
        with reading(engine) as connection:
            keys = connection.execute(sa.select(*key).where(*of_day, *after).order_by(*key).limit(CHUNK)).all()
            if not keys:
                return
            time, request = keys[-1]
            up_to = sa.or_(served.c.timestamp < time, sa.and_(served.c.timestamp == time, served.c.request_id <= request))
            requests = read_requests(connection, sa.and_(*of_day, *after, served.c.timestamp <= time, up_to))
        yield log_rows(config, *as_arrays(config, requests), as_of)
        later = sa.or_(served.c.timestamp > time, sa.and_(served.c.timestamp == time, served.c.request_id > request))
        after = [served.c.timestamp >= time, later]


def provisional(engine: sa.Engine, config: Config, since: int, as_of: int) -> Batch:
    """What every user's profile holds: the impressions of requests at or after ``since`` (ms) as known just before
    ``as_of``, sorted by request. No rows: no columns."""
    parts = [batch for batch in impressions(engine, config, since, as_of, as_of) if len(batch)]
    return reduce(concatenate, parts, Batch({}))
