"""What is served equals what was computed offline: the same impressions asked of the real service and of evaluation.

    watchnext ingest kuairand FOLDER
    watchnext train kuairand --since 2022-04-25 --until 2022-05-02
    python benchmarks/served_equals_offline.py kuairand [--rows 1000] [--seed 1]
    python benchmarks/served_equals_offline.py --replay [--rows 20000] [--seed 1] [--window 3600]

Of the day after the champion's last, a random sample of impressions. Offline each is predicted as `watchnext evaluate`
does: weights frozen, features as of the row's feature time. Then `watchnext serve` is started, and `/v1/rank` is asked
for each with the row's feature time, context and query video, and what the user had done since the bundle's end, as the
log has it: impressions before the feature time, their context and outcomes (null ones left out). Three times: the video
alone; among 1 to 300 random others of the catalogue, in a random place; and the same candidates with their places
shuffled. (A history says of an impression when it was, not when a label that has its own ``visible_at`` became known: on
such a log the two can differ.)

A probability may differ by 1e-5, a regression by 1e-5 of its value or of its scale, whichever is larger: of its target's
standard deviation, or of 1 where its target is log(1 + y). Two float32 runtimes disagree in the network's last digits, and
near 0 that is more than 1e-5 of the value: of a watch time of 0.03 s, a difference of 4e-7 in the logarithm is 1.3e-5. How
many rows are beyond 1e-5 of the value alone stands beside. With `--replay` the service keeps the histories itself: see
served_equals_replay.py. Prints a table, writes
$WATCHNEXT_HOME/benchmarks/served_equals_offline_<name>.json, and exits with 1 where a difference is larger.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from data.columns import Batch, StringLists, Strings
from data.config import Config
from data.features.slates import feature_times
from data.home import Home
from data.log import read_day
from models.bundle import Bundle
from models.calibration import Calibration
from models.registry import Registry
from service.schemas import MAX_HISTORY
from service.trial import running_server
from watchnext import quiet_tensorflow, read_config

TOLERANCE = 1e-5
MOST_OTHERS = 300
VARIANTS = ("alone", "in a batch", "shuffled")
WATCHNEXT = Path(__file__).resolve().parent.parent / "watchnext.py"

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    """Impressions of ``day``: their positions in ``batch`` [m] and predictions [m, K]; ``time`` [n] is of all its rows,
    ``scale`` [K] of the objectives."""

    day: date
    batch: Batch
    time: NDArray[np.int64]
    rows: NDArray[np.int64]
    offline: Floats
    scale: Floats
    new_user: NDArray[np.bool_]
    new_video: NDArray[np.bool_]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", metavar="CONFIG", nargs="?")
    parser.add_argument("--rows", type=int, help="impressions; default: 1000 of the log, 20000 simulated ones to replay")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--replay", action="store_true", help="simulated days through the service, events and all")
    parser.add_argument("--window", type=float, default=3600.0, help="with --replay: attribution window, seconds")
    parser.add_argument("--clients", type=int, default=4, help="with --replay: requests asked at once")
    options = parser.parse_args()
    if options.replay:
        from served_equals_replay import replay

        over = replay(options.rows or 20_000, options.seed, options.window, options.clients, Console())
        sys.exit(1 if over else 0)
    if options.config is None:
        parser.error("CONFIG is missing")
    config, home, console = read_config(options.config), Home.from_environment(), Console()
    bundle, started = Registry(home).open(config.name), time.perf_counter()
    sample = draw(bundle, config, home, options.rows or 1000, options.seed)
    requests = list(as_requests(bundle.config, sample))
    others = json.loads((bundle.catalogue / "ids.json").read_text(encoding="utf-8"))
    os.environ["WATCHNEXT_DEADLINE_MS"] = "60000"  # the machine may be busy; what is asked here is not how fast
    command = [sys.executable, str(WATCHNEXT), "serve", "--name", config.name]
    with running_server(command, home, console) as address, httpx.Client(base_url=address, timeout=60) as client:
        served = ask_all(client, bundle, requests, others, np.random.default_rng([options.seed, 1]))
    figures = {name: compare(bundle.config, sample, values) for name, values in served.items()}
    over = sum(f["over"] for by_objective in figures.values() for f in by_objective.values())
    lengths = [len(request["history"]) for request in requests]
    show(bundle, sample, figures, lengths, console)
    result = {
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "bundle": bundle.version,
        "day": str(sample.day),
        "seed": options.seed,
        "rows": len(sample.rows),
        "new_users": int(sample.new_user.sum()),
        "new_videos": int(sample.new_video.sum()),
        "history": {"mean": float(np.mean(lengths)), "longest": max(lengths)},
        "tolerance": TOLERANCE,
        "over": over,
        "variants": figures,
        "seconds": time.perf_counter() - started,
    }
    home.benchmarks.mkdir(parents=True, exist_ok=True)
    path = home.benchmarks / f"served_equals_offline_{config.name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    sys.exit(1 if over else 0)


def draw(bundle: Bundle, config: Config, home: Home, rows: int, seed: int) -> Sample:
    """A random sample of the day after the bundle's last, with offline predictions."""
    quiet_tensorflow()
    from training.days import read_tables
    from training.learner import Learner

    day = bundle.manifest.window.last_day + timedelta(days=1)
    batch = read_day(home, bundle.config, day)
    learner = Learner.from_bundle(bundle, bundle.config, read_tables(home, config))
    encoded = learner.state.encode(batch, day)
    chosen = np.sort(np.random.default_rng(seed).choice(len(batch), min(rows, len(batch)), replace=False))
    predictions, _ = learner.trainer.predict({side: block.take(chosen) for side, block in encoded.blocks.items()})
    new_user, new_video = encoded.new_user[chosen], encoded.new_video[chosen]
    paired = zip(bundle.config.objectives, learner.state.target_stats, strict=True)
    scale = np.array([s.std if o.kind == "regression" and o.transform != "log" else 1.0 for o, s in paired])
    offline = np.asarray(Calibration.load(bundle.extra, config.objective_names).apply(predictions), np.float64)
    return Sample(day, batch, feature_times(batch), chosen, offline, scale, new_user, new_video)


