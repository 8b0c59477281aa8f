"""Metrics of several processes, and their trap; log lines."""

import asyncio
import json
import os
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import structlog
from starlette.types import Message, Receive, Scope, Send

from service.access import Access
from service.observability import Metrics, configure_logs

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


def test_a_request_is_counted_and_logged_behind_its_answer() -> None:
    """What was sent leaves with the end of the loop's step: the next one counts, and the line still names the request."""
    metrics, sent = Metrics(), list[Message]()
    configure_logs("info")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    async def ask() -> tuple[bytes, bytes]:
        await Access(app, metrics)({"type": "http", "method": "GET", "path": "/"}, receive, send)
        at_once = metrics.text()
        await asyncio.sleep(0)
        return at_once, metrics.text()

    with redirect_stdout(StringIO()) as out:
        at_once, behind = asyncio.run(ask())
    count = b'watchnext_requests_total{route="unmatched",status="204"} 1.0'
    assert count not in at_once
    assert count in behind
    line = json.loads(out.getvalue())
    assert (line["event"], line["status"]) == ("request", 204)
    assert line["request_id"] == dict(sent[0]["headers"])[b"x-request-id"].decode()
