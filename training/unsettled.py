"""What was served since the newest final day, as far as it is settled: for counts of videos that are of this morning."""

import sqlalchemy as sa

from data.columns import Batch
from data.config import Config
from data.database import database_url, open_database, reading
from data.feedback.outcomes import log_rows
from data.feedback.requests import as_arrays
from data.feedback.rows import read_requests
from data.feedback.schema import served
from data.home import Home


def unsettled_rows(config: Config, home: Home, since: int, as_of: int) -> Batch | None:
    """The impressions of requests in [since, as_of), ms, as they are known at ``as_of``; None where nothing was served.

    Raises:
        DatabaseError: the database cannot be read.
    """
    ours: list[sa.ColumnElement[bool]] = [served.c.name == config.name, served.c.rebuildable.is_(True)]
    condition = sa.and_(*ours, served.c.timestamp >= since, served.c.timestamp < as_of)
    with reading(open_database(database_url(home))) as connection:
        requests = read_requests(connection, condition)
    if not requests:
        return None
    requests.sort(key=lambda request: (request.timestamp, request.request_id))
    rows = log_rows(config, *as_arrays(config, requests), as_of)
    return rows if len(rows) else None
