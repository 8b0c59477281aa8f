"""Slates wait a moment for company; whoever waits for the disk doesn't."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from data.database import database_url, open_database
from data.feedback import queue
from data.feedback.queue import Operation, WriteQueue
from data.home import Home


def opened(folder: Path) -> tuple[WriteQueue, list[int], threading.RLock]:
    """A queue that is not started yet, and the stamps of the groups that it wrote."""
    engine = open_database(database_url(Home(folder), {}))
    groups: list[Any] = []
    lock = threading.RLock()

    def write(_: Any, group: Sequence[Operation]) -> None:
        groups.append([operation.stamp for operation in group])

    return WriteQueue(engine, write, lambda *_: None, lock, 100), groups, lock


def put(waiting: WriteQueue, lock: threading.RLock, operation: Operation) -> None:
    with lock:
        waiting.put(operation)


def test_slates_are_written_together_and_at_once_where_somebody_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "GATHERING", 3600.0)
    waiting, groups, lock = opened(tmp_path)
    waiting.start()
    for stamp in (1, 2, 3):
        put(waiting, lock, Operation(stamp))
    assert groups == []
    done: Future[None] = Future()
    put(waiting, lock, Operation(4, done=done))
    done.result(60)
    assert groups == [[1, 2, 3, 4]]
    put(waiting, lock, Operation(5))
    waiting.close()  # nor does the end wait
    assert groups == [[1, 2, 3, 4], [5]]


def test_a_slate_alone_is_written_after_a_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "GATHERING", 0.001)
    waiting, groups, lock = opened(tmp_path)
    waiting.start()
    put(waiting, lock, Operation(1))
    until = time.monotonic() + 60
    while not groups and time.monotonic() < until:
        time.sleep(0.001)
    assert groups == [[1]]
    waiting.close()
