"""A small random log with every difficulty: requests, equal timestamps, nulls, late outcomes, dated tables."""

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data.columns import Batch, StringLists, Strings
from data.config import Config, parse_config
from data.days import day_of, day_start
from data.features.state import FeatureState
from data.features.tables import EntityTable
from data.home import Home
from data.log import ROWS_FILE, log_schema, table_schema

FIRST_DAY = date(2024, 3, 1)
MINUTE = 60_000


def small_config(**changes: Any) -> Config:
    values: dict[str, Any] = {
        "name": "small",
        "dataset": "small",
        "seed": 1,
        "timezone": "Asia/Shanghai",
        "log": {
            "visible_after": "watch",
            "context": {"tab": {"type": "category"}, "battery": {"type": "number"}},
        },
        "users": {"files": ["u"], "key": "user_id", "columns": {"city": {"type": "category"}, "age": {"type": "number"}}},
        "videos": {
            "files": ["v"],
            "key": "video_id",
            "valid_from": "valid_from",
            "columns": {
                "author": {"type": "category"},
                "tags": {"type": "categories"},
                "duration": {"type": "number"},
            },
        },
        "labels": {
            "click": {"type": "binary", "feedback_delay": 30},
            "watch": {"type": "number", "feedback_delay": 30},
            "like": {"type": "binary"},
        },
        "features": [
            {"kind": "category", "name": "user", "column": "user_id", "dim": 4},
            {"kind": "category", "name": "video", "column": "video_id", "dim": 4},
            {"kind": "category", "name": "author", "column": "author", "dim": 3},
            {"kind": "category", "name": "tab", "column": "tab", "dim": 2},
            {"kind": "category", "name": "city", "column": "city", "dim": 2},
            {"kind": "categories", "name": "tags", "column": "tags", "dim": 3, "max_values": 2},
            {"kind": "number", "name": "age", "column": "age"},
            {"kind": "number", "name": "duration", "column": "duration", "scaling": "log"},
            {"kind": "number", "name": "battery", "column": "battery", "scaling": "buckets", "buckets": 4},
            {"kind": "crossed", "name": "city_tab", "columns": ["city", "tab"], "dim": 2},
            {"kind": "crossed", "name": "city_author", "columns": ["city", "author"], "dim": 2},
            {"kind": "clock", "name": "hour", "part": "hour"},
            {"kind": "rate", "name": "video_rate", "keys": ["video_id"], "labels": ["click", "watch", "like"]},
            {"kind": "rate", "name": "author_rate", "keys": ["author"], "labels": ["click", "like"]},
            {"kind": "rate", "name": "tag_rate", "keys": ["tags"], "labels": ["click"]},
            {"kind": "rate", "name": "user_day", "keys": ["user_id"], "labels": ["click", "like"]},
            {
                "kind": "rate",
                "name": "user_now",
                "keys": ["user_id"],
                "labels": ["click", "watch", "like"],
                "until": "moment",
            },
            {"kind": "rate", "name": "user_tab", "keys": ["user_id", "tab"], "labels": ["click"], "until": "moment"},
            {
                "kind": "rate",
                "name": "user_tag",
                "keys": ["user_id", "tags"],
                "labels": ["click", "like"],
                "until": "moment",
            },
            {"kind": "recent", "name": "recent", "labels": ["click", "watch", "like"], "last": [1, 3]},
            {"kind": "activity", "name": "activity", "hours": [1.0]},
            {"kind": "history", "name": "watched", "label": "watch", "above": 5.0, "length": 4, "dim": 4},
            {"kind": "history", "name": "liked_author", "label": "like", "length": 3, "of": "author", "dim": 3},
            {"kind": "number", "name": "position", "column": "position"},
        ],
        "objectives": [
            {"name": "click", "family": "engagement", "label": "click", "kind": "binary", "absent": 0},
            {"name": "watch", "family": "engagement", "label": "watch", "kind": "regression", "given": "click"},
            {
                "name": "like",
                "family": "satisfaction",
                "label": "like",
                "kind": "binary",
                "population": [{"column": "tab", "none_of": ["2"]}],
            },
        ],
    }
    return parse_config({**values, **changes}, "small")


