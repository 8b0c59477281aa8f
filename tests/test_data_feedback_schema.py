"""data/feedback/schema.py and the statements on it suit SQLite and PostgreSQL alike."""

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from data.database import create_tables, metadata, open_database, reading, upsert
from data.feedback import schema
from data.feedback.batches import of_time
from data.feedback.rows import read_requests
from data.feedback.writers import add_counts
from tests.feedback_world import feedback_config

TABLES = [table for table in vars(schema).values() if isinstance(table, sa.Table)]
DIALECTS = [sqlite.dialect(), postgresql.dialect()]


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_tables_and_indexes_compile(table: sa.Table, dialect: sa.Dialect) -> None:
    text = str(CreateTable(table, if_not_exists=True).compile(dialect=dialect))
    assert "PRIMARY KEY" in text
    for column in table.columns:
        times = column.name.endswith("_at") or column.name in ("timestamp", "valid_from")
        assert not times or isinstance(column.type, sa.BigInteger), column
    for index in table.indexes:
        assert f"CREATE INDEX IF NOT EXISTS {index.name}" in str(
            CreateIndex(index, if_not_exists=True).compile(dialect=dialect)
        )


class Recorder:
    """In a connection's place: keeps what it is asked."""

    def __init__(self) -> None:
        self.statements: list[Any] = []

    def execute(self, statement: Any, *_: Any) -> list[Any]:
        self.statements.append(statement)
        if len(self.statements) == 1:  # one request, so that its items and events are asked for
            return [Row("r", "small", "u", 1, 1, None, "{}", True)]
        return []


class Row(tuple[Any, ...]):
    request_id, context, rebuildable = "r", "{}", True

    def __new__(cls, *values: Any) -> "Row":
        return super().__new__(cls, values)


def statements(name: str) -> list[Any]:
    engine = sa.create_mock_engine(f"{name}://", lambda *_: None)
    some = Recorder()
    read_requests(some, sa.and_(*of_time(feedback_config(), 0, 1), schema.served.c.user_id == "u"))  # type: ignore[arg-type]
    add_counts(some, engine, {"events.accepted": 1})  # type: ignore[arg-type]
    for table in (schema.served, schema.served_items, schema.events):
        some.statements.append(upsert(engine, table).on_conflict_do_nothing())  # type: ignore[arg-type]
    return some.statements


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_statements_compile(dialect: sa.Dialect) -> None:
    texts = [str(statement.compile(dialect=dialect)) for statement in statements(dialect.name)]
    assert len(texts) == 7
    assert "ON CONFLICT (name) DO UPDATE SET value = (counters.value + excluded.value)" in texts[3]
    assert all("ON CONFLICT DO NOTHING" in text for text in texts[4:])


def test_a_database_opened_before_gets_the_tables_and_indexes(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path}/watchnext.db")
    with engine.begin() as connection:
        for table in TABLES:
            table.drop(connection)
    create_tables(engine)
    create_tables(engine)
    with reading(engine) as connection:
        known = set(sa.inspect(connection).get_table_names())
        indexes = {index["name"] for index in sa.inspect(connection).get_indexes("served")}
        plan = connection.exec_driver_sql(
            "EXPLAIN QUERY PLAN SELECT * FROM served WHERE name = 'n' AND user_id = 'u' AND timestamp >= 1"
        ).all()
    assert set(metadata.tables) <= known
    assert {"served_by_user", "served_by_time"} <= indexes
    assert "served_by_user" in str(plan)
    engine.dispose()
