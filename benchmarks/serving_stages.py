"""CPU of a request over HTTP, stage by stage: from the body to the log's writer.

    python benchmarks/serving_stages.py [--bundle made] [--homes FOLDER] [--requests 200] [--rounds 5] [--against SOURCES]

The service runs in a process of its own, under uvicorn, with its stages' functions wrapped by clocks that count the CPU
of the thread they run in; a stage's figure leaves out what stages within it took. The rest is what no stage names of the
event loop and of the threads that rank: the protocol, routing and middlewares, the hand-over where there is one. With
``--against`` another folder of sources (a work tree of another commit) is measured in turns with this one.

One client asks for slates of 20 of 500 candidates, all 500 in the answer (`scored`) as columns. Prints a table and writes
``$WATCHNEXT_HOME/benchmarks/serving_stages.json``.
"""

import argparse
import functools
import importlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, os.environ.get("WATCHNEXT_SOURCES") or str(Path(__file__).resolve().parents[1]))

import numpy as np
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parents[1]
STAGES = {
    "body to JSON": "service.strict_json:from_json",
    "body checked": "fastapi._compat.v2:ModelField.validate",
    "who, and how often": "service.guard:Guard._check",
    "log line, metrics": "service.access:Access._count",
    "to_query": "service.ranking_api:to_query",
    "hydrate": "service.pipeline:hydrate",
    "gather": "service.pipeline:gather",
    "filter": "service.pipeline:keep_eligible",
    "score": "service.pipeline:score",
    "combine": "service.pipeline:combine",
    "slate": "service.pipeline:cut",
    "counts of what happened": "service.pipeline:note",
    "encode": "service.ranking_api:encode",
    "handed to the log": "service.ranking_api:log_served",
}
"""Functions by what they do."""
Clocked = Mapping[str, Mapping[str, float]]
"""CPU seconds: of ``stages``, of ``threads``."""
ANSWERING, WRITER = "answering, in all", "the log's writer"
THREADS = {"MainThread": ANSWERING, "rank": ANSWERING, "feedback": WRITER}
"""By the beginnings of their names: a request is ranked on the event loop or in a thread."""
console = Console(width=None if sys.stdout.isatty() else 120)


