"""Metrics of several processes, and their trap."""

import os
import subprocess
import sys
from pathlib import Path

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
