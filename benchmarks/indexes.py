"""How long the generators' indexes take to build and to answer.

    python benchmarks/indexes.py [--rows 1000000] [--videos 100000] [--users 100000] [--days 2] [--dim 64]

A made-up log: users and videos drawn by Zipf's law, four in ten impressions positive, two of 500 topics a video,
embeddings of 12 latent dimensions and noise. Prints a table, and writes it to
``$WATCHNEXT_HOME/benchmarks/indexes.json``. Exact search is compared with that in lists, on the same embeddings.
"""

import argparse
import json
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent.parent))

from data.columns import Batch, StringLists, Strings
from data.config import Config, parse_config
from data.home import Home
from models.indexes import IndexBuilder, Indexes
from models.indexes.popularity import DAY_MS

QUERIES = 300
ANSWERS = 100
HISTORY = 20


def main() -> None:
    settings = _settings()
    rng = np.random.default_rng(7)
    figures: dict[str, Any] = {
        "load_before": os.getloadavg()[0],
        "settings": vars(settings),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
    }
    with tempfile.TemporaryDirectory() as folder:
        builder = IndexBuilder(_config(settings.videos))
        days = [_day(rng, settings, day) for day in range(settings.days)]
        figures["add_day_s"] = [_seconds(lambda day=day: builder.add_day(day)) for day in days]  # type: ignore[misc]
        figures["pairs"] = len(builder.pairs.keys)
        figures["save_s"] = _seconds(lambda: builder.save(Path(folder, "state")))
        catalogue = _catalogue(rng, settings)
        figures["write_s"] = _seconds(lambda: builder.write(Path(folder, "exact"), *catalogue))
        builder.config = _config(0)
        figures["write_with_lists_s"] = _seconds(lambda: builder.write(Path(folder, "lists"), *catalogue))
        figures["megabytes"] = _megabytes(Path(folder, "exact"))
        figures["megabytes_with_lists"] = _megabytes(Path(folder, "lists"))
        figures["load_s"] = _seconds(lambda: Indexes.load(Path(folder, "lists")))
        exact, lists = Indexes.load(Path(folder, "exact")), Indexes.load(Path(folder, "lists"))
        figures["query_us"] = _queries(rng, exact, lists, settings)
        figures["lists_recall"] = _recall(rng, exact, lists, settings.videos)
    figures["peak_rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    _report(figures)


def _settings() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("rows", 1_000_000), ("videos", 100_000), ("users", 100_000), ("days", 2), ("dim", 64)):
        parser.add_argument(f"--{name}", type=int, default=value)
    return parser.parse_args()


def _config(exact_up_to: int) -> Config:
    values: dict[str, Any] = {
        "name": "benchmark",
        "dataset": "benchmark",
        "seed": 7,
        "log": {},
        "videos": {"files": ["v*"], "key": "video_id", "columns": {"topic": {"type": "categories"}}},
        "labels": {"click": {"type": "binary"}},
        "features": [{"kind": "category", "name": "user", "column": "user_id"}],
        "objectives": [{"name": "click", "family": "engagement", "label": "click", "kind": "binary"}],
        "generators": {"topic_column": "topic", "exact_up_to": exact_up_to},
    }
    return parse_config(values, "benchmark")


def _zipf(rng: np.random.Generator, n: int, size: int) -> NDArray[np.int32]:
    weights = 1 / np.arange(1, n + 1) ** 0.8
    return rng.choice(n, size, p=weights / weights.sum()).astype(np.int32)


def _day(rng: np.random.Generator, settings: argparse.Namespace, day: int) -> Batch:
    return Batch(
        {
            "user_id": Strings(_zipf(rng, settings.users, settings.rows), [f"u{i}" for i in range(settings.users)]),
            "video_id": Strings(_zipf(rng, settings.videos, settings.rows), [f"v{i}" for i in range(settings.videos)]),
            "timestamp": np.sort(rng.integers(0, DAY_MS, settings.rows)) + (20_000 + day) * DAY_MS,
            "click": (rng.random(settings.rows) < 0.4).astype(np.float64),
        }
    )


def _catalogue(rng: np.random.Generator, settings: argparse.Namespace) -> tuple[list[str], Batch, NDArray[np.float32]]:
    count = settings.videos
    ids = [f"v{i}" for i in range(count)]
    offsets = np.arange(count + 1, dtype=np.int64) * 2
    topics = StringLists(offsets, Strings(_zipf(rng, 500, 2 * count), [f"t{i}" for i in range(500)]))
    videos = Batch({"video_id": Strings(np.arange(count, dtype=np.int32), ids), "topic": topics})
    latent = rng.normal(size=(count, 12)) @ rng.normal(size=(12, settings.dim))
    return ids, videos, (latent + 0.5 * rng.normal(size=(count, settings.dim))).astype(np.float32)


def _queries(
    rng: np.random.Generator, exact: Indexes, lists: Indexes, settings: argparse.Namespace
) -> dict[str, list[float]]:
    rows = _zipf(rng, settings.videos, QUERIES).astype(int).tolist()
    histories = [_zipf(rng, settings.videos, HISTORY).astype(np.int64) for _ in range(QUERIES)]
    now = (20_000 + settings.days) * DAY_MS
    topic = exact.topic
    assert topic is not None
    return {
        "topic": _timed([lambda row=row: topic.query(row, ANSWERS) for row in rows]),  # type: ignore[misc]
        "co_watch": _timed([lambda row=row: exact.co_watch.query(row, ANSWERS) for row in rows]),  # type: ignore[misc]
        "nearest, exact": _timed([lambda h=h: exact.nearest.query(h, None, ANSWERS) for h in histories]),  # type: ignore[misc]
        "nearest, lists": _timed([lambda h=h: lists.nearest.query(h, None, ANSWERS) for h in histories]),  # type: ignore[misc]
        "trending": _timed([lambda: exact.trending.query(ANSWERS, now)] * QUERIES),
    }


def _recall(rng: np.random.Generator, exact: Indexes, lists: Indexes, videos: int) -> float:
    """The share of the exact answers that the lists find."""
    shared = 0
    for _ in range(50):
        history = rng.integers(0, videos, HISTORY)
        found = exact.nearest.query(history, None, ANSWERS).rows, lists.nearest.query(history, None, ANSWERS).rows
        shared += len(np.intersect1d(*found))
    return shared / (50 * ANSWERS)


def _timed(calls: list[Callable[[], Any]]) -> list[float]:
    """Median and 99th percentile (microseconds)."""
    for call in calls[:20]:
        call()
    return [float(value) for value in np.percentile([_seconds(call) * 1e6 for call in calls], (50, 99))]


def _seconds(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def _report(figures: dict[str, Any]) -> None:
    path = Home.from_environment().benchmarks / "indexes.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=1) + "\n")
    for name, value in figures.items():
        if name == "query_us":
            print(f"{f'microseconds, {ANSWERS} answers':24}  median     p99")
            for index, (median, high) in value.items():
                print(f"  {index:22} {median:7.0f} {high:7.0f}")
        elif isinstance(value, float | int):
            print(f"{name:24} {value:8.3g}" if isinstance(value, float) else f"{name:24} {value}")
        else:
            print(f"{name:24} {value}")
    print(f"written to {path}")


if __name__ == "__main__":
    main()
