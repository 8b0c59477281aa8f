"""What one group commit puts into the database."""

from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

import sqlalchemy as sa

from data.database import DatabaseError, upsert
from data.feedback.queue import Operation, Row
from data.feedback.rows import ITEM, item_rows
from data.feedback.schema import events, served, served_items, writers
from data.feedback.writers import add_counts


def write_group(connection: sa.Connection, engine: sa.Engine, group: Sequence[Operation], writer: str, dropped: int) -> None:
    """Rows and counts, and how many slates of the process are settled: on disk now, or counted as ``dropped``."""
    slates = [op.slate for op in group if op.slate is not None]
    rows = [row for op in group for row in op.events]
    _insert(connection, engine, served, *_values([row for row, _ in slates]))
    _insert(connection, engine, served_items, ITEM, [item for _, slate in slates for item in item_rows(slate)])
    if _insert(connection, engine, events, *_values(rows)) < len(rows):
        # Of what one process takes in no id comes twice: this one came to another process at the same moment.
        raise DatabaseError("an event is there already that was not there a moment ago")
    add_counts(connection, engine, counts_of(group, dropped))
    settled = len(slates) + dropped
    if settled:
        connection.execute(SETTLED, {"writer": writer, "more": settled})


SETTLED = (
    writers.update()
    .where(writers.c.id == sa.bindparam("writer"))
    .values(settled=writers.c.settled + sa.bindparam("more", type_=sa.BigInteger))
)


def _values(rows: Sequence[Row]) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    """The names of the rows' columns, which they share, and the values."""
    names = tuple(rows[0]) if rows else ()
    return names, [tuple(row.values()) if tuple(row) == names else tuple([row[name] for name in names]) for row in rows]


def _insert(
    connection: sa.Connection, engine: sa.Engine, table: sa.Table, names: Sequence[str], rows: Sequence[tuple[Any, ...]]
) -> int:
    """New rows; those whose key is there are left out. Returns how many were new. To SQLite's driver itself: half the time
    per row is saved."""
    if not rows:
        return 0
    if engine.dialect.name == "sqlite":
        return connection.exec_driver_sql(_for_driver(table, tuple(names)), list(rows)).rowcount
    statement = upsert(engine, table).on_conflict_do_nothing().returning(*table.primary_key)
    return len(connection.execute(statement, [dict(zip(names, row, strict=True)) for row in rows]).all())


@cache
def _for_driver(table: sa.Table, names: tuple[str, ...]) -> str:
    """The statement as SQLite's driver takes it, for values in the order of the names."""
    columns, places = ", ".join(f'"{name}"' for name in names), ", ".join("?" for _ in names)
    return f'INSERT INTO "{table.name}" ({columns}) VALUES ({places}) ON CONFLICT DO NOTHING'


def counts_of(group: Sequence[Operation], dropped: int) -> Counter[str]:
    """What a group adds to the counters."""
    total = Counter({"served.dropped": dropped} if dropped else {})
    for operation in group:
        total.update(operation.counts)
    return total
