"""Served equals offline from the service's own state: logged days replayed as requests and events, then evaluated.

Called by ``served_equals_offline.py --replay``. In a home of its own a small world is simulated and a bundle trained on
its first days. `watchnext serve` runs with the replay clock; the requests of the next three days are asked of `/v1/rank`,
without a history, in the order of time, `--clients` of them at once. What the users did is sent to `/v1/events` when it
happened: views (some are missing), clicks, watched seconds in one or two parts, likes, follows, dismissals; some twice, some
of unknown requests, some too late. Videos uploaded on these days come by `/v1/videos`, and some of the others change there.
At each midnight the settled days are exported and `watchnext refresh` brings the counts up to the morning; the service swaps
to the refreshed bundle. In the end the days are exported and the bundle that was trained is evaluated on them: weights
frozen, features advancing with the log. Every exported impression's prediction is held against the served one.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, timedelta
from heapq import merge
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from data.config import Config, load_config
from data.days import day_start
from data.features.slates import feature_times
from data.feedback.export import export_days
from data.home import Home
from data.ingest import ingest
from data.log import read_day
from data.simulator.settings import WorldConfig
from data.simulator.write import simulate
from models.bundle import Bundle
from models.calibration import Calibration
from models.registry import Registry
from service.trial import running_server
from watchnext import PRESETS, quiet_tensorflow

WATCHNEXT = Path(__file__).resolve().parent.parent / "watchnext.py"
TOLERANCE = 1e-5
TRAINED, REPLAYED = 3, 3
"""Days that the bundle is trained on, and those that are replayed after them."""
SETTINGS = {"REPLAY_CLOCK": "1", "DEADLINE_MS": "60000", "RATE_LIMIT": "0", "POLL_SECONDS": "0.1"}
CHANGED = 0.1
"""Share of the known videos that change."""
AT_ONCE = 500
"""Events in one batch, at most."""

Row = dict[str, Any]
Served = dict[tuple[str, str], list[float]]
"""Predictions [K] by (request, video)."""


def replay(rows: int, seed: int, window: float, clients: int, console: Console) -> int:
    """The whole of it; returns how many predictions differ by more than TOLERANCE."""
    started = time.perf_counter()
    root = Home.from_environment().root
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="replay-", dir=root) as folder:
        home = Home(Path(folder) / "home")
        config = write_config(Path(folder) / "replay.toml", window)
        days, later = write_logs(Path(folder), rows, seed)
        videos = hold_back(Path(folder), day_start(days[0], config.timezone))
        ingest(config, [Path(folder) / "logs"], home, console).print(console)
        version = train(config, home, console)
        result = play(config, home, days, later, videos, seed, Path(folder) / "replay.toml", console, clients)
        export_days(config, home, day_start(days[-1], config.timezone) + 10 * 86_400_000, console)
        figures = compare(config, home, Registry(home).open(config.name, version), days, result.predictions)
    over = sum(f["over"] for by_objective in figures.values() for f in by_objective["objectives"].values())
    show(figures, result, console)
    report = {
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "rows": rows,
        "seed": seed,
        "window": window,
        "clients": clients,
        "tolerance": TOLERANCE,
        "over": over,
        "requests": result.requests,
        "events": dict(result.fates),
        "versions": result.versions,
        "days": {str(day): values for day, values in figures.items()},
        "seconds": time.perf_counter() - started,
    }
    target = Home.from_environment().benchmarks / "served_equals_replay.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(report, indent=1) + "\n")
    return over


def write_config(path: Path, window: float) -> Config:
    """The tiny preset with attribution windows of so many seconds."""
    text = (PRESETS / "tiny.toml").read_text(encoding="utf-8")
    path.write_text(text.replace("[[objectives]]\n", f"[[objectives]]\nwindow = {window}\n"), encoding="utf-8")
    return load_config(path)


def write_logs(folder: Path, rows: int, seed: int) -> tuple[list[date], Path]:
    """A world's log, the replayed days moved out of what is ingested; these days, and where they are."""
    total = TRAINED + REPLAYED
    simulate(folder / "logs", WorldConfig.of_size(rows, days=total), rows, seed)
    found = sorted((folder / "logs" / "log").glob("day=*"))
    (folder / "later").mkdir()
    for path in found[TRAINED:]:
        path.rename(folder / "later" / path.name)
    return [date.fromisoformat(path.name.removeprefix("day=")) for path in found[TRAINED:]], folder / "later"


