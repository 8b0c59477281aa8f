"""A process that takes in slates and events is killed: nothing accepted is lost or doubled, and the lost are counted."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import pytest
import sqlalchemy as sa

from data.database import open_database, reading, writing
from data.feedback.schema import events, served, served_items
from data.feedback.writers import LOST, read_counts
from tests.feedback_world import Clock, feedback_config, opened

CLIENT = Path(__file__).parent / "feedback_client.py"
LATER = Clock(1_900_000_000_000)
QUEUE = 200
"""Of the client."""


@dataclass
class Client:
    process: "subprocess.Popen[str]"
    said: IO[str]
    hears: IO[str]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def client(home: Path, *arguments: str) -> Iterator[Client]:
    command = [sys.executable, str(CLIENT), str(home), *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield Client(process, process.stdout, process.stdin)
        finally:
            process.kill()


@dataclass
class Kept:
    """What the database holds."""

    fates: dict[str, str]
    slates: set[str]
    items: int
    counts: dict[str, int]

    @classmethod
    def read(cls, home: Path) -> "Kept":
        engine = open_database(f"sqlite:///{home}/watchnext.db")
        with reading(engine) as connection:
            fates = {row.event_id: row.fate for row in connection.execute(sa.select(events))}
            slates = set(connection.execute(sa.select(served.c.request_id)).scalars())
            items = connection.execute(sa.select(sa.func.count()).select_from(served_items)).scalar_one()
        counts = read_counts(engine)
        engine.dispose()
        return cls(fates, slates, items, counts)


def kill_after(home: Path, lines: int) -> list[str]:
    """What a client said until it was killed, somewhere behind so many lines."""
    with client(home) as running:
        said = [running.said.readline() for _ in range(lines)]
        running.kill()
        said += running.said
    return [line.strip() for line in said if line.endswith("\n")]


def taken_in(home: Path) -> int:
    """How many slates the killed process had taken in, by its ledger."""
    (path,) = (home / "watchnext.db.ledgers").iterdir()
    return int.from_bytes(path.read_bytes(), "little")


def open_again(home: Path) -> dict[str, int]:
    with opened(home, feedback_config(), LATER) as feedback:
        assert not feedback.counters()["served.dropped"]
        return dict(feedback.counters())


def check_a_kill(home: Path, lines: int) -> None:
    home.mkdir(exist_ok=True)
    before = Kept.read(home)
    said = kill_after(home, lines)
    taken = taken_in(home)
    counts = open_again(home)
    kept = Kept.read(home)
    promised = {line[2:] for line in said if line.startswith("e ")}
    logged = {line[2:] for line in said if line.startswith("s ")}
    assert promised <= {event_id for event_id, fate in kept.fates.items() if fate == "accepted"}
    assert counts["events.accepted"] == len(kept.fates)
    assert kept.items == 3 * len(kept.slates)
    assert counts["served.logged"] == len(kept.slates)
    lost = counts.get(LOST, 0) - before.counts.get(LOST, 0)
    assert lost == taken - (len(kept.slates) - len(before.slates))
    assert len(logged - kept.slates) <= lost <= QUEUE
    assert {event_id.rsplit(".", 1)[0] for event_id in kept.fates} <= kept.slates


def test_what_was_accepted_is_there_after_kills(tmp_path: Path) -> None:
    for lines in (5, 90):
        check_a_kill(tmp_path, lines)


@pytest.mark.slow
def test_what_was_accepted_is_there_after_many_kills(tmp_path: Path) -> None:
    for lines in np.random.default_rng(1).integers(1, 400, 15).tolist():
        check_a_kill(tmp_path, lines)


def test_lost_slates_are_counted_one_by_one(tmp_path: Path) -> None:
    """The disk is held up, so that all slates wait in memory; then the process is killed."""
    with client(tmp_path, "150") as running:
        assert running.said.readline() == "open\n"
        with writing(open_database(f"sqlite:///{tmp_path}/watchnext.db")):
            running.hears.write("go\n")
            running.hears.flush()
            assert running.said.readline() == "logged\n"
            running.kill()
    assert open_again(tmp_path)[LOST] == 150
    assert open_again(tmp_path)[LOST] == 150
    assert Kept.read(tmp_path).slates == set()


def test_a_process_at_work_is_not_taken_for_dead(tmp_path: Path) -> None:
    with client(tmp_path, "3") as running:
        assert running.said.readline() == "open\n"
        assert LOST not in open_again(tmp_path)
        assert taken_in(tmp_path) == 0
