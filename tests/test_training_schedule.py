"""training/schedule.py: cron lines as cron reads them, one run at a time, and a clean end."""

import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from data.errors import ConfigError
from training.schedule import Runner, cron_trigger

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("30 3 * * *", "2024-03-01 03:30"),
        ("0 4 * * 0", "2024-03-03 04:00"),  # a Sunday, as cron counts
        ("0 4 * * 1-5", "2024-03-01 04:00"),
        ("0 4 * * 7", "2024-03-03 04:00"),
        ("0 4 * * mon", "2024-03-04 04:00"),
        ("*/15 * * * *", "2024-03-01 00:15"),
    ],
)
def test_a_cron_line_means_what_cron_makes_of_it(line: str, expected: str) -> None:
    after = datetime(2024, 3, 1, 0, 1, tzinfo=UTC)  # a Friday
    assert f"{cron_trigger(line, 'UTC').get_next_fire_time(None, after):%Y-%m-%d %H:%M}" == expected


def test_the_time_is_that_of_the_configuration() -> None:
    found = cron_trigger("30 3 * * *", "Asia/Shanghai").get_next_fire_time(None, datetime(2024, 3, 1, tzinfo=UTC))
    assert found.astimezone(UTC) == datetime(2024, 3, 1, 19, 30, tzinfo=UTC)


@pytest.mark.parametrize("line", ["", "every night", "61 3 * * *", "30 3 * * * *", "30 3 * * someday"])
def test_other_lines_are_refused(line: str) -> None:
    with pytest.raises(ConfigError, match="cron line"):
        cron_trigger(line, "UTC")


def test_a_runner_gives_the_exit_code_and_stops_for_good() -> None:
    runner = Runner([sys.executable, "-c", "raise SystemExit(3)"], Console(quiet=True))
    assert runner.run() == 3
    runner.stop()
    assert runner.run() is None


def test_stopping_ends_the_run_that_is_at_work(tmp_path: Path) -> None:
    there = tmp_path / "there"
    code = f"import pathlib, time; pathlib.Path({str(there)!r}).touch(); time.sleep(600)"
    runner, codes = Runner([sys.executable, "-c", code], Console(quiet=True)), []
    thread = threading.Thread(target=lambda: codes.append(runner.run()))
    thread.start()
    while not there.exists():
        assert thread.is_alive()
        time.sleep(0.01)
    runner.stop()
    thread.join(30)
    assert codes == [-signal.SIGTERM]


KEEP = """
import sys
from rich.console import Console
import training.schedule
from apscheduler.triggers.interval import IntervalTrigger
training.schedule.cron_trigger = lambda line, zone: IntervalTrigger(seconds=1)  # no test waits for a minute to begin
command = [sys.executable, "-c", "print('a run', flush=True)"]
training.schedule.keep_running(command, "* * * * *", "UTC", Console(stderr=True))
print("left", flush=True)
"""


def test_it_keeps_running_until_it_is_told_to_stop() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", KEEP], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["a run\n"] * 2
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=60)
    assert (process.returncode, rest.splitlines()[-1]) == (0, "left")
