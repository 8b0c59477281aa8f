"""The service over HTTP: against an empty request, a plain TensorFlow handler, and itself with other settings.

    python benchmarks/serving_http.py [--bundles made kuairand] [--seconds 8] [--rounds 5] [--parts lone limit recommend]

A real ``watchnext serve`` (default settings but for the rate limit) on a bundle of ``benchmarks/serving_bundles.py``; one
client process with raw sockets and bodies made beforehand, on the same cores. Every ``/v1/rank`` request is a user not asked
for before with 500 candidates drawn uniformly; a slate of 20 is logged as served, and all 500 with their predictions are in
the answer (`scored`) as columns.

- lone: one closed-loop client: an empty FastAPI request, ``/v1/rank`` (all as columns; the slate alone as columns, and as
  items; a slate of all 500, as columns and as items), and the scoring of 500 candidates in process, in turns.
- limit: closed loop over several connections; then at 60% of that an open loop (latency from when a request was due). The
  rival is a straightforward FastAPI handler: dict in, features of the videos from a table, a TensorFlow SavedModel's
  signature, dicts out; it neither looks users up nor logs. Ours as one process of two threads, and as two workers of one
  thread each behind one port, of which each hands on the requests of the other's users.
- recommend: ``/v1/recommend`` of 1,000 users who come back, each answer followed by ten events, in turns with ``/v1/rank``.

Prints tables and writes ``$WATCHNEXT_HOME/benchmarks/serving_http.json``.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.serving_bundles import NAMES, USERS, configuration, make
from benchmarks.serving_client import Connection, Sample, closed_loop, open_loop, percentiles, post
from benchmarks.serving_peers import EMPTY, RIVAL
from data.home import Home
from service.trial import running_server

ROOT = Path(__file__).resolve().parents[1]
DOOR = ROOT / "watchnext.py"
PEERS = ROOT / "benchmarks" / "serving_peers.py"
CANDIDATES, SLATE = 500, 20
CONNECTIONS = 8
SHARE = 0.6
EVENTS = 10
REPEATS = 5
RETURNING = 1_000
TARGET = "slate of 20, all 500 as columns"
PARTS = ("lone", "limit", "recommend")
SETTINGS = {"WATCHNEXT_RATE_LIMIT": "0", "WATCHNEXT_DEADLINE_MS": "30000"}
PROCESSES: dict[int, list[int]] = {}
"""By port: the one that was started, and its workers."""
console = Console(width=None if sys.stdout.isatty() else 120)


class Bodies:
    """Requests, made before they are sent. Users come in a shuffled order, each once before any comes again."""

    def __init__(self, name: str, videos: Sequence[str], seed: int = 1) -> None:
        self._rng, self._videos = np.random.default_rng(seed), np.array(videos)
        self._users = iter(np.tile(self._rng.permutation(USERS), 100).tolist())
        config = configuration(name)
        self._context = {column: str(place % 10) for place, column in enumerate(config.log.context)}
        self.event = next(label for label, facts in config.labels.items() if facts.type == "binary")

    def rank(self, count: int, form: str = "columns", limit: int | None = SLATE, scored: bool = True) -> list[bytes]:
        return [post("/v1/rank", self._rank(form, limit, scored)) for _ in range(count)]

    def _rank(self, form: str, limit: int | None, scored: bool) -> dict[str, Any]:
        candidates = self._videos[self._rng.choice(len(self._videos), CANDIDATES, replace=False)].tolist()
        return {"user_id": f"u{next(self._users)}", "candidates": candidates, "context": self._context} | {
            "format": form,
            "limit": limit,
            "scored": scored,
        }

    def recommend(self, count: int) -> list[bytes]:
        users = self._rng.integers(0, RETURNING, count).tolist()
        return [
            post(
                "/v1/recommend",
                {"user_id": f"u{u}", "context": self._context, "format": "columns", "limit": SLATE, "scored": True},
            )
            for u in users
        ]

    def events(self, answer: bytes) -> bytes:
        """Ten events on a slate."""
        said = json.loads(answer)
        request, shown = said["request_id"], said["slate"]["video_id"]
        batch = [
            {"event_id": f"{request}-{n}", "request_id": request, "video_id": shown[n % len(shown)], "type": self.event}
            | {"value": 1, "timestamp": int(time.time() * 1e3)}
            for n in range(EVENTS)
        ]
        return post("/v1/events", {"events": batch})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seconds", type=float, default=10.0, help="of each way and loop of `limit`, in five parts")
    parser.add_argument("--rounds", type=int, default=5, help="of `lone` and `recommend`")
    parser.add_argument("--requests", type=int, default=60, help="of each kind in a round")
    parser.add_argument("--workers", type=int, default=1, help="of `lone` and `recommend`")
    parser.add_argument("--homes", type=Path, help="where the bundles are kept from run to run; default: nowhere")
    arguments = parser.parse_args()
    result: dict[str, Any] = {"command": " ".join(sys.argv[1:]), "cores": os.cpu_count()}
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.bundles:
            home = Home((arguments.homes or Path(folder)) / name)
            result[name] = measure(name, home, arguments)
            show(name, result[name])
    target = Home.from_environment().benchmarks / "serving_http.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(result, indent=1))
    console.print(f"written to {target}")


def measure(name: str, home: Home, arguments: argparse.Namespace) -> dict[str, Any]:
    folders = sorted(home.registry(name).glob("[0-9]*")) if home.registry(name).is_dir() else []
    folder = folders[-1] if folders else make(home, name)
    bodies = Bodies(name, json.loads((folder / "assets.extra" / "catalogue" / "ids.json").read_text()))
    result: dict[str, Any] = {}
    if "lone" in arguments.parts:
        result["lone"] = lone(name, home, bodies, arguments)
    if "limit" in arguments.parts:
        result["limit"] = limits(name, home, folder, bodies, arguments)
    if "recommend" in arguments.parts:
        result["recommend"] = recommend(name, home, bodies, arguments)
    return result


@contextmanager
def served(name: str, home: Home, workers: int = 1) -> Iterator[int]:
    """The service on two cores, from ready to the block's end; its port. The log of what was served begins anew."""
    for path in [*home.root.glob("watchnext.db.ledgers/*"), *home.root.glob("serve*.log")]:
        path.unlink()
    forget(home)
    command = [sys.executable, str(DOOR), "serve", "--name", name, "--workers", str(workers)]
    settings = SETTINGS | {"WATCHNEXT_THREADS": str(max(1, 2 // workers))}
    with running_server(command, home, Console(quiet=True), settings) as address:
        yield int(address.rpartition(":")[2])


def forget(home: Home) -> None:
    """Empty the tables of slates and events."""
    import sqlalchemy as sa

    from data.database import database_url, open_database, writing
    from data.feedback.schema import events
    from data.feedback.schema import served as slates
    from data.feedback.schema import served_items as items

    engine = open_database(database_url(home))
    existing = set(sa.inspect(engine).get_table_names())
    with writing(engine) as connection:
        for table in (events, items, slates):
            if table.name in existing:
                connection.execute(sa.delete(table))
    engine.dispose()


@contextmanager
def peer(kind: str, folder: Path | None = None) -> Iterator[int]:
    """One of :mod:`benchmarks.serving_peers`; its port."""
    words = [sys.executable, str(PEERS), kind, *([str(folder)] if folder else [])]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        PROCESSES[port] = [process.pid]
        until = time.monotonic() + 60
        while True:
            try:
                with Connection(port) as connection:
                    connection.ask(post("/", {}))
                break
            except OSError:
                assert time.monotonic() < until, f"the peer {kind} never answered"
                time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait()


def lone(name: str, home: Home, bodies: Bodies, arguments: argparse.Namespace) -> dict[str, Any]:
    """One client that asks again when it was answered."""
    n = arguments.requests
    score = in_process(name, home)
    with (
        served(name, home, arguments.workers) as port,
        peer(EMPTY) as empty,
        Connection(port) as ours,
        Connection(empty) as nothing,
    ):
        kinds: dict[str, tuple[Connection, Callable[[], list[bytes]]]] = {
            "empty request": (nothing, lambda: [post("/", {})] * n),
            TARGET: (ours, lambda: bodies.rank(n)),
            "slate of 20, columns": (ours, lambda: bodies.rank(n, "columns", SLATE, False)),
            "slate of 20, items": (ours, lambda: bodies.rank(n, "items", SLATE, False)),
            "slate of 500, columns": (ours, lambda: bodies.rank(n, "columns", None, False)),
            "slate of 500, items": (ours, lambda: bodies.rank(n, "items", None, False)),
        }
        for connection, made in kinds.values():
            closed_loop([connection], made()[:20])
        seen: dict[str, list[Sample]] = {kind: [] for kind in kinds}
        scoring: list[float] = []
        cpu: dict[str, float] = dict.fromkeys(kinds, 0.0)
        sizes = {}
        for _ in range(arguments.rounds):
            for kind, (connection, made) in kinds.items():
                at, requests = empty if connection is nothing else port, made()
                before = cpu_seconds(at)
                seen[kind].append(closed_loop([connection], requests))
                settle(at)
                cpu[kind] += cpu_seconds(at) - before
                sizes[kind] = connection.last_size
            scoring += [score() for _ in range(n)]
        memory = sum(resident(port))
    each = {
        kind: percentiles(samples) | {"server_cpu_ms": cpu[kind] * 1e3 / (n * arguments.rounds), "bytes": sizes[kind]}
        for kind, samples in seen.items()
    }
    inside = float(np.median(scoring))
    target = 1.5 * (inside + each["empty request"]["p50"])
    return {
        "kinds": each,
        "in_process_ms": inside,
        "target_p50_ms": target,
        "reached": each[TARGET]["p50"] <= target,
        "resident_mb": memory,
    }


def in_process(name: str, home: Home) -> Callable[[], float]:
    """A call that scores 500 uniformly drawn candidates here, in ms, without anything of HTTP."""
    from service.inputs import to_query
    from service.loading import load_champion, warm
    from service.pipeline import gather, hydrate, score
    from service.schemas import RankRequest
    from service.settings import Settings

    serving = load_champion(Settings(home=home.root, name=name, log_level="error"))
    warm(serving)
    ids, rng = np.array(serving.features.video_ids), np.random.default_rng(1)
    context = dict.fromkeys(serving.config.log.context, "1")

    def call() -> float:
        candidates = rng.choice(ids, CANDIDATES, replace=False).tolist()
        request = RankRequest(user_id=f"u{rng.integers(USERS)}", candidates=candidates, context=context)
        query = to_query(request, SLATE, serving, int(time.time() * 1e3))
        person = hydrate(query, serving)
        found = gather(query, person, frozenset(), serving, None)  # type: ignore[arg-type]
        began = time.perf_counter()
        score(person, found, serving)
        return (time.perf_counter() - began) * 1e3

    return call


def limits(name: str, home: Home, folder: Path, bodies: Bodies, arguments: argparse.Namespace) -> dict[str, Any]:
    """What each way bears, and how it answers at 60% of that; in turns, the median of repeats."""
    seconds = arguments.seconds
    ways: dict[str, Callable[[], Any]] = {
        "one process, two threads": lambda: served(name, home),
        "two workers, one thread": lambda: served(name, home, 2),
        "handler on a SavedModel": lambda: peer(RIVAL, folder),
    }
    with ExitStack() as stack:
        ports = {way: stack.enter_context(start()) for way, start in ways.items()}
        rates: dict[str, list[float]] = {way: [one_limit(ports[way], bodies, 1.0)] for way in ways}
        for _ in range(REPEATS):
            for way in ways:
                rates[way].append(one_limit(ports[way], bodies, seconds / REPEATS, rates[way][-1]))
        result: dict[str, Any] = {way: {"limit": float(np.median(rates[way][1:]))} for way in ways}
        for way in ways:
            before, requests = cpu_seconds(ports[way]), max(40, int(result[way]["limit"] * 2))
            with Connection(ports[way]) as connection:
                closed_loop([connection], bodies.rank(requests))
            result[way]["cpu_ms"] = (cpu_seconds(ports[way]) - before) / requests * 1e3
        for arrivals in ("constant", "poisson"):
            samples: dict[str, list[Sample]] = {way: [] for way in ways}
            for _ in range(REPEATS):
                for way in ways:
                    rate = SHARE * result[way]["limit"]
                    requests = bodies.rank(max(20, int(rate * seconds / REPEATS)))
                    samples[way].append(open_loop([ports[way]], requests, rate, arrivals))
            for way in ways:
                result[way][arrivals] = percentiles(samples[way])
        for way in ways:
            result[way]["resident_mb"] = resident(ports[way])
    ours = max(result[way]["limit"] for way in list(ways)[:2])
    chosen = result[max(list(ways)[:2], key=lambda way: result[way]["limit"])]
    return {
        "ways": result,
        "times_the_handler": ours / result["handler on a SavedModel"]["limit"],
        "p99_over_p50": chosen["constant"]["p99_each"] / chosen["constant"]["p50"],
    }


def one_limit(port: int, bodies: Bodies, seconds: float, guess: float = 100.0) -> float:
    """Answers a second to several connections that always ask."""
    with ExitStack() as stack:
        connections = [stack.enter_context(Connection(port)) for _ in range(CONNECTIONS)]
        return closed_loop(connections, bodies.rank(max(40, int(guess * seconds)))).rate


def recommend(name: str, home: Home, bodies: Bodies, arguments: argparse.Namespace) -> dict[str, Any]:
    """Recommendations of users who come back, each followed by ten events, in turns with ranking."""
    n = arguments.requests
    with served(name, home, arguments.workers) as port, Connection(port) as asks, Connection(port) as tells:
        closed_loop([asks], bodies.rank(20))
        told = closed_loop([asks], bodies.recommend(100), lambda answer: tells.ask(bodies.events(answer)))
        seen: dict[str, list[Sample]] = {"rank": [], "recommend": []}
        for _ in range(arguments.rounds):
            seen["rank"].append(closed_loop([asks], bodies.rank(n)))
            seen["recommend"].append(followed(asks, tells, bodies, n))
    assert told.failed == 0, "requests failed"
    result: dict[str, Any] = {kind: percentiles(samples) for kind, samples in seen.items()}
    for figure in ("p50", "p99"):
        result[f"{figure}_ratio"] = result["recommend"][figure] / result["rank"][figure]
    return result


def followed(asks: Connection, tells: Connection, bodies: Bodies, count: int) -> Sample:
    """Ten events on every slate are on their way, on another connection, when the next request is sent."""
    waiting = False

    def tell(answer: bytes) -> None:
        nonlocal waiting
        if waiting:
            tells.receive()
        tells.send(bodies.events(answer))
        waiting = True

    tells.refresh()
    sample = closed_loop([asks], bodies.recommend(count), tell)
    if waiting:
        tells.receive()
    return sample


def processes_of(port: int) -> list[int]:
    """The process that was told to listen there, and those that it has started."""
    if port in PROCESSES:
        return PROCESSES[port]
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"serve" in words and str(port).encode() in words:
                PROCESSES[port] = [int(folder.name), *children(int(folder.name))]
                return PROCESSES[port]
    raise RuntimeError(f"no server on port {port}")


def children(process: int) -> list[int]:
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def resident(port: int) -> list[float]:
    """MB of each process."""
    lines = [line for p in processes_of(port) for line in Path(f"/proc/{p}/status").read_text().splitlines()]
    return [round(int(line.split()[1]) / 1024, 1) for line in lines if line.startswith("VmRSS")]


def cpu_seconds(port: int) -> float:
    """That the server has used so far, all its processes together."""
    stats = [Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split() for process in processes_of(port)]
    return sum(int(fields[11]) + int(fields[12]) for fields in stats) / os.sysconf("SC_CLK_TCK")


def settle(port: int) -> None:
    """Wait until the server has done what the requests before have left: slates of 500 keep the log's writer busy for
    longer than the next kind of requests takes."""
    used, now = -1.0, cpu_seconds(port)
    while now - used > 0.03:
        time.sleep(0.3)
        used, now = now, cpu_seconds(port)


def show(name: str, result: dict[str, Any]) -> None:
    if lone := result.get("lone"):
        table = Table("one client", "p50 ms", "p99 ms", "server CPU ms", "bytes", title=name)
        for kind, row in lone["kinds"].items():
            cells = [f"{row[name]:.2f}" for name in ("p50", "p99", "server_cpu_ms")]
            table.add_row(kind, *cells, f"{row['bytes']:,}")
        table.add_row("scoring in process", f"{lone['in_process_ms']:.2f}")
        console.print(table)
        console.print(
            f"target: slate of 20, all 500 scored, at most 1.5 x (in process + empty) = {lone['target_p50_ms']:.2f} ms: "
            f"{'reached' if lone['reached'] else 'missed'}; resident {lone['resident_mb']} MB"
        )
    if limit := result.get("limit"):
        columns = ("p50 at 60%", "p99 at 60%", "p99 of all", "p99 Poisson", "CPU ms", "resident MB")
        table = Table("way", "requests/s", *columns, title=name)
        for way, row in limit["ways"].items():
            memory = ", ".join(f"{value:.0f}" for value in row["resident_mb"])
            even = [f"{row['constant'][figure]:.2f}" for figure in ("p50", "p99_each", "p99")]
            times = [*even, f"{row['poisson']['p99_each']:.2f}"]
            table.add_row(way, f"{row['limit']:.0f}", *times, f"{row['cpu_ms']:.1f}", memory)
        console.print(table)
        console.print(
            f"limit {limit['times_the_handler']:.1f} times the handler's (target 3); p99 at 60% "
            f"{limit['p99_over_p50']:.1f} times p50 (target 3)"
        )
    if both := result.get("recommend"):
        table = Table("one client", "p50 ms", "p99 ms", title=name)
        for kind in ("rank", "recommend"):
            table.add_row(kind, f"{both[kind]['p50']:.2f}", f"{both[kind]['p99']:.2f}")
        table.add_row("ratio (targets 2 and 4)", f"{both['p50_ratio']:.2f}", f"{both['p99_ratio']:.2f}")
        console.print(table)


if __name__ == "__main__":
    main()