def small_days(
    seed: int = 0, days: int = 4, requests: int = 60, users: int = 12, videos: int = 25, late: float = 0.5
) -> dict[date, Batch]:
    """Day partitions as ingest would leave them. Requests have up to five rows, some of equal timestamps; the last of a day
    crosses midnight; some rows have no request; outcomes may become visible on the next day; some labels are null; a
    share ``late`` of likes comes later."""
    rng = np.random.default_rng(seed)
    config = small_config()
    rows: list[dict[str, Any]] = []
    for day in range(days):
        start = day_start(FIRST_DAY + timedelta(days=day), config.timezone)
        for number in range(requests):
            begin = start + int(rng.integers(0, 86_400_000 - 5 * MINUTE) // MINUTE * MINUTE)
            grouped = rng.random() < 0.8
            if number == 0:
                begin, grouped = start + 86_400_000 - 1_000, True
            shared = {
                "user_id": f"u{rng.integers(users * (day + 2) // (days + 1) + 1)}",
                "request_id": f"r{day}-{number}" if grouped else None,
                "tab": None if rng.random() < 0.1 else str(rng.integers(3)),
                "battery": float(rng.random()) if rng.random() < 0.9 else np.nan,
            }
            for place in range(int(rng.integers(1, 6)) if grouped else 1):
                rows.append({**shared, **_row(rng, begin, place, videos * (day + 2) // (days + 1) + 1, late)})
    rows.sort(key=lambda row: (row["timestamp"], row["user_id"], row["video_id"]))
    by_day: dict[date, list[dict[str, Any]]] = {}
    first = {}
    for row in rows:
        first.setdefault(row["request_id"] or object(), row["timestamp"])
    for row in rows:
        begin = first.get(row["request_id"], row["timestamp"]) if row["request_id"] else row["timestamp"]
        by_day.setdefault(day_of(begin, config.timezone), []).append(row)
    return {day: batch_of(rows) for day, rows in sorted(by_day.items())}


def _row(rng: np.random.Generator, begin: int, place: int, videos: int, late: float) -> dict[str, Any]:
    timestamp = begin + int(rng.integers(0, 3)) * 1000 * place
    watch = float(rng.choice([0.0, 3.0, 8.5, 40.0, 4_000.0], p=[0.2, 0.3, 0.3, 0.15, 0.05]))
    click = float(watch > 3)
    like = float(rng.random() < 0.3)
    return {
        "video_id": f"v{rng.integers(videos)}",
        "timestamp": timestamp,
        "visible_at": timestamp + round(1000 * watch),
        "position": float(place),
        "click": click if rng.random() < 0.95 else np.nan,
        "watch": watch,
        "like": like if rng.random() < 0.9 else np.nan,
        "like_visible_at": float(timestamp + int(rng.integers(0, 10**7))) if rng.random() < late else np.nan,
    }


_TEXTS = ("user_id", "video_id", "request_id", "tab")


def batch_of(rows: list[dict[str, Any]]) -> Batch:
    columns: dict[str, Any] = {name: Strings.of(row[name] for row in rows) for name in _TEXTS}
    for name in ("timestamp", "visible_at"):
        columns[name] = np.array([row[name] for row in rows], np.int64)
    for name in ("battery", "position", "click", "watch", "like", "like_visible_at"):
        columns[name] = np.array([row[name] for row in rows], np.float64)
    return Batch(columns)


def rows_of(batch: Batch) -> list[dict[str, Any]]:
    lists: Mapping[str, list[Any]] = {name: column.tolist() for name, column in batch.columns.items()}  # type: ignore[union-attr]
    return [{name: values[i] for name, values in lists.items()} for i in range(len(batch))]


def small_tables(seed: int = 0, users: int = 12, videos: int = 25) -> dict[str, EntityTable]:
    """Users undated; videos dated, some with two versions, one starting in the middle of the log."""
    rng = np.random.default_rng(seed + 1000)
    start = day_start(FIRST_DAY, "Asia/Shanghai")
    ids = [f"v{i}" for i in range(videos - 2) for _ in range(1 + (i % 5 == 0))]
    valid = [0 if i == 0 or ids[i] != ids[i - 1] else start + 30 * 3_600_000 for i in range(len(ids))]
    valid[3] = start + 50 * 3_600_000
    tags = [[f"t{t}" for t in rng.choice(6, rng.integers(0, 4), replace=False)] for _ in ids]
    return {
        "users": EntityTable(
            "user_id",
            Batch(
                {
                    "user_id": Strings.of(f"u{i}" for i in range(users - 1)),
                    "city": Strings.of(rng.choice(["a", "b", None]) for _ in range(users - 1)),
                    "age": np.where(rng.random(users - 1) < 0.2, np.nan, rng.integers(15, 80, users - 1).astype(float)),
                }
            ),
        ),
        "videos": EntityTable(
            "video_id",
            Batch(
                {
                    "video_id": Strings.of(ids),
                    "valid_from": np.array(valid, np.int64),
                    "author": Strings.of(f"a{rng.integers(5)}" for _ in ids),
                    "tags": StringLists.of(tags),
                    "duration": rng.integers(0, 100, len(ids)).astype(float),
                }
            ),
        ),
    }


def state_before(config: Config, days: Mapping[date, Batch], tables: dict[str, EntityTable], day: date) -> FeatureState:
    """Fitted on the first day, advanced over every day before ``day``."""
    ordered = sorted(days)
    state = FeatureState.fit(config, tables, [(ordered[0], days[ordered[0]])])
    for earlier in ordered:
        if earlier < day:
            state.advance(days[earlier], day_start(earlier + timedelta(days=1), config.timezone))
    return state


def write_home(home: Home, config: Config, days: Mapping[date, Batch], tables: Mapping[str, EntityTable]) -> None:
    """The log as ingest would leave it on disk."""
    for day, batch in days.items():
        folder = home.day(config.dataset, day)
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(_arrow(batch, log_schema(config)), folder / ROWS_FILE)
    for which, table in tables.items():
        columns = config.users.columns if which == "users" else config.videos.columns  # type: ignore[union-attr]
        schema = table_schema(table.key, columns)
        pq.write_table(_arrow(table.batch, schema), home.logs(config.dataset) / f"{which}.parquet")


def _arrow(batch: Batch, schema: pa.Schema) -> pa.Table:
    fields = [field for field in schema if field.name in batch]
    values = [pa.array(batch[field.name].tolist(), field.type, from_pandas=True) for field in fields]  # type: ignore[union-attr]
    return pa.table(values, schema=pa.schema(fields))
