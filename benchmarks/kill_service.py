"""The service is killed while clients ask and tell: what it accepted is there once, and what it lost is counted.

    watchnext simulate LOGS --rows 12000 --days 3 --seed 1 && watchnext ingest tiny LOGS && watchnext train tiny
    python benchmarks/kill_service.py tiny [--kills 100] [--seed 1]

`watchnext serve` is started on the champion; clients ask for slates and send events on them: views, clicks, repeats of ids
that were accepted before (by processes long killed, too), and events on requests that never were. At a random moment the
service gets SIGKILL, all its processes at once. Then the database is held against what the clients were told:

- every event that was answered `accepted` or `orphan` is there, once, with that fate; a repeat was never accepted;
- the counters say what the tables hold;
- every slate whose answer arrived is there, or among the lost that the next start counts, one by one.

Prints what was found and writes $WATCHNEXT_HOME/benchmarks/kill_service.json; exits with 1 where anything is not so. Use a
home of its own: it looks at all that its database holds.
"""

import argparse
import json
import os
import platform
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from rich.progress import track

from data.database import database_url, open_database, reading
from data.feedback.schema import counters, events, served, served_items
from data.home import Home

WATCHNEXT = Path(__file__).resolve().parent.parent / "watchnext.py"
CLIENTS = 3
READY_WITHIN = 120.0


