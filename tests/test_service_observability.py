"""Metrics of several processes, and their trap; log lines."""

import json
import os
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import structlog

from service.observability import configure_logs

ROOT = Path(__file__).resolve().parent.parent


def run(code: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False
    )


def test_workers_share_their_counts(tmp_path: Path) -> None:
    code = "from service.observability import Metrics\nm = Metrics()\nm.unknown_users.inc(2)\nprint(m.text().decode())"
    first = run(code, PROMETHEUS_MULTIPROC_DIR=str(tmp_path))
    assert "watchnext_unknown_users_total 2.0" in first.stdout, first.stderr
    second = run(code, PROMETHEUS_MULTIPROC_DIR=str(tmp_path))
    assert "watchnext_unknown_users_total 4.0" in second.stdout, second.stderr


def test_the_folder_set_too_late_stops_the_start(tmp_path: Path) -> None:
    code = (
        "import prometheus_client, os\n"
        f"os.environ['PROMETHEUS_MULTIPROC_DIR'] = {str(tmp_path)!r}\n"
        "from service.observability import Metrics\nMetrics()"
    )
    done = run(code)
    assert done.returncode != 0
    assert "PROMETHEUS_MULTIPROC_DIR must be set before prometheus_client is imported" in done.stderr


def test_a_line_goes_to_the_output_of_the_moment_whatever_it_holds(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info")
    log = structlog.get_logger().bind()
    log.info("first", number=2**70, bad=float("nan"), path=Path("x"), text="ü")
    with redirect_stdout(StringIO()) as elsewhere:
        log.warning("second", of={1: "a"})
    (line,) = capsys.readouterr().out.splitlines()
    first, second = json.loads(line), json.loads(elsewhere.getvalue())
    assert (first["event"], first["level"], first["number"], first["text"]) == ("first", "info", 2**70, "ü")
    assert (second["event"], second["level"], second["of"]) == ("second", "warning", {"1": "a"})
