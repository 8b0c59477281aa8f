"""Writing a world's log: the source files that ``watchnext ingest`` reads with the table reader.

``folder/log/day=YYYY-MM-DD/part-NNNNN.parquet`` in order of time (parts overlap by a sitting's length),
``folder/users.parquet``, ``folder/videos.parquet``, and ``folder/world.json`` (seed and settings), which is written
last. ``training/presets/simulator.toml`` declares the columns.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data.errors import LogError
from data.simulator.entities import Ints
from data.simulator.policy import NONE
from data.simulator.settings import DEVICES, OUTCOMES, SavedWorld, WorldConfig, world_config
from data.simulator.sittings import Rows
from data.simulator.world import SETTINGS_FILE, World

PART_ROWS = 500_000
UNFINISHED_FILE = "world.unfinished.json"
Progress = Callable[[int, int], None]
"""Called with the impressions written and their total."""


def simulate(folder: Path, settings: WorldConfig, rows: int, seed: int, progress: Progress | None = None) -> int:
    """Write the log of a world into ``folder``; returns the impressions in it (``rows``, up to whole requests).

    ``rows`` replaces the settings' own. A folder that holds this very log is left as it is; one that a killed run left
    is started again.

    Raises:
        LogError: the folder holds anything else.
        ConfigError: a setting is wrong.
    """
    world = World(world_config({**settings.model_dump(), "rows": rows}), seed)
    total = world.settings.requests * world.settings.slate
    if not _claim(folder, SavedWorld(seed=world.seed, settings=world.settings)):
        return total
    _write_users(folder / "users.parquet", world)
    _write_videos(folder / "videos.parquet", world)
    written = 0
    for day in range(world.settings.days):
        for table in _parts(_tables(world, day), folder / "log" / f"day={world.day_name(day)}"):
            written += len(table)
            if progress is not None:
                progress(written, total)
    (folder / UNFINISHED_FILE).rename(folder / SETTINGS_FILE)
    return written


def _claim(folder: Path, saved: SavedWorld) -> bool:
    """Whether there is something to write; leaves a mark that says what is being written."""
    text = saved.model_dump_json(indent=2)
    if (folder / SETTINGS_FILE).exists():
        if (folder / SETTINGS_FILE).read_text(encoding="utf-8") == text:
            return False
        raise LogError(f"{folder} holds the log of another world: expected an empty folder, or the same settings and seed")
    if folder.exists() and any(folder.iterdir()):
        if not (folder / UNFINISHED_FILE).exists():
            raise LogError(f"expected an empty folder to write the log into, but {folder} holds other files")
        for part in sorted(folder.glob("log/day=*/part-*.parquet")):
            part.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / UNFINISHED_FILE).write_text(text, encoding="utf-8")
    return True


def _tables(world: World, day: int) -> Iterator[pa.Table]:
    user_names, video_names = _names("u", world.settings.users), _names("v", world.settings.videos)
    for rows in world.day(day):
        yield _table(rows, day, user_names, video_names)


def _parts(tables: Iterator[pa.Table], folder: Path) -> Iterator[pa.Table]:
    """Write the tables into files of PART_ROWS rows or a little more; yields each once it is written."""
    folder.mkdir(parents=True, exist_ok=True)
    writer, part, rows = None, 0, 0
    try:
        for table in tables:
            if writer is None:
                # Without the Arrow schema a reader sees the plain Parquet types.
                writer = pq.ParquetWriter(folder / f"part-{part:05d}.parquet", table.schema, store_schema=False)
            writer.write_table(table)
            rows += len(table)
            if rows >= PART_ROWS:
                writer.close()
                writer, part, rows = None, part + 1, 0
            yield table
    finally:
        if writer is not None:
            writer.close()


def _table(rows: Rows, day: int, user_names: Any, video_names: Any) -> pa.Table:
    """The log contract's columns, by their own names."""
    numbers, place = np.unique(rows.request, return_inverse=True)
    requests: Any = pa.array([f"{day:04d}-{number}" for number in numbers.tolist()])
    columns: dict[str, Any] = {
        "user_id": _pick(user_names, rows.user),
        "video_id": _pick(video_names, rows.video),
        "timestamp": pa.array(rows.timestamp),
        "request_id": _pick(requests, place),
        "query_video_id": _pick(video_names, rows.query),
        "position": pa.array(rows.position.astype(np.int32)),
        "propensity": pa.array(rows.propensity),
        "is_exploration": pa.array(rows.is_exploration),
        "device": _pick(pa.array(DEVICES), rows.device),
    }
    for outcome in OUTCOMES:
        values = getattr(rows, outcome)
        is_number = outcome == "watch_time"  # float32 holds hundredths: as float64 they are rounded again
        columns[outcome] = pa.array(np.round(values.astype(np.float64), 2) if is_number else values.astype(np.int8))
    return pa.table(columns)


def _write_users(path: Path, world: World) -> None:
    users = world.users
    columns: dict[str, Any] = {
        "user_id": _names("u", len(users.signup)),
        "signup": pa.array(users.signup),
        "age_group": _pick(_names("age", world.settings.age_groups), users.age_group),
        "region": _pick(_names("region", world.settings.regions), users.region),
    }
    pq.write_table(pa.table(columns), path, store_schema=False)


def _write_videos(path: Path, world: World) -> None:
    videos = world.videos
    topics = _names("topic", world.settings.topics)
    columns: dict[str, Any] = {
        "video_id": _names("v", len(videos.upload)),
        "upload": pa.array(videos.upload),
        "author_id": _pick(_names("a", world.settings.authors), videos.author),
        "topic": _pick(topics, videos.topic),
        "topics": _topic_lists(videos.topic, videos.second_topic, topics),
        "duration": pa.array(videos.duration.astype(np.float64)),
    }
    pq.write_table(pa.table(columns), path, store_schema=False)


def _topic_lists(first: Ints, second: Ints, topics: Any) -> Any:
    """One or two topics a video, as a list array."""
    both = np.stack([first, second], axis=1)
    offsets: Any = pa.array(np.concatenate([[0], np.cumsum(1 + (second != NONE))]).astype(np.int32))
    return pa.ListArray.from_arrays(offsets, _pick(topics, both[both != NONE]))


def _pick(texts: Any, places: Ints) -> Any:
    """The texts at these places as an Arrow array, null at NONE."""
    return texts.take(pa.array(places, mask=places == NONE))


def _names(prefix: str, count: int) -> Any:
    return pa.array([f"{prefix}{row}" for row in range(count)])