@dataclass
class Told:
    """What clients were told, over all processes."""

    fates: dict[str, str] = field(default_factory=dict)
    slates: dict[str, int] = field(default_factory=dict)  # with how many items
    doubled: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def hear(self, answers: list[dict[str, Any]]) -> None:
        with self.lock:
            for answer in answers:
                event_id, status = answer["event_id"], answer["status"]
                self.statuses[status] += 1
                if status != "duplicate":
                    if event_id in self.fates:
                        self.doubled.append(event_id)
                    self.fates[event_id] = status

    def some_known(self, chance: random.Random) -> list[str]:
        with self.lock:
            known = list(self.fates)
        return chance.sample(known, min(2, len(known)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    home, chance, told, started = Home.from_environment(), random.Random(options.seed), Told(), time.monotonic()
    wrong: list[str] = []
    for number in track(range(options.kills), "Killing the service"):
        before = look(home)
        with service(home, options.name) as (process, address):
            stop = threading.Event()
            seeds = [chance.random() for _ in range(CLIENTS)]
            clients = [threading.Thread(target=use, args=(address, told, stop, random.Random(seed))) for seed in seeds]
            for client in clients:
                client.start()
            time.sleep(chance.uniform(0.0, 1.5))
            os.killpg(process.pid, signal.SIGKILL)  # its workers too
            process.wait()
            stop.set()
            for client in clients:
                client.join()
        wrong += [f"kill {number}: {what}" for what in check(home, told, before)]
    with service(home, options.name) as (process, _):  # counts what the last one lost, and ends well
        process.terminate()
        process.wait()
    found = look(home)
    missing = len(told.slates.keys() - found.slates.keys())
    wrong += [] if missing <= found.counts["served.lost"] else [f"{missing} answered slates are gone, fewer were counted"]
    wrong += [f"{event_id} was taken twice" for event_id in told.doubled] + told.errors
    result = {
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "kills": options.kills,
        "seed": options.seed,
        "slates_answered": len(told.slates),
        "slates_kept": len(found.slates),
        "slates_lost_by_count": found.counts["served.lost"],
        "answered_slates_not_kept": missing,
        "fates_told": dict(told.statuses),
        "counters": dict(sorted(found.counts.items())),
        "wrong": wrong,
        "seconds": time.monotonic() - started,
    }
    home.benchmarks.mkdir(parents=True, exist_ok=True)
    (home.benchmarks / "kill_service.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    sys.exit(1 if wrong else 0)


@contextmanager
def service(home: Home, name: str) -> Iterator[tuple["subprocess.Popen[bytes]", str]]:
    """A ready service and its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, str(WATCHNEXT), "serve", "--name", name, "--port", str(port)]
    environment = {**os.environ, "WATCHNEXT_HOME": str(home.root), "WATCHNEXT_LOG_LEVEL": "warning"}
    environment["WATCHNEXT_DEADLINE_MS"] = "60000"  # the machine may be busy; what is asked here is not how fast
    with (home.root / "serve.log").open("a") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    try:
        give_up = time.monotonic() + READY_WITHIN
        while not answers(f"http://127.0.0.1:{port}/readyz"):
            if process.poll() is not None or time.monotonic() > give_up:
                sys.exit(f"the service did not become ready: see {home.root / 'serve.log'}")
            time.sleep(0.05)
        yield process, f"http://127.0.0.1:{port}"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


def use(address: str, told: Told, stop: threading.Event, chance: random.Random) -> None:
    """A client: asks for slates and tells of them until the service is gone."""
    while not stop.is_set():
        user = f"u{chance.randrange(1_000_000)}"  # one who comes again and again has seen everything in the end
        slate = post(f"{address}/v1/recommend", {"user_id": user, "limit": 8}, told)
        if slate is None:
            return
        with told.lock:
            told.slates[slate["request_id"]] = len(slate["items"])
        sent = [event(slate["request_id"], item["video_id"], kind, chance) for item in slate["items"][:3] for kind in KINDS]
        sent.append(event("nobody's", "v1", "view", chance))
        again = [{**event("nobody's", "v1", "view", chance), "event_id": known} for known in told.some_known(chance)]
        reply = post(f"{address}/v1/events", {"events": [*sent, *again, sent[0]]}, told)
        if reply is None:
            return
        told.hear(reply["events"])


KINDS = ("view", "click")


def event(request_id: str, video_id: str, kind: str, chance: random.Random) -> dict[str, Any]:
    return {"event_id": f"{chance.getrandbits(64):x}", "request_id": request_id, "video_id": video_id, "type": kind}


def post(url: str, body: Mapping[str, Any], told: Told) -> dict[str, Any] | None:
    """The answer, or None where the service is gone (or answers with an error, which is noted)."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            answer: dict[str, Any] = json.load(response)
            return answer
    except urllib.error.HTTPError as error:
        told.errors.append(f"{url} answered {error.code}: {error.read().decode(errors='replace')[:500]}")
        return None
    except (OSError, ValueError, HTTPException):
        return None


@dataclass
class Found:
    """What the database holds."""

    fates: dict[str, str]
    slates: dict[str, int]  # with how many items
    counts: Counter[str]


def look(home: Home) -> Found:
    engine = open_database(database_url(home))
    with reading(engine) as connection:
        fates = {row.event_id: row.fate for row in connection.execute(sa.select(events.c.event_id, events.c.fate))}
        slates = dict.fromkeys(connection.execute(sa.select(served.c.request_id)).scalars(), 0)
        items = sa.select(served_items.c.request_id, sa.func.count()).group_by(served_items.c.request_id)
        slates |= {row[0]: row[1] for row in connection.execute(items)}
        counts = Counter({row.name: row.value for row in connection.execute(sa.select(counters))})
    engine.dispose()
    return Found(fates, slates, counts)


def check(home: Home, told: Told, before: Found) -> Iterator[str]:
    """What is not as the clients were told, right after a kill."""
    found = look(home)
    for event_id, fate in told.fates.items():
        if fate != "rejected" and found.fates.get(event_id) != fate:
            yield f"event {event_id} was answered {fate}, the database has {found.fates.get(event_id)}"
    for fate in ("accepted", "orphan", "late"):
        there = sum(value == fate for value in found.fates.values())
        if there != found.counts[f"events.{fate}"]:
            yield f"{there} events are {fate}, the counter says {found.counts[f'events.{fate}']}"
    if found.counts["served.logged"] != len(found.slates):
        yield f"{len(found.slates)} slates, the counter says {found.counts['served.logged']}"
    for request_id, items in told.slates.items():
        if found.slates.get(request_id, items) != items:
            yield f"slate {request_id} was answered with {items} items, the database has {found.slates[request_id]}"
    if not before.slates.items() <= found.slates.items():
        yield "slates that were there are gone"


if __name__ == "__main__":
    main()
