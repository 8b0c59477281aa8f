"""What one group commit puts into the database."""

from collections import Counter
from collections.abc import Sequence
from functools import cache

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from data.database import DatabaseError, upsert
from data.feedback.queue import Operation, Row
from data.feedback.rows import item_rows
from data.feedback.schema import events, served, served_items, writers
from data.feedback.writers import add_counts


def write_group(connection: sa.Connection, engine: sa.Engine, group: Sequence[Operation], writer: str, dropped: int) -> None:
    """Rows and counts, and how many slates of the process are settled: on disk now, or counted as ``dropped``."""
    slates = [op.slate for op in group if op.slate is not None]
    inserts = {
        served: [row for row, _ in slates],
        served_items: [item for _, slate in slates for item in item_rows(slate)],
        events: [row for op in group for row in op.events],
    }
    for table, rows in inserts.items():
        if rows and _insert(connection, engine, table, rows) < len(rows) and table is events:
            # Of what one process takes in no id comes twice: this one came to another process at the same moment.
            raise DatabaseError("an event is there already that was not there a moment ago")
    add_counts(connection, engine, counts_of(group, dropped))
    settled = len(slates) + dropped
    if settled:
        more = {"settled": writers.c.settled + settled}
        connection.execute(writers.update().where(writers.c.id == writer).values(more))


def _insert(connection: sa.Connection, engine: sa.Engine, table: sa.Table, rows: Sequence[Row]) -> int:
    """New rows; those whose key is there are left out. Returns how many were new. To SQLite's driver itself: half the time
    per row is saved."""
    if engine.dialect.name != "sqlite":
        statement = upsert(engine, table).on_conflict_do_nothing().returning(*table.primary_key)
        return len(connection.execute(statement, rows).all())
    text, order = _for_driver(table, tuple(rows[0]))
    return connection.exec_driver_sql(text, [tuple([row[name] for name in order]) for row in rows]).rowcount


@cache
def _for_driver(table: sa.Table, names: tuple[str, ...]) -> tuple[str, Sequence[str]]:
    """The statement as SQLite's driver takes it, and the order of its values."""
    statement = sqlite.insert(table).on_conflict_do_nothing()
    compiled = statement.compile(dialect=sqlite.dialect(), column_keys=list(names))
    return str(compiled), compiled.positiontup or names


def counts_of(group: Sequence[Operation], dropped: int) -> Counter[str]:
    """What a group adds to the counters."""
    total = Counter({"served.dropped": dropped} if dropped else {})
    for operation in group:
        total.update(operation.counts)
    return total
