"""Made bundles for the speed benchmarks: two configurations, a made-up log, untrained weights.

    python benchmarks/serving_bundles.py HOME [--name made|kuairand] [--videos 8000]

``made`` is the network of the targets (8 experts [256, 128], 5 objectives, 264 inputs of which 56 the video's);
``kuairand`` is that preset with all its features. The log is of KuaiRand's size (27,000 users, 8,000 videos) and uniform.
What a bundle costs to serve doesn't depend on what its weights learnt.
"""

import argparse
import os
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from data.columns import Batch, Column, StringLists, Strings
from data.config import ColumnConfig, Config, parse_config
from data.days import day_start
from data.features.tables import EntityTable
from data.home import Home

ROOT = Path(__file__).resolve().parents[1]
FIRST_DAY = date(2022, 4, 25)
DAYS = 3
USERS, VIDEOS, ROWS = 27_000, 8_000, 200_000
NAMES = ("made", "kuairand")
POSITIVE = 0.3
CATEGORIES = 10


def configuration(name: str = "made") -> Config:
    """The configuration of that name."""
    if name == "kuairand":
        text = (ROOT / "training" / "presets" / "kuairand.toml").read_text(encoding="utf-8")
        return parse_config(tomllib.loads(text), "kuairand")
    labels = [f"label_{i}" for i in range(5)]
    user = [
        {"kind": "category", "name": "user", "column": "user_id", "dim": 32},
        {"kind": "history", "name": "watched", "label": labels[0], "length": 20, "dim": 32},
        {"kind": "history", "name": "liked", "label": labels[1], "length": 20, "dim": 32},
        {"kind": "recent", "name": "recent", "labels": labels, "last": [1, 5, 20]},
        *({"kind": "rate", "name": f"rate_{i}", "keys": ["user_id", f"context_{i}"], "labels": labels} for i in range(7)),
        {"kind": "clock", "name": "hour", "part": "hour", "dim": 12},
    ]
    video = [
        {"kind": "category", "name": "video", "column": "video_id", "dim": 32},
        {"kind": "category", "name": "author", "column": "author", "dim": 16},
        {"kind": "rate", "name": "past", "keys": ["video_id"], "labels": labels[:4]},
    ]
    values = {
        "name": "made",
        "dataset": "made",
        "seed": 1,
        "log": {"context": {f"context_{i}": {"type": "category"} for i in range(7)}},
        "users": {"files": ["u"], "key": "user_id", "columns": {"city": {"type": "category"}}},
        "videos": {
            "files": ["v"],
            "key": "video_id",
            "columns": {"author": {"type": "category"}, "topics": {"type": "categories"}},
        },
        "labels": {label: {"type": "binary"} for label in labels},
        "features": [*user, *video],
        "objectives": [
            {"name": n, "family": "engagement", "label": n, "kind": "binary", "absent": 0, "window": 3600} for n in labels
        ],
        "generators": {"topic_column": "topics", "positive": labels[0]},
        "ranking": {"weights": dict.fromkeys(labels, 1.0)},
        "model": {"trunk": {"kind": "mmoe", "experts": 8, "layers": [256, 128]}},
    }
    return parse_config(values, "the benchmark's configuration")


def make(home: Home, name: str = "made", videos: int = VIDEOS, seed: int = 1) -> Path:
    """Publish and promote the bundle in ``home``; returns its folder. Runs in a process of its own, since it needs
    TensorFlow, whose memory and threads a benchmark doesn't want to have beside it."""
    words = [sys.executable, __file__, str(home.root), "--name", name, "--videos", str(videos), "--seed", str(seed)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the bundle {name} could not be made:\n{done.stderr[-3000:]}")
    return Path(done.stdout.splitlines()[-1])


def write(home: Home, name: str, videos: int, seed: int) -> Path:
    """The work of :func:`make`, here."""
    import tensorflow as tf

    from models.registry import Registry
    from training.learner import Learner
    from training.publish import write_bundle

    tf.keras.utils.set_random_seed(seed)
    config = configuration(name)
    rng = np.random.default_rng(seed)
    tables = made_tables(config, rng, videos)
    days = [FIRST_DAY + timedelta(days=day) for day in range(DAYS)]
    batches = [made_day(config, rng, day, videos) for day in days]
    learner = Learner.fresh(config, tables, [(days[0], batches[0])])
    for day, batch in zip(days, batches, strict=True):
        learner.take_in(day, batch)
    with learner.trainer.averaged() as network:  # biases of 0, as at the start, would be left out of the compiled graph
        for weight in network.weights.values():
            weight.assign_add(rng.normal(0, 0.02, weight.shape).astype(np.float32))
    means = {o.name: 0.3 for o in config.objectives}
    registry = Registry(home)
    version = registry.publish(
        config.name,
        days[-1],
        lambda folder: write_bundle(folder, learner, {}, f"benchmark-{name}-{videos}-{seed}"),
        config=config,
        first_day=days[0],
        reference_means=means,
        utilisation={},
    )
    registry.promote(config.name, version)
    return registry.folder_of(config.name, version)


def made_day(config: Config, rng: np.random.Generator, day: date, videos: int) -> Batch:
    """A day's rows, sorted by time: users and videos uniform, binary labels independent."""
    n = ROWS // DAYS
    start = day_start(day, config.timezone)
    timestamp = np.sort(rng.integers(0, 86_400_000, n)) + start
    columns: dict[str, Column] = {
        "user_id": numbered(rng.integers(0, USERS, n), "u", USERS),
        "video_id": numbered(rng.integers(0, videos, n), "v", videos),
        "timestamp": timestamp,
        "visible_at": timestamp + 10_000,
        "position": rng.integers(0, 20, n).astype(np.float64),
        **{name: made_column(column, rng, n) for name, column in config.log.context.items()},
    }
    for name, label in config.labels.items():
        binary = label.type == "binary"
        columns[name] = (rng.random(n) < POSITIVE).astype(np.float64) if binary else rng.exponential(20, n)
    return Batch(columns)


def made_tables(config: Config, rng: np.random.Generator, videos: int) -> Mapping[str, EntityTable]:
    """The users' and the videos' table, values uniform."""
    tables: dict[str, EntityTable] = {}
    for which, prefix, size, source in (("users", "u", USERS, config.users), ("videos", "v", videos, config.videos)):
        if source is None:
            continue
        columns = {name: made_column(column, rng, size) for name, column in source.columns.items()}
        ids = numbered(np.arange(size), prefix, size)
        tables[which] = EntityTable(source.key, Batch({source.key: ids, **columns}))
    return tables


def made_column(column: ColumnConfig, rng: np.random.Generator, n: int) -> Column:
    if column.type == "number":
        return rng.exponential(100, n)
    if column.type == "category":
        return numbered(rng.integers(0, CATEGORIES, n), "", CATEGORIES)
    offsets = np.concatenate([[0], np.cumsum(rng.integers(1, 4, n))]).astype(np.int64)
    return StringLists(offsets, numbered(rng.integers(0, 30, int(offsets[-1])), "t", 30))


def numbered(codes: np.ndarray[Any, Any], prefix: str, size: int) -> Strings:
    return Strings(codes.astype(np.int32), [f"{prefix}{i}" for i in range(size)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("home", type=Path)
    parser.add_argument("--name", choices=NAMES, default="made")
    parser.add_argument("--videos", type=int, default=VIDEOS)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    print(write(Home(given.home.resolve()), given.name, given.videos, given.seed))


if __name__ == "__main__":
    main()
