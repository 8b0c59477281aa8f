"""The log of commands: one form for all loggers, and nothing left behind."""

import io
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import structlog
from rich.console import Console

from data.errors import WatchNextError
from data.home import Home
from data.journal import logged


def events(home: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (home / "watchnext.log").read_text().splitlines()]


def test_both_kinds_of_logger_come_out_the_same(home: Path) -> None:
    with logged("train", Home(home), Console(file=io.StringIO())):
        structlog.get_logger("training.run").info("day_trained", day="2026-01-01")
        logging.getLogger("models.registry").info("bundle_published", extra={"version": 7})
    _, ours, theirs, _ = events(home)
    assert (ours["event"], ours["level"], ours["day"]) == ("day_trained", "info", "2026-01-01")
    assert (theirs["event"], theirs["level"], theirs["version"]) == ("bundle_published", "info", 7)


def test_start_facts_results_and_end_are_kept(home: Path) -> None:
    with logged("train", Home(home), Console(file=io.StringIO()), name="mini") as results:
        results["version"] = 2026010101
    started, finished = events(home)
    assert (started["command"], started["event"], started["name"]) == ("train", "started", "mini")
    assert (finished["command"], finished["event"], finished["version"]) == ("train", "finished", 2026010101)


def test_only_warnings_reach_the_console(home: Path) -> None:
    screen = io.StringIO()
    with logged("train", Home(home), Console(file=screen, width=40)):
        logging.getLogger("models.registry").info("quiet")
        logging.getLogger("models.registry").warning("loud", extra={"reason": "[brackets] stay, and no line is broken"})
    assert "quiet" not in screen.getvalue()
    assert "[brackets] stay, and no line is broken" in screen.getvalue()
    assert len(screen.getvalue().splitlines()) == 1


def test_an_error_is_logged_and_goes_on(home: Path) -> None:
    with pytest.raises(ZeroDivisionError), logged("train", Home(home), Console(file=io.StringIO())):
        _ = 1 / 0
    assert events(home)[-1]["error"] == "ZeroDivisionError: division by zero"


def test_logging_is_as_it_was_afterwards(home: Path) -> None:
    before = (list(logging.getLogger().handlers), logging.getLogger("models").level, structlog.get_config())
    with logged("train", Home(home), Console(file=io.StringIO())):
        pass
    assert before == (list(logging.getLogger().handlers), logging.getLogger("models").level, structlog.get_config())


def test_a_home_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(WatchNextError, match="cannot write"),
        logged("train", Home(tmp_path / "file"), Console(file=io.StringIO())),
    ):
        pass
