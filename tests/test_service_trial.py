"""A server for a moment: ready, refusing, ended; and what a person sees of its answer."""

import io
import sys
from pathlib import Path

import pytest
from rich.console import Console

from data.errors import WatchNextError
from data.home import Home
from service.keys import Keyring, KeyStore
from service.trial import borrowed_key, post, print_slate, running_server

SERVER = """
import sys, http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(200, b"{}")
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if key := self.headers["authorization"]:
            body = b'{"asked_with": "%s"}' % key.encode()
        self.answer(422 if b"bad" in body else 200, body)
    def answer(self, status, body):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[-1])), Handler).serve_forever()
"""


@pytest.fixture
def folder(home: Path) -> Home:
    home.mkdir()
    return Home(home)


def test_a_server_is_started_asked_and_stopped(folder: Home) -> None:
    with running_server([sys.executable, "-c", SERVER], folder, Console(file=io.StringIO())) as address:
        assert post(f"{address}/v1/recommend", {"user_id": "u1"}) == {"user_id": "u1"}
        with pytest.raises(WatchNextError, match=r'answered 422: \{"user_id": "bad"\}'):
            post(f"{address}/v1/recommend", {"user_id": "bad"})
    with pytest.raises(WatchNextError, match=r"does not answer: .*refused"):
        post(f"{address}/v1/recommend", {})


def test_where_keys_are_asked_for_one_is_borrowed_and_revoked(folder: Home) -> None:
    with borrowed_key(folder) as key:
        assert key is None
    KeyStore(folder).create(["events"])
    with (
        borrowed_key(folder) as key,
        running_server([sys.executable, "-c", SERVER], folder, Console(file=io.StringIO())) as at,
    ):
        assert post(f"{at}/v1/recommend", {}, key) == {"asked_with": f"Bearer {key}"}
        ring = Keyring(KeyStore(folder))
        ring.refresh()
        assert (found := ring.find(key or "")) is not None
        assert found.scopes == {"rank"}
    ring.refresh()
    assert ring.find(key or "") is None


def test_a_server_that_ends_is_said_with_where_its_output_is(folder: Home) -> None:
    command = [sys.executable, "-c", "import sys; print('no bundle'); sys.exit(3)"]
    with (
        pytest.raises(WatchNextError, match=r"ended with code 3 .*serve\.log"),
        running_server(command, folder, Console(file=io.StringIO())),
    ):
        pass
    assert (folder.root / "serve.log").read_text() == "no bundle\n"


def test_the_slate_is_a_table_with_every_figure() -> None:
    items = [
        {
            "position": 0,
            "video_id": "v7",
            "score": 1.25,
            "predictions": {"click": 0.3456, "watch_time": 1234.5},
            "generators": ["topic"],
        },
        {
            "position": 1,
            "video_id": "v8",
            "score": None,
            "predictions": {"click": None, "watch_time": 0.0},
            "generators": [],
        },
    ]
    screen = io.StringIO()
    answer = {"items": items, "model_version": 2026010101, "degraded": ["nearest: late"]}
    print_slate({"user_id": "u1"}, answer, Console(file=screen, width=100))
    lines = [line.split() for line in screen.getvalue().splitlines()]
    assert ["0", "v7", "1.25", "0.346", "1234", "topic"] in lines
    assert ["1", "v8", "-", "-", "0"] in lines
    assert "left out: nearest: late" in screen.getvalue()


def test_an_empty_slate_is_an_answer() -> None:
    screen = io.StringIO()
    print_slate({"user_id": "u1"}, {"items": [], "model_version": 1, "degraded": []}, Console(file=screen, width=100))
    assert "left out: nothing" in screen.getvalue()