def hold_back(folder: Path, since: int) -> list[Row]:
    """Take the videos uploaded at or after ``since`` (ms) out of the table that is ingested; all rows, marked if taken."""
    table = pq.read_table(folder / "logs" / "videos.parquet", partitioning=None)
    rows = table.to_pylist()
    pq.write_table(table.filter(pc.less(table.column("upload"), since)), folder / "logs" / "videos.parquet")
    return [{**row, "held_back": row["upload"] >= since} for row in rows]


def train(config: Config, home: Home, console: Console) -> int:
    quiet_tensorflow()
    from training.run import train as run

    return run(config, home, None, None, True, console)


@dataclass
class Result:
    predictions: Served
    fates: Counter[str]
    requests: int
    versions: list[int]


def play(
    config: Config,
    home: Home,
    days: Sequence[date],
    later: Path,
    videos: Sequence[Row],
    seed: int,
    config_file: Path,
    console: Console,
    clients: int,
) -> Result:
    """Live the days through HTTP."""
    settings = {
        "REPLAY_CLOCK": "1",
        "DEADLINE_MS": "60000",
        "RATE_LIMIT": "0",
        "POLL_SECONDS": "0.1",
        "LOG_LEVEL": "warning",
    }
    os.environ |= {f"WATCHNEXT_{name}": value for name, value in settings.items()}
    command = [sys.executable, str(WATCHNEXT), "serve", "--name", config.name]
    result = Result({}, Counter(), 0, [])
    with running_server(command, home, console) as address, httpx.Client(base_url=address, timeout=60) as client:
        product = Product(client, config, home, config_file, np.random.default_rng([seed, 2]), result, console, clients)
        product.wait_for(None)
        product.plan_videos(videos, day_start(days[0], config.timezone), len(days))
        for day in days:
            product.live(day, later / f"day={day}")
        product.settle()
    return result


