"""A server for a moment: started in a process of its own, asked for a slate, shown, stopped. The demo's last step."""

import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from data.errors import WatchNextError
from data.home import Home
from service.keys import KeyStore

READY_WITHIN = 60.0
"""Seconds in which the server must be ready."""


@contextmanager
def running_server(
    command: Sequence[str], home: Home, console: Console, settings: Mapping[str, str] | None = None
) -> Iterator[str]:
    """``command`` with ``--port`` and a free port, from ready until the block ends. Yields the server's address.

    Args:
        settings: added to the environment.

    Raises:
        WatchNextError: it ended, or was not ready in time; the text says where its output is.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log_path, environment = home.root / "serve.log", {**os.environ, **(settings or {})}
    environment["WATCHNEXT_HOME"] = str(home.root)
    with log_path.open("w") as log:
        server = subprocess.Popen([*command, "--port", str(port)], stdout=log, stderr=log, env=environment)
    try:
        seconds = _wait_until_ready(server, f"http://127.0.0.1:{port}", log_path)
        console.print(f"ready after {seconds:.1f} s at http://127.0.0.1:{port}", highlight=False)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _wait_until_ready(server: "subprocess.Popen[bytes]", address: str, log_path: Path) -> float:
    started = time.monotonic()
    while time.monotonic() - started < READY_WITHIN and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/readyz", timeout=5):
                return time.monotonic() - started
        except OSError:  # not listening yet, or 503
            time.sleep(0.1)
    state = "is not ready" if server.poll() is None else f"ended with code {server.returncode}"
    raise WatchNextError(f"the server {state} after {time.monotonic() - started:.0f} s: see {log_path}")


@contextmanager
def borrowed_key(home: Home) -> Iterator[str | None]:
    """A key to rank with, revoked when the block ends; None where the home has no keys, and so asks for none."""
    store = KeyStore(home)
    try:
        if not store.all():
            yield None
            return
        key = store.create(["rank"], "the demo's")
        try:
            yield key
        finally:
            store.revoke(key)
    finally:
        store.close()


def post(url: str, body: Mapping[str, Any], key: str | None = None) -> dict[str, Any]:
    """The JSON answer to a JSON body, asked with an API key where one is given.

    Raises:
        WatchNextError: with the answer, where it is an error; or there is none.
    """
    headers = {"content-type": "application/json", **({"authorization": f"Bearer {key}"} if key else {})}
    return _ask(urllib.request.Request(url, json.dumps(body).encode(), headers))


def get(url: str) -> dict[str, Any]:
    """The JSON answer.

    Raises:
        WatchNextError: with the answer, where it is an error; or there is none.
    """
    return _ask(urllib.request.Request(url))


def _ask(request: urllib.request.Request) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            answer: dict[str, Any] = json.load(response)
            return answer
    except urllib.error.HTTPError as error:
        raise WatchNextError(f"{request.full_url} answered {error.code}: {error.read().decode(errors='replace')}") from None
    except OSError as error:
        raise WatchNextError(f"{request.full_url} does not answer: {error}") from None


def print_slate(request: Mapping[str, Any], answer: Mapping[str, Any], console: Console) -> None:
    """The answer of /v1/recommend as a table that a person can read."""
    items = answer["items"]
    objectives = list(items[0]["predictions"]) if items else []
    table = Table(title=f"What user {request['user_id']} should watch next", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in ("#", "video", "score", *objectives):
        table.add_column(heading, no_wrap=True, justify="left" if heading == "video" else "right")
    table.add_column("found by", min_width=10)
    for item in items:
        figures = (_figure(value) for value in (item["score"], *item["predictions"].values()))
        table.add_row(str(item["position"]), item["video_id"], *figures, ", ".join(item["generators"]))
    console.print(f"POST /v1/recommend {json.dumps(request)}", highlight=False, soft_wrap=True)
    console.print(table)
    console.print(f"model version {answer['model_version']}; left out: {', '.join(answer['degraded']) or 'nothing'}")


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.{3 if abs(value) >= 0.01 else 2}g}" if abs(value) < 1000 else f"{value:.0f}"
