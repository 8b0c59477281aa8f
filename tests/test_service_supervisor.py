"""`watchnext serve --workers 2` as its users start it: one port, a worker killed, all stopped, and the supervisor killed."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import sqlalchemy as sa
from rich.console import Console
from typer.testing import CliRunner

import watchnext
from data.columns import Batch, Strings
from data.config import load_config
from data.database import open_database, reading
from data.days import day_start
from data.feedback.schema import counters, events, served
from data.home import Home
from service.settings import Settings, cores
from service.shards import shard_of
from service.supervisor import _private_folder
from tests.small_log import write_home

ROOT = Path(watchnext.__file__).parent
DAYS = [date(2024, 3, 1) + timedelta(days=i) for i in range(2)]
CONFIG = """
name = "mini"
dataset = "mini"
seed = 1
labels = { click = { type = "binary" } }
features = [{ kind = "category", name = "video", column = "video_id", dim = 2 }]
objectives = [{ name = "click", family = "engagement", label = "click", kind = "binary" }]
model = { trunk = { experts = 2, layers = [4] }, tower = [] }
evaluation = { bootstrap = 5 }
log = { context = {} }
"""
USERS = ["u2", "u1", "u3", "u4", "u5", "u6"]


def rows(day: date) -> Batch:
    times = day_start(day, "UTC") + 60_000 * np.arange(40)
    texts = {
        "user_id": Strings.of(f"u{i % 5}" for i in range(40)),
        "video_id": Strings.of(f"v{i % 7}" for i in range(40)),
    }
    clicks = (np.arange(40) % 3 == 0).astype(np.float64)
    return Batch({**texts, "timestamp": times, "visible_at": times, "click": clicks})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a champion."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "mini.toml").write_text(CONFIG)
    config = load_config(folder / "mini.toml")
    home = Home(folder / "home")
    write_home(home, config, {day: rows(day) for day in DAYS}, {})
    from training.run import train

    train(config, home, None, DAYS[-1], False, Console(quiet=True))
    return home.root


@contextmanager
def supervised(home: Path) -> Iterator[tuple["subprocess.Popen[bytes]", str]]:
    """A service of two workers, ready, and its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "watchnext", "serve", "--name", "mini", "--port", str(port), "--workers", "2"]
    more = {"WATCHNEXT_HOME": str(home), "WATCHNEXT_DEADLINE_MS": "60000", "WATCHNEXT_LOG_LEVEL": "warning"}
    with (home / "serve.log").open("w") as log:
        process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **more}, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(process, address)
        yield process, address
    finally:
        process.terminate()
        process.wait(60)


def wait_until_ready(process: "subprocess.Popen[bytes]", address: str) -> None:
    until = time.monotonic() + 120
    while True:
        assert process.poll() is None
        assert time.monotonic() < until, "it never was ready"
        try:
            if requests.get(f"{address}/readyz", timeout=30).status_code == 200:
                return
        except OSError:
            pass
        time.sleep(0.1)


def workers_of(process: "subprocess.Popen[bytes]") -> dict[int, int]:
    """Process ids by index."""
    found = {}
    for task in Path(f"/proc/{process.pid}/task").glob("*/children"):
        for child in task.read_text().split():
            words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
            found[int(words[words.index(b"service.worker") + 1])] = int(child)
    return found


def post(address: str, path: str, body: Any) -> requests.Response:
    """On a connection of its own, so that chance has it who takes it."""
    return requests.post(f"{address}{path}", json=body, timeout=60)


def slate_of(address: str, user: str) -> dict[str, Any]:
    reply = post(address, "/v1/rank", {"user_id": user, "candidates": ["v1", "v2", "v3"]})
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def metric(text: str, name: str) -> float:
    return float(next(line.rpartition(" ")[2] for line in text.splitlines() if line.startswith(name + " ")))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="asks /proc for the workers")
