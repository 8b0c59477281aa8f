"""Rows whose labels' windows are still open: kept as they were encoded, and trained on when the windows close."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from data.columns import Batch, Strings
from data.config import Config, Side
from data.database import database_url, open_database, reading
from data.days import day_start, parse_day
from data.features.layout import Block
from data.features.storage import load_array, load_blocks, save_arrays, save_blocks
from data.feedback.schema import exports
from data.home import Home

OpenLabels = Mapping[date, frozenset[str]]
"""The labels of each exported day whose windows had not closed when it was exported. Days from files have none."""


@dataclass(frozen=True)
class Waiting:
    """A day's rows as they were encoded, the numbers of their videos [n], a key of each row [n], and the labels that were
    open when they were trained on."""

    day: date
    blocks: Mapping[Side, Block]
    video: NDArray[np.int64]
    keys: NDArray[np.int64]
    open_labels: frozenset[str]

    def save(self, folder: Path) -> None:
        """Write .npy files and one .json."""
        save_blocks(self.blocks, folder)
        save_arrays({"video": self.video, "keys": self.keys}, folder)
        (folder / "open.json").write_text(json.dumps(sorted(self.open_labels)))

    @classmethod
    def load(cls, folder: Path) -> "Waiting":
        video, keys = (load_array(folder / f"{name}.npy") for name in ("video", "keys"))
        labels = frozenset(json.loads((folder / "open.json").read_text()))
        return cls(date.fromisoformat(folder.name.removeprefix("day=")), load_blocks(folder), video, keys, labels)

    def align(self, batch: Batch, targets: NDArray[np.float32]) -> NDArray[np.float32]:
        """The targets [n, K] of these rows, given those of the day as it now stands; NaN for rows that it lacks."""
        aligned = np.full((len(self.keys), targets.shape[1]), np.nan, np.float32)
        _, mine, theirs = np.intersect1d(self.keys, row_keys(batch), return_indices=True)
        aligned[mine] = targets[theirs]
        return aligned

    def closed(self, labels: Collection[str]) -> "Waiting":
        return replace(self, open_labels=self.open_labels - set(labels))


def open_labels(home: Home, config: Config) -> OpenLabels:
    """Of the exported days of the dataset, those with labels still open.

    Raises:
        DatabaseError: the database cannot be read.
    """
    query = sa.select(exports.c.day, exports.c.closed).where(exports.c.dataset == config.dataset)
    with reading(open_database(database_url(home))) as connection:
        rows = connection.execute(query).all()
    found = {parse_day(row.day): frozenset(config.labels) - set(json.loads(row.closed)) for row in rows}
    return {day: labels for day, labels in found.items() if labels}


def mask(targets: NDArray[np.float32], config: Config, labels: Collection[str]) -> NDArray[np.float32]:
    """The targets [n, K] without those of open labels: the positives that came early would stand without their negatives."""
    open_ = [k for k, names in enumerate(_labels_of(config)) if names & set(labels)]
    if not open_:
        return targets
    masked = targets.copy()
    masked[:, open_] = np.nan
    return masked


def newly_closed(
    targets: NDArray[np.float32], config: Config, before: Collection[str], now: Collection[str]
) -> NDArray[Any]:
    """The targets [n, K] of the objectives that were open ``before`` and, with ``now`` still open, are no longer."""
    keep = [bool(names & set(before)) and not names & set(now) for names in _labels_of(config)]
    return np.where(np.array(keep), targets, np.nan).astype(np.float32)


def closes_before(label: str, day: date, until: date | None, config: Config) -> bool:
    """Whether the windows of a day's rows have closed before the start of ``until``: weights that are judged on that day
    must not have learnt from what happened on it."""
    if until is None:
        return True
    end = day_start(day + timedelta(days=1), config.timezone) + config.window(label)
    return end <= day_start(until, config.timezone)


def row_keys(batch: Batch) -> NDArray[np.int64]:
    """A number of 64 bits for each row [n], the same in every export of it; repeats differ by their order."""
    key = batch.numbers("timestamp").astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for factor, name in (
        (0xC2B2AE3D27D4EB4F, "user_id"),
        (0x165667B19E3779F9, "video_id"),
        (0x27D4EB2F165667C5, "request_id"),
    ):
        if name in batch:
            key = key ^ (_hashed(batch.strings(name)) * np.uint64(factor))
    order = np.argsort(key, kind="stable")
    ordered = key[order]
    new = np.concatenate([[True], ordered[1:] != ordered[:-1]]) if len(key) else np.zeros(0, bool)
    starts = np.flatnonzero(new)
    repeat = np.arange(len(key)) - np.repeat(starts, np.diff(np.append(starts, len(key))))
    key[order] = ordered + repeat.astype(np.uint64) * np.uint64(0xD6E8FEB86659FD93)
    return key.view(np.int64)


def _labels_of(config: Config) -> Sequence[frozenset[str]]:
    """Per objective the labels that its targets are made of: its own, and that of the objective it is given."""
    label = {objective.name: objective.label for objective in config.objectives}
    return [frozenset({o.label, *([label[o.given]] if o.given else [])}) for o in config.objectives]


def _hashed(column: Strings) -> NDArray[np.uint64]:
    numbers = np.zeros(len(column.values) + 1, np.uint64)  # the last is for null
    for code in np.unique(column.codes[column.codes >= 0]).tolist():
        digest = blake2b(column.values[code].encode("utf-8", "surrogatepass"), digest_size=8).digest()
        numbers[code] = int.from_bytes(digest, "little")
    return numbers[column.codes]