def as_requests(config: Config, sample: Sample) -> Iterator[dict[str, Any]]:
    """What a product would have sent for each sampled row; the candidate is its ``video_id``."""
    impressions = [impression(config, row) for row in as_dicts(sample.batch)]
    users = np.asarray(sample.batch.strings("user_id").codes)
    queries = sample.batch.strings("query_video_id").tolist() if "query_video_id" in sample.batch else None
    timestamp = sample.batch.numbers("timestamp")
    for row in sample.rows.tolist():
        earlier = np.flatnonzero((users == users[row]) & (timestamp < sample.time[row]))[-MAX_HISTORY:]
        yield {
            "user_id": sample.batch.strings("user_id").values[users[row]],
            "video_id": impressions[row]["video_id"],
            "timestamp": int(sample.time[row]),
            "context": impressions[row]["context"],
            "query_video_id": queries[row] if queries else None,
            "history": [impressions[place] for place in earlier.tolist()],
        }


def as_dicts(batch: Batch) -> Iterator[dict[str, Any]]:
    """The rows; null numbers are None."""
    lists = {name: _values(column) for name, column in batch.columns.items()}
    for row in zip(*lists.values(), strict=True):
        yield dict(zip(lists, row, strict=True))


def _values(column: Any) -> list[Any]:
    if isinstance(column, Strings | StringLists):
        return list(column.tolist())
    return [None if value != value else value for value in np.asarray(column).tolist()]


def impression(config: Config, row: Mapping[str, Any]) -> dict[str, Any]:
    """An item of a request's history."""
    return {
        "video_id": row["video_id"],
        "timestamp": row["timestamp"],
        "outcomes": {name: row[name] for name in config.labels if row[name] is not None},
        "context": {name: row[name] for name in config.log.context if row[name] is not None},
    }


