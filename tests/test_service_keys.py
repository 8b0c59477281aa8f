"""Keys: what is stored, who is let in, what the refusals say, and that revoking reaches a running service."""

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

import watchnext
from data.errors import WatchNextError
from data.home import Home
from service.keys import Keyring, KeyStore
from service.problems import MEDIA_TYPE, ProblemDetails
from service.settings import Settings
from service.start import check_start, is_loopback
from tests.service_fakes import client_of, metric

GOOD = {"user_id": "u1", "candidates": ["v1", "v2"]}


@pytest.fixture
def store(home: Path) -> KeyStore:
    return KeyStore(Home(home))


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < give_up, "it never came to be"
        time.sleep(0.005)


def test_only_a_hash_is_stored(store: KeyStore, home: Path) -> None:
    token = store.create(["rank", "events"], "feed team")
    secret = token.split("_", 2)[2]
    assert len(secret) == 43  # 256 bits
    (row,) = sqlite3.connect(home / "watchnext.db").execute("SELECT * FROM api_keys").fetchall()
    assert token.split("_")[1] in row
    assert not any(secret in str(value) for value in row)
    for path in home.iterdir():
        assert secret.encode() not in path.read_bytes()


def test_a_key_is_found_only_whole_and_only_while_it_lives(store: KeyStore) -> None:
    token, other = store.create(["rank"]), store.create(["admin"])
    ring = Keyring(store)
    assert ring.find(token) is None  # not read yet
    ring.refresh()
    found = ring.find(token)
    assert found is not None
    assert (found.key_id, found.scopes) == (token.split("_")[1], {"rank"})
    mixed = "_".join([*token.split("_")[:2], other.split("_", 2)[2]])
    for wrong in ("", "wn_", token[:-1], token + "a", token[:-1] + ("a" if token[-1] != "a" else "b"), mixed, token.upper()):
        assert ring.find(wrong) is None, wrong
    store.revoke(token.split("_")[1])
    ring.refresh()
    assert ring.find(token) is None
    assert ring.find(other) is not None


def test_requests_read_no_database(store: KeyStore, home: Path) -> None:
    token = store.create(["rank"])
    with client_of(poll_seconds=60) as client:
        (home / "watchnext.db").rename(home / "elsewhere.db")
        assert client.post("/v1/rank", json=GOOD, headers=bearer(token)).status_code == 200
        assert client.post("/v1/rank", json=GOOD).status_code == 401


@pytest.mark.parametrize("scopes", [[], ["root"], ["rank", "root"], [""]])
def test_scopes_are_those_three(store: KeyStore, scopes: list[str]) -> None:
    with pytest.raises(WatchNextError, match="a key needs scopes from rank, events, admin"):
        store.create(scopes)
    assert store.all() == []


def test_asking_for_keys_makes_no_database(store: KeyStore, home: Path) -> None:
    assert store.all() == []
    assert not home.exists()


def test_without_a_key_401_and_with_the_wrong_scope_403(store: KeyStore) -> None:
    rank, events, admin = (store.create([scope]) for scope in ("rank", "events", "admin"))
    with client_of() as client:
        for headers in ({}, bearer("nonsense"), {"authorization": f"Basic {rank}"}, {"authorization": rank}):
            refused = client.post("/v1/rank", json=GOOD, headers=headers)
            assert (refused.status_code, refused.headers["content-type"]) == (401, MEDIA_TYPE)
            assert refused.headers["www-authenticate"].startswith('Bearer realm="watchnext"')
            assert ProblemDetails.model_validate(refused.json()).status == 401
        refused = client.post("/v1/rank", json=GOOD, headers=bearer(events))
        assert (refused.status_code, refused.headers["content-type"]) == (403, MEDIA_TYPE)
        assert 'error="insufficient_scope", scope="rank"' in refused.headers["www-authenticate"]
        assert refused.json()["detail"] == f"the key {events.split('_')[1]} has the scopes events; this needs rank"
        assert client.post("/v1/rank", json=GOOD, headers=bearer(rank)).status_code == 200
        assert client.post("/v1/rank", json=GOOD, headers={"Authorization": f"bearer  {rank} "}).status_code == 200
        for path in ("/v1/models/promote", "/v1/models/rollback", "/v1/videos"):
            assert client.post(path, json={}, headers=bearer(rank)).status_code == 403, path
        assert client.get("/v1/models", headers=bearer(events)).status_code == 200  # any key may ask
        assert client.get("/no/such/path").status_code == 401
        assert client.get("/no/such/path", headers=bearer(rank)).status_code == 404
        assert metric_with(client, admin, "401") == 5
        assert metric_with(client, admin, "403") == 4


def metric_with(client: TestClient, token: str, status: str) -> float:
    text = client.get("/metrics", headers=bearer(token)).text
    (line,) = [line for line in text.splitlines() if line.startswith(f'watchnext_refused_total{{status="{status}"}}')]
    return float(line.rpartition(" ")[2])


def test_health_is_open_and_metrics_are_not(store: KeyStore) -> None:
    token = store.create(["rank"])
    with client_of() as client:
        assert {path: client.get(path).status_code for path in ("/healthz", "/readyz", "/openapi.json", "/metrics")} == {
            "/healthz": 200,
            "/readyz": 200,
            "/openapi.json": 200,
            "/metrics": 401,
        }
        assert client.get("/metrics", headers=bearer(token)).status_code == 200
    with client_of(open_metrics=True) as client:
        assert client.get("/metrics").status_code == 200