def test_two_workers_from_start_to_end(trained: Path, home: Path) -> None:
    shutil.copytree(trained, home)
    with supervised(home) as (process, address):
        accepted = []
        for number in range(40):
            slate = slate_of(address, USERS[number % len(USERS)])
            event = {"event_id": f"e{number}", "request_id": slate["request_id"], "video_id": "v1", "type": "view"}
            reply = post(address, "/v1/events", {"events": [event]})
            assert reply.json()["events"][0]["status"] == "accepted"
            accepted.append(event["event_id"])
        text = requests.get(f"{address}/metrics", timeout=60).text
        assert metric(text, 'watchnext_requests_total{route="/v1/rank",status="200"}') == 40
        assert metric(text, 'watchnext_requests_total{route="/v1/events",status="202"}') == 40
        assert metric(text, 'watchnext_events_total{status="accepted"}') == 40
        before = workers_of(process)
        assert sorted(before) == [0, 1]
        os.kill(before[1], signal.SIGKILL)
        away, there = (next(user for user in USERS if shard_of(user) % 2 == index) for index in (1, 0))
        until = time.monotonic() + 30
        while (gone := reached(address, away)) is None or gone.status_code == 200:
            assert time.monotonic() < until, "its users never heard that it was away"
        assert (gone.status_code, "retry-after" in gone.headers) == (503, True)
        assert slate_of(address, there)["items"]
        wait_until_ready(process, address)
        after = workers_of(process)
        assert after[0] == before[0]
        assert after[1] != before[1]
        assert slate_of(address, away)["items"]
        text = requests.get(f"{address}/metrics", timeout=60).text  # counts outlive who counted
        assert metric(text, 'watchnext_events_total{status="accepted"}') == 40
        again = [{"event_id": name, "request_id": "nobody's", "video_id": "v1", "type": "view"} for name in accepted]
        fates = post(address, "/v1/events", {"events": again}).json()["events"]
        assert {fate["status"] for fate in fates} == {"duplicate"}
        last = [slate_of(address, user)["request_id"] for user in USERS]
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == -signal.SIGTERM
    engine = open_database(f"sqlite:///{home}/watchnext.db")
    with reading(engine) as connection:
        counts = dict(connection.execute(sa.select(counters.c.name, counters.c.value)).all())
        assert set(connection.execute(sa.select(events.c.event_id)).scalars()) == set(accepted)
        assert set(last) <= set(connection.execute(sa.select(served.c.request_id)).scalars())  # what was queued was written
    engine.dispose()
    assert counts["events.accepted"] == 40
    assert list(home.glob("workers-*")) == []


def reached(address: str, user: str) -> requests.Response | None:
    """None where the connection was to the killed one."""
    try:
        return post(address, "/v1/rank", {"user_id": user, "candidates": ["v1"]})
    except requests.ConnectionError:
        return None


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="asks /proc for the workers")
def test_workers_end_with_their_supervisor(trained: Path, home: Path) -> None:
    shutil.copytree(trained, home)
    with supervised(home) as (process, _):
        workers = workers_of(process)
        process.kill()
        process.wait()
        until = time.monotonic() + 60
        while any(Path(f"/proc/{worker}").exists() for worker in workers.values()):
            assert time.monotonic() < until, "they live on"
            time.sleep(0.1)


def test_a_replays_clock_is_one_processs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings(replay_clock=True).processes == 1
    monkeypatch.setenv("WATCHNEXT_REPLAY_CLOCK", "1")
    done = CliRunner().invoke(watchnext.app, ["serve", "--workers", "2"])
    assert done.exit_code == 2
    assert "WATCHNEXT_WORKERS=1" in done.stderr


def test_how_many_there_are() -> None:
    assert Settings().processes == min(4, cores())
    assert Settings(workers=7).processes == 7
    assert (Settings().ranking_threads(True), Settings().ranking_threads(False)) == (1, 2)
    assert Settings(threads=3).ranking_threads(True) == 3


def test_an_address_that_is_taken_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = CliRunner().invoke(watchnext.app, ["serve", "--workers", "2", "--port", str(port)])
    assert done.exit_code == 2
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr


@pytest.mark.slow
def test_workers_that_refuse_their_settings_end_the_service(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHNEXT_BLOCKED_FILE", str(home / "missing"))
    done = CliRunner().invoke(watchnext.app, ["serve", "--workers", "2", "--port", "0"])
    assert done.exit_code == 2
    assert list(home.glob("workers-*")) == []


def test_the_private_folder_is_private_and_goes(tmp_path: Path) -> None:
    left = tmp_path / "workers-killed"
    left.mkdir()
    with _private_folder(tmp_path) as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        assert not left.exists()
        with _private_folder(tmp_path) as other:  # another service of this home is left alone
            assert folder.exists()
            assert other != folder
    assert not folder.exists()
    deep = tmp_path / ("x" * 100)
    with _private_folder(deep) as elsewhere:  # a socket's path would be too long
        assert len(str(elsewhere / "63.sock")) < 108