def ask_all(
    client: httpx.Client,
    bundle: Bundle,
    requests: Sequence[Mapping[str, Any]],
    others: Sequence[str],
    rng: np.random.Generator,
) -> dict[str, Floats]:
    """The served predictions [m, K] of each variant."""
    served: dict[str, list[list[float]]] = {variant: [] for variant in VARIANTS}
    for request in track(requests, "Asking the service", transient=True):
        body = {key: value for key, value in request.items() if key != "video_id"}
        batch = among(request["video_id"], others, rng)
        shuffled = [batch[place] for place in rng.permutation(len(batch)).tolist()]
        for variant, candidates in zip(VARIANTS, ([request["video_id"]], batch, shuffled), strict=True):
            served[variant].append(ask(client, bundle, {**body, "candidates": candidates}, request["video_id"]))
    return {variant: np.array(rows, np.float64) for variant, rows in served.items()}


def among(video_id: str, others: Sequence[str], rng: np.random.Generator) -> list[str]:
    """The video in a random place among 1 to MOST_OTHERS others."""
    count = int(rng.integers(1, min(MOST_OTHERS, len(others)) + 1))
    chosen = [others[place] for place in rng.choice(len(others), count, replace=False).tolist()]
    candidates = [other for other in chosen if other != video_id]
    candidates.insert(int(rng.integers(0, len(candidates) + 1)), video_id)
    return candidates


def ask(client: httpx.Client, bundle: Bundle, body: Mapping[str, Any], video_id: str) -> list[float]:
    """The predictions of one candidate [K]; NaN where the service has none."""
    reply = client.post("/v1/rank", json=body)
    if reply.status_code != 200:
        sys.exit(f"/v1/rank answered {reply.status_code}: {reply.text[:2000]}")
    answer = reply.json()
    if answer["model_version"] != bundle.version:
        sys.exit(f"expected version {bundle.version} to serve, got {answer['model_version']}")
    (item,) = [item for item in answer["items"] if item["video_id"] == video_id]
    values = [item["predictions"][name] for name in bundle.config.objective_names]
    return [np.nan if value is None else value for value in values]


def compare(config: Config, sample: Sample, served: Floats) -> dict[str, dict[str, Any]]:
    """Per objective the largest difference (of a regression: as a share of value or scale), and how many are too large."""
    figures = {}
    for k, objective in enumerate(config.objectives):
        offline, online = sample.offline[:, k], served[:, k]
        value = np.abs(offline) if objective.kind == "regression" else np.ones(len(offline))
        gap = np.nan_to_num(np.abs(online - offline), nan=np.inf)
        share = gap / np.maximum(value, sample.scale[k])
        worst = int(np.argmax(share))
        figures[objective.name] = {
            "kind": objective.kind,
            "scale": float(sample.scale[k]),
            "largest": float(share[worst]) if np.isfinite(share[worst]) else None,
            "offline": float(offline[worst]),
            "served": float(online[worst]) if np.isfinite(online[worst]) else None,
            "over": int((share > TOLERANCE).sum()),
            "over_by_value_alone": int((gap > TOLERANCE * value).sum()),
        }
    return figures


def show(
    bundle: Bundle, sample: Sample, figures: Mapping[str, Mapping[str, Any]], lengths: Sequence[int], console: Console
) -> None:
    console.print(
        f"bundle {bundle.version}, {len(sample.rows):,} of {len(sample.batch):,} impressions of {sample.day}; "
        f"{sample.new_user.sum()} of unknown users, {sample.new_video.sum()} of unknown videos; "
        f"history of up to {max(lengths)} impressions, {np.mean(lengths):.1f} on average"
    )
    table = Table("", *figures, "over", "by value", title=f"Largest difference; rows over {TOLERANCE:g} in all variants")
    for name in bundle.config.objective_names:
        by_variant = [figures[variant][name] for variant in figures]
        largest = ["not a number" if f["largest"] is None else f"{f['largest']:.1e}" for f in by_variant]
        over = (str(sum(f[key] for f in by_variant)) for key in ("over", "over_by_value_alone"))
        table.add_row(name, *largest, *over)
    console.print(table)


if __name__ == "__main__":
    main()