class Product:
    """What a feed team's product does with the service."""

    def __init__(
        self,
        client: httpx.Client,
        config: Config,
        home: Home,
        config_file: Path,
        rng: np.random.Generator,
        result: Result,
        console: Console,
        clients: int,
    ) -> None:
        self._client, self._config, self._home, self._file = client, config, home, config_file
        self._rng, self._result, self._console = rng, result, console
        self._waiting: list[tuple[int, Row]] = []  # events to come, with when
        self._uploads: list[tuple[int, str, Row]] = []  # videos to come, with when
        self._number = 0
        self._clients, self._pool = clients, ThreadPoolExecutor(clients)

    def plan_videos(self, videos: Sequence[Row], since: int, days: int) -> None:
        """New videos come when they are uploaded; a share of the others changes at some time, mostly its own columns."""
        for video in videos:
            columns = {name: video[name] for name in self._config.video_columns}
            if video["held_back"]:
                self._uploads.append(
                    (video["upload"], video["video_id"], {"columns": columns, "valid_from": video["upload"]})
                )
            elif self._rng.random() < CHANGED:
                other = videos[int(self._rng.integers(len(videos)))]
                columns |= {name: other[name] for name in ("author_id", "topic", "topics") if self._rng.random() < 0.5}
                columns["duration"] = round(columns["duration"] * 1.5, 1)
                when = since + int(self._rng.integers(0, days * 86_400_000))
                self._uploads.append((when, video["video_id"], {"columns": columns}))
        self._uploads.sort(key=lambda upload: upload[:2])

    def live(self, day: date, folder: Path) -> None:
        """A day's requests and the events of its time, then the night."""
        midnight = day_start(day + timedelta(days=1), self._config.timezone)
        waiting = deque(slates(folder))
        with Progress(console=self._console, transient=True) as progress:
            task = progress.add_task(f"Replaying {day}", total=len(waiting))
            while waiting:
                self.send_until(waiting[0][0]["timestamp"])
                together = [waiting.popleft()]
                upload = self._uploads[0][0] if self._uploads else midnight
                while waiting and len(together) < self._clients and waiting[0][0]["timestamp"] <= upload:
                    together.append(waiting.popleft())
                for slate, answer in zip(together, self._pool.map(self.ask, together), strict=True):
                    self.note(slate, answer)
                progress.advance(task, len(together))
        self.send_until(midnight)
        self.night(midnight)

    def ask(self, slate: Sequence[Row]) -> Row:
        first = slate[0]
        body = {
            "user_id": first["user_id"],
            "candidates": [row["video_id"] for row in slate],
            "context": {"device": first["device"]},
            "query_video_id": first["query_video_id"],
            "timestamp": first["timestamp"],
        }
        return expect(self._client.post("/v1/rank", json=body), 200)

    def note(self, slate: Sequence[Row], answer: Row) -> None:
        """Keep the predictions; plan what the user will do."""
        if answer["degraded"]:
            sys.exit(f"/v1/rank left something out: {answer['degraded']}")
        self._result.requests += 1
        for item in answer["items"]:
            values = [item["predictions"][name] for name in self._config.objective_names]
            self._result.predictions[answer["request_id"], item["video_id"]] = values
        for row in slate:
            self._waiting += self.events_of(row, answer["request_id"])
        self._waiting.sort(key=lambda pair: pair[0])

    def events_of(self, row: Row, request_id: str) -> Iterator[tuple[int, Row]]:
        """What the user does with an item, and when (ms)."""
        lots, seen = self._rng.random(6), row["timestamp"] + 1
        if lots[0] < 0.15 and not row["click"]:
            return  # never scrolled so far
        said: list[tuple[int, str, float | None]] = [] if lots[1] < 0.1 and row["click"] else [(seen, "view", None)]
        said += [(seen + 900, "click", None)] * int(row["click"])
        watched = row["watch_time"]
        if watched > 0:
            half = round(watched * lots[2], 2)
            parts = [half, watched - half] if lots[3] < 0.3 else [watched]
            said += [(seen + 1000 + round(1000 * watched), "watch_time", part) for part in parts]
        for kind in ("like", "follow", "dismiss"):
            delay = 2_000 if lots[4] < 0.9 else round(1000 * 2 * self._config.window(kind))  # some too late
            said += [(seen + delay, kind, None)] * int(row[kind])
        for when, kind, value in said:
            event = self.event(request_id, row["video_id"], kind, value, when)
            yield when, event
            if lots[5] < 0.05:
                yield when + 10, event  # sent twice
        if lots[5] > 0.99:
            yield seen, self.event("nothing-of-ours", row["video_id"], "view", None, seen)

    def event(self, request_id: str, video_id: str, kind: str, value: float | None, when: int) -> Row:
        self._number += 1
        event = {"event_id": f"e{self._number}", "request_id": request_id, "video_id": video_id, "type": kind}
        return {**event, "timestamp": when, **({} if value is None else {"value": value})}

    def send_until(self, moment: int) -> None:
        """The videos and events before a moment, these in batches of one second: a batch is received when its last event
        happened."""
        while self._uploads and self._uploads[0][0] < moment:
            when, video_id, body = self._uploads.pop(0)
            self.tell_until(when)
            stored = expect(self._client.put(f"/v1/videos/{video_id}", json=body), 200)["status"]
            self._result.fates[f"videos {stored}"] += 1
        self.tell_until(moment)

    def tell_until(self, moment: int) -> None:
        due = 0
        while due < len(self._waiting) and self._waiting[due][0] < moment:
            due += 1
        batches: list[list[Row]] = []
        for when, event in self._waiting[:due]:
            if not batches or when // 1000 != batches[-1][0]["timestamp"] // 1000 or len(batches[-1]) == AT_ONCE:
                batches.append([])
            batches[-1].append(event)
        self._waiting = self._waiting[due:]
        for answer in self._pool.map(self.send, batches):
            self._result.fates.update(fate["status"] for fate in answer["events"])

    def send(self, batch: Sequence[Row]) -> Row:
        return expect(self._client.post("/v1/events", json={"events": batch}), 202)

    def night(self, midnight: int) -> None:
        """Export what is final; counts of this morning, without training; wait until the service has them."""
        export_days(self._config, self._home, midnight, self._console)
        environment = {**os.environ, "WATCHNEXT_HOME": str(self._home.root)}
        command = [sys.executable, str(WATCHNEXT), "refresh", str(self._file), "--now", str(midnight)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"refresh failed: {done.stdout}{done.stderr}")
        self._console.print(f"refresh: {done.stdout.strip().splitlines()[-1]}", highlight=False)
        self.wait_for(Registry(self._home).champion(self._config.name))

    def wait_for(self, version: int | None) -> None:
        """Until the service answers with this version (None: with any)."""
        until = time.monotonic() + 120
        while time.monotonic() < until:
            serving = expect(self._client.get("/v1/models"), 200)["serving"]
            if serving is not None and version in (None, serving):
                self._result.versions.append(serving)
                return
            time.sleep(0.05)
        sys.exit(f"the service doesn't serve version {version} after two minutes")

    def settle(self) -> None:
        """What is still to come."""
        self.send_until(max((when for when, _ in self._waiting), default=0) + 1)