def test_a_refused_request_is_not_read(store: KeyStore) -> None:
    store.create(["rank"])
    with client_of(body_limit=1024) as client:
        assert client.post("/v1/rank", content=b"x" * 5000).status_code == 401  # not 413, 415 or 400


def test_keys_made_and_revoked_reach_a_running_service(store: KeyStore) -> None:
    with client_of(poll_seconds=0.01) as client:
        assert client.post("/v1/rank", json=GOOD).status_code == 200  # no key has ever been made
        token = store.create(["rank"])
        until(lambda: client.post("/v1/rank", json=GOOD).status_code == 401)
        assert client.post("/v1/rank", json=GOOD, headers=bearer(token)).status_code == 200
        store.revoke(token)
        until(lambda: client.post("/v1/rank", json=GOOD, headers=bearer(token)).status_code == 401)
        assert client.post("/v1/rank", json=GOOD).status_code == 401  # the last key's end does not open the door


def test_a_database_that_cant_be_read_at_the_start_lets_nobody_in(home: Path, store: KeyStore) -> None:
    token = store.create(["rank"])
    store.close()  # so that no write-ahead log mends what follows
    database = home / "watchnext.db"
    content = database.read_bytes()
    database.write_bytes(b"no database at all" * 100)
    with client_of(poll_seconds=0.01) as client:
        refused = client.post("/v1/rank", json=GOOD)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert "the keys can't be read" in refused.json()["detail"]
        assert client.get("/healthz").status_code == 200
        (home / "copy.db").write_bytes(content)
        (home / "copy.db").replace(database)  # never empty: that would be a database without keys
        until(lambda: client.post("/v1/rank", json=GOOD, headers=bearer(token)).status_code == 200)
        assert client.post("/v1/rank", json=GOOD).status_code == 401


def test_a_database_that_breaks_later_keeps_the_keys(home: Path, store: KeyStore) -> None:
    token = store.create(["rank"])
    ring = Keyring(store)
    ring.refresh()
    store.close()
    (home / "watchnext.db").write_bytes(b"no database at all" * 100)
    ring.refresh()
    assert ring.find(token) is not None
    assert ring.required


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("10.0.0.1", False),
        ("example.com", False),
        ("127.0.0.1.example.com", False),
    ],
)
def test_what_is_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_an_open_start_needs_to_be_asked_for(store: KeyStore, home: Path) -> None:
    closed = Settings(home=home)
    with pytest.raises(WatchNextError, match=r"no API key, so anybody who reaches 0.0.0.0 .*WATCHNEXT_ALLOW_OPEN=1"):
        check_start(closed, "0.0.0.0")
    check_start(closed, "127.0.0.1")
    check_start(Settings(home=home, allow_open=True), "0.0.0.0")
    store.create(["rank"])
    check_start(closed, "0.0.0.0")


def test_serve_on_an_open_address_without_keys_says_so_and_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*_: object, **__: object) -> None:
        raise AssertionError("it was started")

    monkeypatch.setattr("uvicorn.run", started)
    done = CliRunner().invoke(watchnext.app, ["serve", "--host", "0.0.0.0"])
    assert done.exit_code == 2
    assert "no API key" in done.stderr


def test_the_commands(home: Path) -> None:
    run = CliRunner().invoke
    made = run(watchnext.app, ["keys", "create", "--scope", "rank", "--scope", "events", "--note", "the [red]app"])
    token = made.stdout.strip()
    assert made.exit_code == 0
    ring = Keyring(KeyStore(Home(home)))
    ring.refresh()
    assert ring.find(token) is not None
    shown = run(watchnext.app, ["keys", "list"], env={"COLUMNS": "200"}).stdout
    assert token.split("_")[1] in shown
    assert "events, rank" in shown
    assert "the [red]app" in shown
    assert token.split("_", 2)[2] not in shown
    assert run(watchnext.app, ["keys", "revoke", token.split("_")[1]]).exit_code == 0
    ring.refresh()
    assert ring.find(token) is None
    missing = run(watchnext.app, ["keys", "revoke", "0123456789ab"])
    assert (missing.exit_code, missing.stderr.strip()) == (
        2,
        "watchnext: there is no key '0123456789ab': `watchnext keys list` shows them",
    )


def test_openapi_declares_the_key_and_each_scope() -> None:
    with client_of() as client:
        schema = client.get("/openapi.json").json()
    assert schema["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    assert schema["paths"]["/v1/rank"]["post"]["security"] == [{"key": ["rank"]}]
    assert schema["paths"]["/v1/models"]["get"]["security"] == [{"key": []}]
    assert "security" not in schema["paths"]["/healthz"]["get"]


def test_the_log_says_which_key_asked(store: KeyStore, capsys: pytest.CaptureFixture[str]) -> None:
    token = store.create(["rank"])
    with client_of(log_level="info") as client:
        client.post("/v1/rank", json=GOOD, headers=bearer(token))
    out = capsys.readouterr().out
    assert f'"key":"{token.split("_")[1]}"' in out.replace(" ", "")
    assert token.split("_", 2)[2] not in out


def test_without_keys_nothing_is_refused() -> None:
    with client_of() as client:
        assert client.post("/v1/rank", json=GOOD).status_code == 200
        assert metric(client, "watchnext_refused_total", status="401") == 0
