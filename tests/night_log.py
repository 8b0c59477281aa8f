"""A log that a small network can learn from, day by day, and what can go wrong with a day of it."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from data.columns import Batch, Strings
from data.config import Config, parse_config
from data.days import day_start
from data.features.tables import EntityTable
from data.home import Home
from data.log import list_days
from data.manifest import FILE, DayFigures, Manifest, settings_of
from tests.small_log import write_home

FIRST = date(2024, 3, 1)
QUIET = Console(quiet=True)
NOW = day_start(FIRST + timedelta(days=30), "UTC")
USERS, VIDEOS, ROWS = 60, 30, 900


def night_config(**changes: Any) -> Config:
    values: dict[str, Any] = {
        "name": "night",
        "dataset": "night",
        "seed": 1,
        "slate": ["request_id"],
        "log": {"context": {"tab": {"type": "category"}}},
        "videos": {"files": ["v"], "key": "video_id", "columns": {"author": {"type": "category"}}},
        "labels": {"click": {"type": "binary"}, "like": {"type": "binary"}},
        "features": [
            {"kind": "category", "name": "video", "column": "video_id", "dim": 4},
            {"kind": "category", "name": "tab", "column": "tab", "dim": 2},
            {"kind": "category", "name": "author", "column": "author", "dim": 2},
            {"kind": "rate", "name": "video_rate", "keys": ["video_id"], "labels": ["click", "like"]},
            {"kind": "rate", "name": "user_rate", "keys": ["user_id"], "labels": ["click"], "until": "moment"},
        ],
        "objectives": [
            {"name": "click", "family": "engagement", "label": "click", "kind": "binary", "absent": 0},
            {"name": "like", "family": "satisfaction", "label": "like", "kind": "binary", "absent": 0},
        ],
        "model": {"trunk": {"kind": "mmoe", "experts": 2, "layers": [8]}, "tower": [4], "bias": "none"},
        "training": {"batch_size": 64, "learning_rate": 0.02, "embedding_learning_rate": 0.02},
        "evaluation": {"bootstrap": 50, "slices": ["tab"]},
        "gate": {"margin": -0.04, "least_positives": 30, "spot_check_rows": 20, "polarized": "warn", "latency_ratio": 20.0},
    }
    merged = {key: {**values.get(key, {}), **value} if isinstance(value, dict) else value for key, value in changes.items()}
    return parse_config({**values, **merged}, "night")


def night_day(number: int, rows: int = ROWS) -> Batch:
    """The rows of the day so many days after FIRST: what is clicked depends on the video and on the tab."""
    rng = np.random.default_rng([7, number])
    taste = np.random.default_rng(8).normal(0, 1.6, VIDEOS)
    user, video, tab = rng.integers(0, USERS, rows), rng.integers(0, VIDEOS, rows), rng.integers(0, 3, rows)
    odds = taste[video] + np.array([-1.2, 0.0, 1.2])[tab] - 0.5
    click = (rng.random(rows) < 1 / (1 + np.exp(-odds))).astype(float)
    like = (rng.random(rows) < 1 / (1 + np.exp(1 - odds))).astype(float)
    start = day_start(FIRST + timedelta(days=number), "UTC")
    time = np.sort(start + rng.integers(0, 80_000_000, rows))
    return Batch(
        {
            "user_id": Strings.of(f"u{u}" for u in user),
            "video_id": Strings.of(f"v{v}" for v in video),
            "timestamp": time,
            "visible_at": time + 1000,
            "request_id": Strings.of(f"r{number}-{place // 3}" for place in range(rows)),
            "tab": Strings.of(str(t) for t in tab),
            "click": click,
            "like": like,
        }
    )


def videos_table(videos: int = VIDEOS) -> Batch:
    ids = [f"v{v}" for v in range(videos)]
    return Batch({"video_id": Strings.of(ids), "author": Strings.of(f"a{v % 5}" for v in range(videos))})


def with_columns(batch: Batch, columns: Mapping[str, Any]) -> Batch:
    return Batch({**batch.columns, **columns})


def shuffled(batch: Batch) -> Batch:
    """Outcomes dealt out anew among the day's rows."""
    order = np.random.default_rng(5).permutation(len(batch))
    return with_columns(batch, {name: batch.numbers(name)[order] for name in ("click", "like")})


def nulls(batch: Batch) -> Batch:
    return with_columns(batch, {"tab": Strings.of([None] * len(batch))})


def constant(batch: Batch) -> Batch:
    return with_columns(batch, {"tab": Strings.of(["0"] * len(batch))})


def tenth(batch: Batch) -> Batch:
    return batch.take(np.arange(len(batch) // 10))


POISONS: dict[str, Callable[[Batch], Batch]] = {
    "labels shuffled": shuffled,
    "a column without values": nulls,
    "a column of one value": constant,
    "a tenth of the data": tenth,
}


def as_it_is(batch: Batch) -> Batch:
    return batch


def add_days(home: Home, config: Config, numbers: Sequence[int], spoil: Callable[[Batch], Batch] = as_it_is) -> None:
    """Put days into the log as ingest would leave them, with the videos' table."""
    days = {FIRST + timedelta(days=number): spoil(night_day(number)) for number in numbers}
    write_home(home, config, days, {"videos": EntityTable("video_id", videos_table())})
    manifest = Manifest(config.dataset, settings_of(config))
    manifest.tables = {"videos": {"rows": VIDEOS}}
    manifest.days = {str(day): DayFigures(rows=1) for day in list_days(home, config.dataset)}
    (home.logs(config.dataset) / FILE).write_text(manifest.dumps())


def copied(home: Home, folder: Path) -> Home:
    return Home(shutil.copytree(home.root, folder))


def day(number: int) -> date:
    return FIRST + timedelta(days=number)
