"""Which processes logged served slates, and how many slates were lost when one was killed."""

import os
from collections.abc import Mapping
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from uuid import uuid4

import sqlalchemy as sa

from data.database import reading, upsert, writing
from data.feedback.ledger import Ledger, alone, left_behind
from data.feedback.schema import counters, writers

LOST = "served.lost"


def ledger_folder(engine: sa.Engine) -> Path | None:
    """Beside a SQLite file; with another database there is no place that is known."""
    file = engine.url.database if engine.dialect.name == "sqlite" else None
    return Path(f"{file}.ledgers") if file else None


def open_writer(engine: sa.Engine, folder: Path | None, now: int) -> tuple[str, Ledger | None]:
    """Count what dead processes lost; then enter this one, and give it a ledger."""
    name = f"{now}-{os.getpid()}-{uuid4().hex[:8]}"
    ledger = None
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        with alone(folder):  # a ledger that is made but not locked yet looks like a dead one's
            for path in sorted(folder.iterdir()):
                _settle_dead(engine, path, now)
            ledger = Ledger(folder / name)
    with writing(engine) as connection:
        connection.execute(writers.insert().values(id=name, started_at=now, settled=0, lost=0))
    return name, ledger


def _settle_dead(engine: sa.Engine, path: Path, now: int) -> None:
    with ExitStack() as stack:
        taken = stack.enter_context(left_behind(path))
        if taken is None:
            return
        connection = stack.enter_context(writing(engine))
        row = connection.execute(sa.select(writers).where(writers.c.id == path.name, writers.c.closed_at.is_(None))).first()
        if row is not None:
            _close(connection, engine, path.name, max(0, taken - row.settled), now)


def close_writer(engine: sa.Engine, name: str, ledger: Ledger | None, dropped: int, now: int) -> None:
    """The process ends: nothing it took in is on its way any more; ``dropped`` is not written down yet."""
    with writing(engine) as connection:
        _close(connection, engine, name, 0, now)
        add_counts(connection, engine, {"served.dropped": dropped} if dropped else {})
    if ledger is not None:
        ledger.remove()


def _close(connection: sa.Connection, engine: sa.Engine, name: str, lost: int, now: int) -> None:
    connection.execute(writers.update().where(writers.c.id == name).values(closed_at=now, lost=lost))
    add_counts(connection, engine, {LOST: lost} if lost else {})


def add_counts(connection: sa.Connection, engine: sa.Engine, counts: Mapping[str, int]) -> None:
    """Add to the counters."""
    if counts:
        rows = [{"name": name, "value": value} for name, value in sorted(counts.items())]
        connection.execute(_adding(engine), rows)


@lru_cache(1)
def _adding(engine: sa.Engine) -> sa.Executable:
    statement = upsert(engine, counters)
    more = {"value": counters.c.value + statement.excluded.value}
    return statement.on_conflict_do_update(index_elements=["name"], set_=more)


def read_counts(engine: sa.Engine) -> dict[str, int]:
    with reading(engine) as connection:
        return {row.name: row.value for row in connection.execute(sa.select(counters))}
