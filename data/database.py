"""The one database: ``$WATCHNEXT_HOME/watchnext.db`` (SQLite), or what ``WATCHNEXT_DATABASE_URL`` names (PostgreSQL).

It alone holds what changes while the service runs. The tables are SQLAlchemy Core and the same on both.
"""

import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import monotonic, sleep
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.schema import CreateIndex, CreateTable

from data.errors import WatchNextError
from data.home import Home

URL_VARIABLE = "WATCHNEXT_DATABASE_URL"
BUSY_TIMEOUT_MS = 5_000
"""How long a SQLite connection waits for another writer before it says that the database is locked."""

CREATING = 0x5741544348  # "WATCH"
"""PostgreSQL's advisory lock of whoever creates tables."""


class DatabaseError(WatchNextError):
    """The database cannot be opened, is locked, or refused a statement."""


metadata = sa.MetaData()

champions = sa.Table(
    "champions",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("previous", sa.BigInteger),  # the champion before this one
    sa.Column("promoted_at", sa.BigInteger, nullable=False),  # ms since the epoch, UTC
)
"""The champion of each bundle name: one row a name."""


def database_url(home: Home, environment: Mapping[str, str] = os.environ) -> str:
    """``WATCHNEXT_DATABASE_URL`` where set, else the SQLite file of the home."""
    return environment.get(URL_VARIABLE) or f"sqlite:///{home.root / 'watchnext.db'}"


def open_database(url: str) -> sa.Engine:
    """An engine on the database, its tables created where they are missing.

    SQLite keeps a write-ahead log and syncs at every commit, so that what a commit accepted survives a power cut.

    Raises:
        DatabaseError: naming the database (without its password).
    """
    try:
        engine = sa.create_engine(url)
    except (ArgumentError, ImportError) as error:
        raise DatabaseError(f"{URL_VARIABLE} names no usable database: {_scheme(url)}: {error}") from None
    if engine.dialect.name == "sqlite":
        _prepare_sqlite(engine)
    elif engine.dialect.name != "postgresql":
        raise DatabaseError(f"{URL_VARIABLE} should name SQLite or PostgreSQL, got {engine.dialect.name!r}")
    create_tables(engine)
    return engine


def create_tables(engine: sa.Engine) -> None:
    """Create the tables and indexes that are known by now and missing."""
    with writing(engine) as connection:
        if engine.dialect.name == "postgresql":  # where two that create the same at once fail, whether it may exist or not
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(CREATING)))
        for table in metadata.sorted_tables:
            connection.execute(CreateTable(table, if_not_exists=True))
            for index in sorted(table.indexes, key=lambda index: str(index.name)):
                connection.execute(CreateIndex(index, if_not_exists=True))


@contextmanager
def writing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """One transaction that may write: committed at the end, rolled back by an exception."""
    with _explained(engine), engine.begin() as connection:
        yield connection


@contextmanager
def reading(engine: sa.Engine) -> Iterator[sa.Connection]:
    """One transaction that only reads; it neither waits for writers nor holds them up."""
    with _explained(engine), engine.connect() as connection:
        yield connection.execution_options(reads_only=True)


def upsert(engine: sa.Engine, table: sa.Table) -> "sqlite.Insert | postgresql.Insert":
    """An INSERT of this database that has ``on_conflict_do_update``."""
    return sqlite.insert(table) if engine.dialect.name == "sqlite" else postgresql.insert(table)


@contextmanager
def _explained(engine: sa.Engine) -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        where = engine.url.render_as_string(hide_password=True)
        reason = str(getattr(error, "orig", None) or error)
        raise DatabaseError(f"database {where}: {reason}") from error


def _prepare_sqlite(engine: sa.Engine) -> None:
    @sa.event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver opens no transactions of its own: _begin does
        for pragma in (f"busy_timeout={BUSY_TIMEOUT_MS}", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")
        _keep_write_ahead_log(connection)

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        # A deferred transaction that turns into a writer fails at once when another one writes; this one waits its turn.
        reads_only = connection.get_execution_options().get("reads_only")
        connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")


def _keep_write_ahead_log(connection: Any) -> None:
    """Switch to the write-ahead log, once in the life of the file.

    SQLite answers this statement with "locked" at once, whatever the timeout, when another process opens the new file, or
    one that a killed process left behind, at the same moment: so the waiting is done here.
    """
    give_up = monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or monotonic() > give_up:
                raise
            sleep(0.01)


def _scheme(url: str) -> str:
    """The part of a URL that holds no secret."""
    return url.split(":", 1)[0] + ":..."
