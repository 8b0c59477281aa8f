"""Which rows were shown together, and the time as of which their features are computed."""

from datetime import date

import numpy as np
from numpy.typing import NDArray

from data.columns import Batch, Column, StringLists, Strings
from data.config import Config
from data.features.sorting import ranks

Ints = NDArray[np.int64]

CROSSING_MS = 6 * 3_600_000
"""A request that crosses midnight has its rows up to this much later in the partition of the day on which it began."""


def feature_times(batch: Batch) -> Ints:
    """A row's feature time [n], ms: that of its request's first row; its own, where requests are not logged."""
    timestamp = batch.numbers("timestamp").astype(np.int64)
    if "request_id" not in batch:
        return timestamp
    codes = batch.strings("request_id").codes
    known = codes >= 0
    first = np.full(int(codes.max(initial=-1)) + 1, np.iinfo(np.int64).max)
    np.minimum.at(first, codes[known], timestamp[known])
    return np.where(known, np.append(first, 0)[codes], timestamp)


def slates(batch: Batch, config: Config, day: date) -> Ints:
    """Slate number [n], distinct over days: the request, or what the configuration's ``slate`` keys say."""
    keys: list[Ints] = []
    requests = batch.strings("request_id").codes.astype(np.int64) if "request_id" in batch else np.full(len(batch), -1)
    for name in config.slate:
        if name not in ("day", "request_id"):
            keys.append(np.where(requests >= 0, 0, _codes(batch[name])))
    number = np.zeros(len(batch), np.int64)
    for key in (requests, *keys) if len(batch) else ():
        key = key - key.min()
        number = ranks(number * (key.max() + 1) + key)[1]
    return number + (day.toordinal() << 32)


def slate_times(batch: Batch, slate: Ints) -> Ints:
    """The time of each row's slate's first row [n], ms."""
    _, number = ranks(slate)
    times = feature_times(batch)
    first = np.full(int(number.max(initial=-1)) + 1, np.iinfo(np.int64).max)
    np.minimum.at(first, number, times)
    return first[number]


def has_requests(batch: Batch) -> bool:
    """Whether any row names its request, so that slates are real ones."""
    return "request_id" in batch and bool((batch.strings("request_id").codes >= 0).any())


def _codes(column: Column) -> Ints:
    if isinstance(column, Strings):
        return column.codes.astype(np.int64)
    if isinstance(column, StringLists):
        return column.first().codes.astype(np.int64)
    return np.unique(column, return_inverse=True)[1].astype(np.int64)
