"""data/database.py: the tables on SQLite, its durability settings, and statements that suit PostgreSQL too."""

import sqlite3
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from data import database
from data.database import DatabaseError, champions, database_url, open_database, reading, upsert, writing
from data.home import Home


def _url(folder: Path) -> str:
    return f"sqlite:///{folder / 'watchnext.db'}"


def test_url_is_the_homes_file_unless_the_environment_names_another(tmp_path: Path) -> None:
    assert database_url(Home(tmp_path), {}) == f"sqlite:///{tmp_path}/watchnext.db"
    assert database_url(Home(tmp_path), {"WATCHNEXT_DATABASE_URL": "postgresql://h/d"}) == "postgresql://h/d"


def test_sqlite_is_durable_and_patient(tmp_path: Path) -> None:
    with reading(open_database(_url(tmp_path))) as connection:
        pragmas = [
            connection.exec_driver_sql(f"PRAGMA {p}").scalar() for p in ("journal_mode", "synchronous", "busy_timeout")
        ]
    assert pragmas == ["wal", 2, database.BUSY_TIMEOUT_MS]


def test_opening_twice_keeps_the_rows(tmp_path: Path) -> None:
    with writing(open_database(_url(tmp_path))) as connection:
        connection.execute(champions.insert().values(name="a", version=2026010101, promoted_at=1))
    with reading(open_database(_url(tmp_path))) as connection:
        assert connection.execute(sa.select(champions)).all() == [("a", 2026010101, None, 1)]


def test_an_exception_rolls_back(tmp_path: Path) -> None:
    engine = open_database(_url(tmp_path))
    row = champions.insert().values(name="a", version=1, promoted_at=1)
    with pytest.raises(DatabaseError, match="UNIQUE constraint failed"), writing(engine) as connection:
        [connection.execute(row) for _ in range(2)]
    with reading(engine) as connection:
        assert connection.execute(sa.select(champions)).all() == []


def test_writers_wait_for_each_other_and_readers_for_none(tmp_path: Path) -> None:
    engine = open_database(_url(tmp_path))
    with writing(engine) as connection:
        connection.execute(champions.insert().values(name="n", version=0, promoted_at=0))

    def count() -> None:
        for _ in range(20):
            with writing(engine) as connection:  # read, then write: lost updates would show
                now = connection.execute(sa.select(champions.c.version)).scalar_one()
                connection.execute(champions.update().values(version=now + 1))

    threads = [threading.Thread(target=count) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with writing(engine) as _, reading(engine) as connection:
        assert connection.execute(sa.select(champions.c.version)).scalar_one() == 60


def test_a_new_file_that_another_process_holds_is_waited_for(tmp_path: Path) -> None:
    holder = sqlite3.connect(tmp_path / "watchnext.db", isolation_level=None, check_same_thread=False)
    holder.execute("PRAGMA journal_mode=DELETE")
    holder.execute("BEGIN EXCLUSIVE")
    impatient = sqlite3.connect(tmp_path / "watchnext.db", timeout=0)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        impatient.execute("PRAGMA journal_mode=WAL")
    threading.Timer(0.2, holder.execute, ["COMMIT"]).start()
    with reading(open_database(_url(tmp_path))) as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


def test_locked_database_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 1)
    engine = open_database(_url(tmp_path))
    with writing(engine), pytest.raises(DatabaseError, match=r"watchnext.db: database is locked"), writing(engine):
        pass


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("mysql+nothing://user:secret@host/db", "names no usable database"),
        ("not a url: secret", "names no usable database"),
        ("sqlite:////nowhere/at/all/watchnext.db", "unable to open database file"),
    ],
)
def test_unusable_url_is_a_sentence_without_the_password(url: str, text: str) -> None:
    with pytest.raises(DatabaseError, match=text) as caught:
        open_database(url)
    assert "secret" not in str(caught.value)


def test_statements_compile_for_postgresql() -> None:
    dialect = postgresql.dialect()
    assert "version BIGINT NOT NULL" in str(CreateTable(champions, if_not_exists=True).compile(dialect=dialect))
    engine = sa.create_mock_engine("postgresql://", lambda *_: None, paramstyle="named")
    statement = upsert(engine, champions).values(name="a", version=1, promoted_at=1)  # type: ignore[arg-type]
    text = statement.on_conflict_do_update(index_elements=["name"], set_={"version": 1}).compile(dialect=dialect)
    assert "ON CONFLICT (name) DO UPDATE" in str(text)
