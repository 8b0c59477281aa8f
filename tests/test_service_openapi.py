"""Everything that the OpenAPI document promises, asked for by schemathesis of a real server: with keys, and without."""

import http.client
import os
import threading
from collections import Counter
from collections.abc import Iterator

import pytest
import requests
import schemathesis
import uvicorn
from hypothesis import HealthCheck, given, settings
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance

from data.home import Home
from service.app import create_app
from service.keys import KeyStore
from service.settings import Settings
from tests.service_fakes import NOW, serving

EXAMPLES = int(os.environ.get("WATCHNEXT_TEST_EXAMPLES", "25"))
"""Of each operation, once fitting the document and once not."""
CASES: Counter[str] = Counter()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A server's address, and a key that may do everything."""
    home = tmp_path_factory.mktemp("home")
    key = KeyStore(Home(home)).create(["rank", "events", "admin"])
    app = create_app(
        Settings(home=home, log_level="error", deadline_ms=60_000, rate_limit=0, body_limit=2_000_000),
        lambda _: serving(),
        clock=lambda: NOW,
    )
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            pass
        address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        while requests.get(f"{address}/readyz", timeout=30).status_code == 503:  # the bundle is loaded beside it
            pass
        yield address, key
    finally:
        server.should_exit = True
        thread.join()


SCHEMA = schemathesis.openapi.from_dict(create_app(Settings(log_level="error")).openapi())
OPERATIONS = {f"{found.ok().method.upper()} {found.ok().path}": found.ok() for found in SCHEMA.get_all_operations()}
PAIRS = [
    (name, mode)
    for name in OPERATIONS
    for mode in GenerationMode
    if name not in ("GET /healthz", "GET /readyz") or mode is GenerationMode.POSITIVE  # there is nothing to get wrong
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "mode"), PAIRS)
def test_every_operation_keeps_what_it_promises(name: str, mode: GenerationMode, served: tuple[str, str]) -> None:
    base_url, key = served

    @given(case=OPERATIONS[name].as_strategy(generation_mode=mode))
    @settings(max_examples=EXAMPLES, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    def holds(case: schemathesis.Case) -> None:
        CASES[name] += 1
        # Whether keys are asked for is tested below: the check leaves the given one in.
        # Names of objectives, labels and features are the bundle's, so what fits the document may still be a 422.
        case.call_and_validate(
            base_url=base_url,
            headers={"authorization": f"Bearer {key}"},
            excluded_checks=[positive_data_acceptance, ignored_auth],
        )

    holds()


@pytest.mark.parametrize("name", sorted(OPERATIONS.keys() - {"GET /healthz", "GET /readyz"}))
def test_every_other_operation_asks_for_a_key(name: str, served: tuple[str, str]) -> None:
    method, path = name.split()
    for headers in ({}, {"authorization": "Bearer wn_0123456789ab_" + "a" * 43}):
        answer = requests.request(method, served[0] + path, headers=headers, timeout=30)
        assert (answer.status_code, "www-authenticate" in answer.headers) == (401, True)


@pytest.mark.slow
def test_all_operations_were_asked() -> None:
    assert set(CASES) == set(OPERATIONS)
    print(f"\n{sum(CASES.values())} cases of {len(OPERATIONS)} operations: {dict(CASES)}")


def test_a_refused_body_does_not_get_in_the_way_of_the_next_request(served: tuple[str, str]) -> None:
    connection = http.client.HTTPConnection(served[0].removeprefix("http://"), timeout=30)
    for _ in range(3):
        connection.request("POST", "/v1/rank", b"x" * 300_000, {"content-type": "application/json"})
        answer = connection.getresponse()
        assert (answer.status, b"expected the header" in answer.read()) == (401, True)
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b'{"status":"ok"}')
    connection.close()
