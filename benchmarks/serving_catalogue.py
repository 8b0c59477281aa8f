"""What a larger catalogue costs: the bundle, the time to ready, the memory of one and of two workers, the latency.

    python benchmarks/serving_catalogue.py --make       builds the bundles, once: minutes for a million videos' nearest index
    python benchmarks/serving_catalogue.py [--videos 8000 100000 1000000] [--rounds 20] [--install]

Bundles are made up (``benchmarks/serving_bundles.py``) and kept in ``$WATCHNEXT_HOME/benchmarks/catalogue``. Per size of the
catalogue: its bundle in MB; a real ``watchnext serve`` of one process, and one of two workers: seconds from start to
ready, MB after 200 requests (RSS; PSS, where what processes share is divided among them; USS, what is a process's own;
anonymous, what no file stands behind); and milliseconds to score 500 uniformly drawn candidates in process, all sizes in
turns. ``--install`` also builds a fresh environment of requirements/serve.txt and tells its MB.

Targets: 8,000 videos: at most 250 MB, ready within 3 s; 500 candidates of the largest catalogue at most 1.3 x the smallest.
Prints tables and writes ``$WATCHNEXT_HOME/benchmarks/serving_catalogue.json``.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rich.console import Console
from rich.table import Table

from benchmarks.serving_bundles import make
from benchmarks.serving_client import Connection, post
from benchmarks.serving_scorer import Worker
from data.home import Home

ROOT = Path(__file__).resolve().parents[1]
NAME = "made"
CANDIDATES, REQUESTS = 500, 200
READY_WITHIN = 300.0
PARTS = ("catalogue", "state", "generators", "trainer", "variables")
console = Console(width=None if sys.stdout.isatty() else 120)


class Server(NamedTuple):
    """A ``watchnext serve`` that is ready."""

    process: int
    port: int
    seconds: float


@contextmanager
def serving(home: Home, port: int, workers: int) -> Iterator[Server]:
    """One that has this port."""
    settings = {"WATCHNEXT_HOME": str(home.root), "WATCHNEXT_RATE_LIMIT": "0", "WATCHNEXT_DEADLINE_MS": "30000"}
    words = [sys.executable, str(ROOT / "watchnext.py"), "serve", "--name", NAME, "--port", str(port)]
    words += ["--workers", str(workers)]
    with (home.root / f"serve-{port}.log").open("w") as log:
        began = time.perf_counter()
        process = subprocess.Popen(words, stdout=log, stderr=log, env={**os.environ, **settings})
    try:
        while not ready(port):
            if process.poll() is not None or time.perf_counter() - began > READY_WITHIN:
                raise SystemExit(f"the server is not ready: see {log.name}")
            time.sleep(0.01)
        yield Server(process.pid, port, time.perf_counter() - began)
    finally:
        process.terminate()
        process.wait()


def ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
            return True
    except OSError:  # not listening yet, or 503
        return False


def memory(process: int) -> dict[str, float]:
    """MB: resident, its share of what is resident, its own, and what no file stands behind."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    own = kilobytes["Private_Clean"] + kilobytes["Private_Dirty"]
    found = {"rss": kilobytes["Rss"], "pss": kilobytes["Pss"], "uss": own, "anonymous": kilobytes["Anonymous"]}
    return {name: value / 1024 for name, value in found.items()}


def exercise(port: int, videos: int) -> None:
    """Requests of users and candidates not met before."""
    draw = random.Random(port)
    connection = Connection(port)
    for _ in range(REQUESTS):
        ids = [f"v{draw.randrange(videos)}" for _ in range(CANDIDATES)]
        body = {"user_id": f"u{draw.randrange(27_000)}", "candidates": list(dict.fromkeys(ids)), "limit": 20}
        status, answer = connection.ask(post("/v1/rank", body))
        if status != 200:
            raise SystemExit(f"/v1/rank answered {status}: {answer[:300]!r}")


def processes(home: Home, videos: int) -> dict[str, Any]:
    """One process, then two workers behind one port."""
    with serving(home, 18_801, 1) as one:
        first = memory(one.process)
        exercise(one.port, videos)
        alone = {"ready_s": one.seconds, "at_ready": first, "after_requests": memory(one.process)}
    with serving(home, 18_801, 2) as both:
        exercise(both.port, videos)
        exercise(both.port, videos)
        pair = [memory(worker) for worker in children(both.process)]
        supervisor = memory(both.process)
    return {"one": alone, "two_ready_s": both.seconds, "two": pair, "supervisor": supervisor}


