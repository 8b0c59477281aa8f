"""Swaps under load: the champion is rolled back again and again while requests run against a real server.

    python benchmarks/swap_under_load.py [--swaps 50] [--clients 2] [--seconds 20] [--by api|command] [--source FOLDER]

Two versions of one trained bundle (of the registry folder ``--source``; default: a tiny one, trained first) in a home of
their own; a server process; client processes that each send the next request when the last is answered (rank 200
candidates, and every fourth time recommend; slates of one item). First some seconds without a swap, then ``--swaps``
rollbacks (over HTTP with an admin key, or by ``watchnext models rollback``, whose own start-up then competes for the same
cores), each from
the call until the server answers with the other version. Reported: requests that failed, p50 and p99 before and of all
requests that overlap a swap, RSS of the server after 5 swaps and after all. RSS is measured in as many swaps again
without the clients: under load it also grows with the slates that the service remembers (bounded, some KB a request).
Prints a table and writes ``$WATCHNEXT_HOME/benchmarks/swap_under_load.json``.
"""

import argparse
import http.client
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from rich.console import Console
from rich.table import Table

from data.home import Home
from models.bundle import CONFIG, EXTRA, MANIFEST
from models.registry import Registry
from service.keys import KeyStore
from service.trial import running_server

ROOT = Path(__file__).resolve().parents[1]
DOOR = ROOT / "watchnext.py"
CANDIDATES = 200
console = Console(width=None if sys.stdout.isatty() else 120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--swaps", type=int, default=50)
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=20.0, help="without a swap, before")
    parser.add_argument("--pause", type=float, default=1.0, help="seconds between swaps")
    parser.add_argument("--by", choices=("api", "command"), default="api")
    parser.add_argument("--source", type=Path, help="a registry's <name>/<version> folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        source = arguments.source or train(Path(folder) / "training")
        name = publish_twice(source, home)
        result = measure(name, home, arguments)
    show(result)
    target = Home.from_environment().benchmarks / "swap_under_load.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(result, indent=1))
    console.print(f"written to {target}")
    sys.exit(not result["passed"])


def train(folder: Path) -> Path:
    """A tiny bundle, trained on a simulated log. Returns its folder."""
    environment = os.environ | {"WATCHNEXT_HOME": str(folder)}
    logs = folder / "source"
    for words in (
        ["simulate", logs, "--rows", "20000", "--days", "4", "--seed", "1"],
        ["ingest", "tiny", logs],
        ["train", "tiny", "--until", "2025-01-08"],
    ):
        subprocess.run([sys.executable, DOOR, *words], env=environment, check=True, stdout=subprocess.DEVNULL)
    registry = Registry(Home(folder))
    return registry.folder_of("tiny", registry.champion("tiny") or 0)


def publish_twice(source: Path, home: Home) -> str:
    """Two versions of the same content, the second the champion, the first the one before."""
    registry, bundle = Registry(home), read(source)

    def write(folder: Path) -> None:
        shutil.copytree(source, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("manifest.json"))
        (folder / CONFIG).unlink()

    manifest = bundle.manifest
    for _ in range(2):
        version = registry.publish(
            bundle.name,
            manifest.window.last_day,
            write,
            config=bundle.config,
            first_day=manifest.window.first_day,
            reference_means=manifest.reference_means,
            utilisation=manifest.utilisation,
        )
        registry.promote(bundle.name, version)
    return bundle.name


def read(source: Path) -> Any:
    from models.bundle import read_bundle

    facts = json.loads((source / MANIFEST).read_text())
    return read_bundle(source, facts["name"], facts["version"])


def measure(name: str, home: Home, arguments: argparse.Namespace) -> dict[str, Any]:
    keys = {scope: KeyStore(home).create([scope]) for scope in ("rank", "admin")}
    folder = Registry(home).folder_of(name, Registry(home).champion(name) or 0)
    videos = json.loads((folder / EXTRA / "catalogue" / "ids.json").read_text())
    os.environ["WATCHNEXT_RATE_LIMIT"] = "0"
    command = [sys.executable, str(DOOR), "serve", "--name", name, "--workers", "1"]  # whose memory is asked for
    with running_server(command, home, console) as address:
        port = int(address.rpartition(":")[2])
        with clients(arguments.clients, port, keys["rank"], videos, home.root) as results:
            time.sleep(3)  # warm up the clients too
            before = (time.monotonic(), (time.sleep(arguments.seconds), time.monotonic())[1])
            server, swaps, loaded, rss = server_of(port), [], [], []
            for _ in range(arguments.swaps):
                began = time.monotonic()
                version = roll_back(name, home, arguments.by, port, keys["admin"])
                wait_for(version, port, keys["rank"])
                swaps.append((began, time.monotonic()))
                time.sleep(arguments.pause)
                loaded.append(resident(server))
        for _ in range(arguments.swaps):
            wait_for(roll_back(name, home, "api", port, keys["admin"]), port, keys["rank"])
            rss.append(resident(server))
        lines = np.concatenate([np.load(path) for path in results])
    return summarise(lines, before, swaps, rss, arguments) | {"rss_under_load_mb": [round(value, 1) for value in loaded]}


@contextmanager
def clients(count: int, port: int, key: str, videos: Sequence[str], folder: Path) -> Iterator[list[Path]]:
    """Client processes, until the block ends. Yields the files that then hold what they saw."""
    spawn = multiprocessing.get_context("spawn")
    stop, files = spawn.Event(), [folder / f"client-{i}.npy" for i in range(count)]
    running = [
        spawn.Process(target=send, args=(i, port, key, videos, stop, path), daemon=True) for i, path in enumerate(files)
    ]
    for process in running:
        process.start()
    try:
        yield files
    finally:
        stop.set()
        for process in running:
            process.join(60)


def send(seed: int, port: int, key: str, videos: Sequence[str], stop: Any, path: Path) -> None:
    """One closed loop. Writes rows [n, 4]: start, end (monotonic seconds), status (0: no answer), version."""
    random, seen = Random(seed), []
    headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    number = 0
    while not stop.is_set():
        user, number = f"u{random.randrange(500)}", number + 1
        recommend = number % 4 == 0
        body: dict[str, Any] = {"user_id": user, "context": {"device": "phone"}, "limit": 1}
        if not recommend:
            body["candidates"] = random.sample(videos, min(CANDIDATES, len(videos)))
        data = json.dumps(body)
        began = time.monotonic()
        try:
            connection.request("POST", "/v1/recommend" if recommend else "/v1/rank", data, headers)
            answer = connection.getresponse()
            content = answer.read()
            ended = time.monotonic()
            version = json.loads(content).get("model_version", 0) if answer.status == 200 else 0
            seen.append((began, ended, answer.status, version))
        except (OSError, http.client.HTTPException):
            seen.append((began, time.monotonic(), 0, 0))
            connection.close()
    np.save(path, np.array(seen, np.float64).reshape(-1, 4))


def roll_back(name: str, home: Home, by: str, port: int, key: str) -> int:
    """Returns the version that is the champion from now on."""
    if by == "command":
        environment = os.environ | {"WATCHNEXT_HOME": str(home.root)}
        words = [sys.executable, str(DOOR), "models", "rollback", name]
        subprocess.run(words, env=environment, check=True, stdout=subprocess.DEVNULL)
        return Registry(home).champion(name) or 0
    status, answer = ask("POST", "/v1/models/rollback", port, key, {})
    assert status == 200, answer
    return int(answer["champion"])


def wait_for(version: int, port: int, key: str) -> None:
    """Until the server answers with this version. Asked four times a second: at 20 the asking was a client of its own,
    and most of what the other clients felt of a swap."""
    until = time.monotonic() + 60
    body = {"user_id": "u1", "candidates": ["v1"]}
    while ask("POST", "/v1/rank", port, key, body)[1]["model_version"] != version:
        assert time.monotonic() < until, f"{version} never came to serve"
        time.sleep(0.25)


def ask(method: str, path: str, port: int, key: str, body: Any = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    answer = connection.getresponse()
    status, content = answer.status, json.loads(answer.read())
    connection.close()
    return status, content


def server_of(port: int) -> int:
    """The process that was started with ``--port``."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"serve" in words and str(port).encode() in words:
                return int(folder.name)
    raise RuntimeError(f"no server on port {port}")


def resident(process: int) -> float:
    """MB."""
    (line,) = [x for x in Path(f"/proc/{process}/status").read_text().splitlines() if x.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


def summarise(
    lines: np.ndarray,
    before: tuple[float, float],
    swaps: Sequence[tuple[float, float]],
    rss: Sequence[float],
    arguments: Any,
) -> dict[str, Any]:
    start, end, status = lines[:, 0], lines[:, 1], lines[:, 2]
    milliseconds = 1e3 * (end - start)
    calm = (start >= before[0]) & (end <= before[1])
    swapping = np.zeros(len(lines), bool)
    for began, ended in swaps:
        swapping |= (end >= began) & (start <= ended)
    between = (start > swaps[0][0]) & (end < swaps[-1][1]) & ~swapping

    def figures(rows: np.ndarray) -> dict[str, float]:
        times = milliseconds[rows]
        quantiles = dict(zip(("p50", "p99", "p999", "max"), np.percentile(times, (50, 99, 99.9, 100)).tolist(), strict=True))
        return {"requests": int(rows.sum()), **{key: round(value, 2) for key, value in quantiles.items()}}

    result: dict[str, Any] = {
        "swaps": len(swaps),
        "by": arguments.by,
        "clients": arguments.clients,
        "cores": os.cpu_count(),
        "requests": len(lines),
        "failed": int((status != 200).sum()),
        "versions": sorted({int(version) for version in lines[status == 200, 3]}),
        "seconds_per_swap": round(float(np.mean([ended - began for began, ended in swaps])), 2),
        "before": figures(calm),
        "during": figures(swapping),
        "between": figures(between),
        "rss_mb": [round(value, 1) for value in rss],
    }
    fifth = rss[min(4, len(rss) - 1)]
    result["p99_ratio"] = round(result["during"]["p99"] / result["before"]["p99"], 3)
    result["rss_ratio"] = round(rss[-1] / fifth, 3)
    result["passed"] = result["failed"] == 0 and result["p99_ratio"] <= 2 and result["rss_ratio"] <= 1.1
    return result


def show(result: dict[str, Any]) -> None:
    table = Table("", "requests", "p50 ms", "p99 ms", "p99.9 ms", "max ms")
    for row in ("before", "during", "between"):
        table.add_row(row, *(f"{result[row][key]:,}" for key in ("requests", "p50", "p99", "p999", "max")))
    console.print(table)
    rss = result["rss_mb"]
    console.print(
        f"{result['swaps']} swaps by {result['by']}, {result['seconds_per_swap']} s each; versions {result['versions']}"
    )
    console.print(f"failed requests: {result['failed']} of {result['requests']:,}")
    console.print(f"p99 during swaps / before: {result['p99_ratio']} (at most 2)")
    loaded = result["rss_under_load_mb"]
    console.print(f"RSS under load, with the slates remembered: {loaded[min(4, len(loaded) - 1)]} MB, {loaded[-1]} MB")
    console.print(
        f"RSS after 5 swaps {rss[min(4, len(rss) - 1)]} MB, after all {rss[-1]} MB: {result['rss_ratio']} (at most 1.1)"
    )


if __name__ == "__main__":
    main()