class Clocks:
    """CPU seconds by stage, without those of the stages within."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inner = threading.local()

    def wrap(self, stage: str, work: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(work)
        def clocked(*args: Any, **kwargs: Any) -> Any:
            outer = getattr(self._inner, "seconds", 0.0)
            self._inner.seconds, began = 0.0, time.thread_time()
            try:
                return work(*args, **kwargs)
            finally:
                took = time.thread_time() - began
                self.seconds[stage] += took - self._inner.seconds
                self._inner.seconds = outer + took

        return clocked

    def install(self) -> None:
        """Wrap the stages where they are looked up; one that a version doesn't have is part of its thread's rest."""
        for stage, place in STAGES.items():
            module, _, name = place.partition(":")
            owner: Any = importlib.import_module(module)
            *path, last = name.split(".")
            for part in path:
                owner = getattr(owner, part, None)
            if hasattr(owner, last):
                setattr(owner, last, self.wrap(stage, getattr(owner, last)))


def thread_seconds() -> dict[str, float]:
    """CPU of the threads that answer, by what they do, and of the process."""
    seconds: dict[str, float] = defaultdict(float)
    for thread in threading.enumerate():
        if thread.ident is not None:
            kind = THREADS.get(thread.name.partition("_")[0])
            if kind is not None:
                seconds[kind] += time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
    return {**seconds, "process": time.process_time()}


def serve(name: str) -> None:
    """Until the standard input ends; says its port, and for every line how much CPU went into what so far."""
    import socket

    import uvicorn

    from service.app import create_app
    from service.settings import Settings

    clocks = Clocks()
    clocks.install()
    said = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    app = create_app(Settings(name=name, rate_limit=0.0, deadline_ms=30_000.0))
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))

        def talk() -> None:
            print(listening.getsockname()[1], file=said, flush=True)
            for _ in sys.stdin:
                print(json.dumps({"threads": thread_seconds(), "stages": clocks.seconds}), file=said, flush=True)
            server.should_exit = True

        threading.Thread(target=talk, name="talk", daemon=True).start()
        server.run(sockets=[listening])


class Server:
    """The service of a folder of sources, in a process of its own."""

    def __init__(self, sources: Path, name: str, home: Path) -> None:
        environment = {**os.environ, "WATCHNEXT_HOME": str(home), "WATCHNEXT_SOURCES": str(sources)}
        words = [sys.executable, __file__, "--serve", name]
        self._process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=sources
        )
        self.port = int(self._line())

    def seconds(self) -> Clocked:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        said: Clocked = json.loads(self._line())
        return said

    def wait_until_ready(self) -> None:
        until = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=5):
                    return
            except OSError:  # not listening yet, or 503
                assert time.monotonic() < until, "the service was never ready"
                time.sleep(0.1)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="made")
    parser.add_argument("--homes", type=Path, help="where the bundles are kept from run to run; default: nowhere")
    parser.add_argument("--requests", type=int, default=200, help="of a turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--against", type=Path, help="other sources, measured in turns with these")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        return serve(arguments.serve)
    with tempfile.TemporaryDirectory() as folder:
        home = (arguments.homes or Path(folder)).resolve() / arguments.bundle
        sources = [HERE] if arguments.against is None else [arguments.against.resolve(), HERE]
        found = measure(sources, arguments.bundle, home, arguments.requests, arguments.rounds)
    show(found)
    from data.home import Home

    target = Home.from_environment().benchmarks / "serving_stages.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps({"command": " ".join(sys.argv[1:]), "versions": found}, indent=1))
    console.print(f"written to {target}")


def measure(sources: Sequence[Path], name: str, home: Path, requests: int, rounds: int) -> list[dict[str, float]]:
    """CPU ms of a request by stage and thread, of each version: the median of the rounds."""
    from benchmarks.serving_bundles import make
    from benchmarks.serving_client import Connection, closed_loop
    from benchmarks.serving_http import Bodies, forget
    from data.home import Home

    registry = Home(home).registry(name)
    folders = sorted(registry.glob("[0-9]*")) if registry.is_dir() else []
    folder = folders[-1] if folders else make(Home(home), name)
    forget(Home(home))
    bodies = Bodies(name, json.loads((folder / "assets.extra" / "catalogue" / "ids.json").read_text()))
    servers = [Server(source, name, home) for source in sources]
    taken: list[list[dict[str, float]]] = [[] for _ in servers]
    try:
        for server in servers:
            server.wait_until_ready()
        for turn in range(rounds + 1):
            for server, rows in zip(servers, taken, strict=True):
                before = server.seconds()
                with Connection(server.port) as connection:
                    sample = closed_loop([connection], bodies.rank(requests))
                time.sleep(0.2)  # the log's writer is 100 ms behind
                if turn:
                    rows.append(difference(before, server.seconds(), requests))
                    rows[-1]["p50"] = float(np.median(sample.latencies))
    finally:
        for server in servers:
            server.close()
    return [{key: float(np.median([row.get(key, 0.0) for row in rows])) for key in rows[-1]} for rows in taken]


def difference(before: Clocked, after: Clocked, requests: int) -> dict[str, float]:
    """CPU ms of a request: of each stage, of what none of them names, and of all."""
    each = {
        part: {key: (value - before[part].get(key, 0.0)) * 1e3 / requests for key, value in after[part].items()}
        for part in ("stages", "threads")
    }
    stages, threads = each["stages"], each["threads"]
    row = {stage: stages.get(stage, 0.0) for stage in STAGES}
    row["protocol, routing, hand-over"] = threads[ANSWERING] - sum(row.values())
    return row | {ANSWERING: threads[ANSWERING], WRITER: threads[WRITER], "the process": threads["process"]}


def show(found: Sequence[Mapping[str, float]]) -> None:
    """One column a version."""
    table = Table("CPU ms of a request", *(["before", "after"] if len(found) == 2 else [""]))
    for column in table.columns[1:]:
        column.justify = "right"
    for key in found[0]:
        table.add_row(key, *(f"{row[key]:.3f}" for row in found), end_section=key in (ANSWERING, "the process"))
    console.print(table)


if __name__ == "__main__":
    main()