def slates(folder: Path) -> Iterator[list[Row]]:
    """A day's logged requests in the order of time, each with its rows."""
    tables = [pq.read_table(path, partitioning=None).to_pylist() for path in sorted(folder.glob("*.parquet"))]
    by_request: dict[str, list[Row]] = {}
    for row in merge(*tables, key=lambda row: row["timestamp"]):
        by_request.setdefault(row["request_id"], []).append(row)
    yield from sorted(by_request.values(), key=lambda rows: (rows[0]["timestamp"], rows[0]["request_id"]))


def expect(reply: httpx.Response, status: int) -> Row:
    if reply.status_code != status:
        sys.exit(f"{reply.request.url} answered {reply.status_code}, expected {status}: {reply.text[:2000]}")
    return dict(reply.json())


def compare(
    config: Config, home: Home, bundle: Bundle, days: Sequence[date], served: Mapping[tuple[str, str], Sequence[float]]
) -> dict[date, dict[str, Any]]:
    """By day: the offline predictions of the exported impressions against what was served."""
    from training.days import read_tables
    from training.learner import Learner

    learner = Learner.from_bundle(bundle, bundle.config, read_tables(home, config))
    paired = zip(bundle.config.objectives, learner.state.target_stats, strict=True)
    scale = np.array([s.std if o.kind == "regression" and o.transform != "log" else 1.0 for o, s in paired])
    calibration = Calibration.load(bundle.extra, bundle.config.objective_names)
    figures: dict[date, dict[str, Any]] = {}
    for day in days:
        batch = read_day(home, bundle.config, day)
        encoded = learner.state.encode(batch, day)
        assert np.array_equal(encoded.time, feature_times(batch))
        offline = np.asarray(calibration.apply(learner.trainer.predict(encoded.blocks)[0]), np.float64)
        keys = zip(batch.strings("request_id").tolist(), batch.strings("video_id").tolist(), strict=True)
        online = np.array([served[str(request), str(video)] for request, video in keys], np.float64)
        figures[day] = {
            "rows": len(batch),
            "new_users": int(encoded.new_user.sum()),
            "new_videos": int(encoded.new_video.sum()),
            "objectives": differences(bundle.config, offline, online, scale),
        }
        learner.take_in(day, batch, encoded)
    return figures


def differences(
    config: Config, offline: NDArray[np.float64], online: NDArray[np.float64], scale: NDArray[np.float64]
) -> dict[str, dict[str, float]]:
    """Per objective: the largest difference (of a regression as a share of its value or scale), and how many are over."""
    found = {}
    for k, objective in enumerate(config.objectives):
        value = np.abs(offline[:, k]) if objective.kind == "regression" else np.ones(len(offline))
        share = np.nan_to_num(np.abs(online[:, k] - offline[:, k]), nan=np.inf) / np.maximum(value, scale[k])
        found[objective.name] = {"largest": float(share.max()), "over": int((share > TOLERANCE).sum())}
    return found


def show(figures: Mapping[date, Mapping[str, Any]], result: Result, console: Console) -> None:
    told = ", ".join(f"{count:,} {status}" for status, count in sorted(result.fates.items()))
    console.print(f"{result.requests:,} requests; {told}; bundles {result.versions}", highlight=False)
    names = list(next(iter(figures.values()))["objectives"])
    table = Table("day", "rows", "new users", "new videos", *names, "over", title="Largest difference")
    for day, of_day in figures.items():
        largest = [f"{of_day['objectives'][name]['largest']:.1e}" for name in names]
        over = sum(of_day["objectives"][name]["over"] for name in names)
        counts = [f"{of_day[key]:,}" for key in ("rows", "new_users", "new_videos")]
        table.add_row(str(day), *counts, *largest, str(over))
    console.print(table)