def children(process: int) -> list[int]:
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def bundle_size(folder: Path) -> dict[str, float]:
    """MB, in all and by part."""
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size / 1e6 for path in folder.rglob("*") if path.is_file()}
    parts = {part: sum(size for name, size in sizes.items() if f"{part}/" in name) for part in PARTS}
    return {"all": sum(sizes.values()), **parts}


def latencies(homes: dict[int, Home], rounds: int) -> dict[int, float]:
    """Median ms of 500 candidates by size of the catalogue, in turns."""
    workers = {videos: Worker("ours", home.root, NAME, 1) for videos, home in homes.items()}
    times: dict[int, list[float]] = {videos: [] for videos in homes}
    try:
        for _ in range(rounds):
            for videos, worker in workers.items():
                times[videos].extend(worker.ask(CANDIDATES))
    finally:
        for worker in workers.values():
            worker.close()
    return {videos: statistics.median(found) for videos, found in times.items()}


def install() -> dict[str, float]:
    """MB of a fresh environment with the serving requirements alone, in all and of its largest packages."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        words = [f"{folder}/bin/python", "-m", "pip", "install", "--quiet", "--no-deps", "-r", "requirements/serve.txt"]
        subprocess.run(words, check=True, cwd=ROOT)
        (packages,) = Path(folder).glob("lib/python*/site-packages")
        sizes = {path.name: _megabytes(path) for path in packages.iterdir()}
        largest = sorted(sizes, key=sizes.__getitem__, reverse=True)[:8]
        return {"all": _megabytes(Path(folder)), **{name: sizes[name] for name in largest}}


def _megabytes(folder: Path) -> float:
    files = folder.rglob("*") if folder.is_dir() else [folder]
    return sum(path.stat().st_size for path in files if path.is_file() and not path.is_symlink()) / 1e6


def show(sizes: dict[int, dict[str, Any]]) -> None:
    table = Table(title="By size of the catalogue")
    table.add_column("videos")
    for videos in sizes:
        table.add_column(f"{videos:,}", justify="right")
    rows: dict[str, Any] = {
        "bundle, MB": lambda f: f"{f['bundle']['all']:.0f}",
        "  of it the videos' features": lambda f: f"{f['bundle']['catalogue']:.1f}",
        "start to ready, s": lambda f: f"{f['processes']['one']['ready_s']:.2f}",
        "one process, RSS MB": lambda f: f"{f['processes']['one']['after_requests']['rss']:.0f}",
        "  of it anonymous": lambda f: f"{f['processes']['one']['after_requests']['anonymous']:.0f}",
        "each of two, RSS MB": lambda f: f"{statistics.mean(m['rss'] for m in f['processes']['two']):.0f}",
        "each of two, PSS MB": lambda f: f"{statistics.mean(m['pss'] for m in f['processes']['two']):.0f}",
        "supervisor of two, USS MB": lambda f: f"{f['processes']['supervisor']['uss']:.0f}",
        "two workers, start to ready, s": lambda f: f"{f['processes']['two_ready_s']:.2f}",
        "each of two, USS MB": lambda f: f"{statistics.mean(m['uss'] for m in f['processes']['two']):.0f}",
        "500 candidates, ms": lambda f: f"{f['ms']:.2f}",
    }
    for label, cell in rows.items():
        table.add_row(label, *(cell(figures) for figures in sizes.values()))
    console.print(table)
    small, large = min(sizes), max(sizes)
    first = sizes[small]["processes"]["one"]
    console.print(
        f"  {small:,} videos: {first['after_requests']['rss']:.0f} MB (at most 250), ready in {first['ready_s']:.2f} s (3)"
    )
    console.print(f"  {large:,} over {small:,} videos: {sizes[large]['ms'] / sizes[small]['ms']:.2f} (at most 1.3)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", nargs="+", type=int, default=[8_000, 100_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--install", action="store_true")
    parser.add_argument("--make", action="store_true", help="only build the bundles")
    options = parser.parse_args()
    target = Home.from_environment().benchmarks
    homes, sizes = {}, {}
    for videos in options.videos:
        home = homes[videos] = Home(target.resolve() / "catalogue" / str(videos))
        places = sorted(home.registry(NAME).glob("[0-9]*"))
        place = places[-1] if places else make(home, NAME, videos)
        if not options.make:
            sizes[videos] = {"bundle": bundle_size(place), "processes": processes(home, videos)}
    if options.make:
        return
    for videos, ms in latencies(homes, options.rounds).items():
        sizes[videos]["ms"] = ms
    show(sizes)
    figures: dict[str, Any] = {"sizes": sizes, "rounds": options.rounds}
    if options.install:
        figures["install_mb"] = install()
        console.print("serving install, MB: " + ", ".join(f"{name} {mb:.0f}" for name, mb in figures["install_mb"].items()))
    (target / "serving_catalogue.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
