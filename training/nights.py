"""The nights of a name: which challenger was judged on which day, so that none is judged twice and none is forgotten."""

import json
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

import sqlalchemy as sa

from data.config import Config
from data.database import database_url, metadata, open_database, reading, upsert, writing
from data.days import parse_day
from data.home import Home

nights = sa.Table(
    "retrain_runs",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("key", sa.String(64), primary_key=True),  # of all that the night's result depends on
    sa.Column("day", sa.String(10), nullable=False),  # judged on
    sa.Column("full", sa.Boolean, nullable=False),  # whether a full retrain competed
    sa.Column("challenger", sa.BigInteger),  # once published
    sa.Column("promoted", sa.Boolean),  # null: not finished
    sa.Column("trained", sa.Text, nullable=False),  # JSON: the days
    sa.Column("runs", sa.Text, nullable=False),  # JSON: the keys of its plans, after which their checkpoints are named
    sa.Column("started_at", sa.BigInteger, nullable=False),
    sa.Column("finished_at", sa.BigInteger),
)
"""One row a night."""

Status = Literal["promoted", "kept", "nothing", "quarantined"]
EXIT_CODES: dict[str, int] = {"promoted": 0, "nothing": 0, "kept": 3, "running": 4, "quarantined": 5}
"""Of ``watchnext retrain``; 2 is an error that the user can mend, 1 a defect of ours."""


@dataclass(frozen=True)
class Outcome:
    """What a run of ``watchnext retrain`` came to.

    ``day`` is what the challenger was judged on, ``champion`` the version that serves now, ``refreshed`` the same where
    this run advanced its counts; ``quarantined`` are the days held back by this run.
    """

    status: Status
    reason: str
    day: date | None = None
    trained: tuple[date, ...] = ()
    challenger: int | None = None
    champion: int | None = None
    refreshed: int | None = None
    decision: str | None = None
    quarantined: tuple[date, ...] = ()

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.status]

    def summary(self) -> dict[str, Any]:
        """For one line of JSON."""
        facts = {name: getattr(self, name) for name in self.__dataclass_fields__}
        dates = {"day": self.day and str(self.day)}
        lists = {name: [str(day) for day in facts[name]] for name in ("trained", "quarantined")}
        return {**facts, **dates, **lists, "exit_code": self.exit_code}


@dataclass(frozen=True)
class NightRecord:
    key: str
    day: date
    full: bool
    challenger: int | None
    promoted: bool | None
    trained: tuple[date, ...]
    runs: tuple[str, ...] = ()


class Nights:
    """Reads and writes the nights in the home's database.

    Raises (every method):
        DatabaseError: the database cannot be read or written.
    """

    def __init__(self, home: Home, config: Config) -> None:
        self._name = config.name
        self._engine = open_database(database_url(home))

    def all(self) -> list[NightRecord]:
        """In the order in which they began."""
        query = sa.select(nights).where(nights.c.name == self._name).order_by(nights.c.started_at, nights.c.day)
        with reading(self._engine) as connection:
            rows = connection.execute(query).all()
        return [
            NightRecord(
                row.key,
                parse_day(row.day),
                row.full,
                row.challenger,
                row.promoted,
                tuple(map(parse_day, json.loads(row.trained))),
                tuple(json.loads(row.runs)),
            )
            for row in rows
        ]

    def begin(self, night: NightRecord, now: int) -> None:
        """Enter a night; one that was interrupted stays as it is."""
        values: dict[str, Any] = {
            "day": str(night.day),
            "full": night.full,
            "trained": json.dumps([str(day) for day in night.trained]),
        }
        values["runs"] = json.dumps(night.runs)
        insert = upsert(self._engine, nights).values(name=self._name, key=night.key, started_at=now, **values)
        with writing(self._engine) as connection:
            connection.execute(insert.on_conflict_do_nothing())

    def published(self, key: str, challenger: int) -> None:
        self._set(key, challenger=challenger)

    def finish(self, key: str, promoted: bool, now: int) -> None:
        self._set(key, promoted=promoted, finished_at=now)

    def _set(self, key: str, **values: Any) -> None:
        statement = sa.update(nights).where(nights.c.name == self._name, nights.c.key == key).values(**values)
        with writing(self._engine) as connection:
            connection.execute(statement)
