"""A request's history as rows of the log."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.columns import Batch, Column, StringLists, Strings
from data.config import ColumnConfig, Config
from data.errors import WatchNextError


def history_batch(config: Config, user_id: str, items: Sequence[Mapping[str, Any]]) -> Batch:
    """Past impressions of one user from ``[{video_id, timestamp, outcomes: {LABEL: value}, context: {NAME: value}}]``.

    An outcome left out is unknown. When outcomes count follows the configuration's ``visible_after``, as in ingest.

    Raises:
        WatchNextError: an unknown label or context column, or a value of the wrong type; says which.
    """
    items = sorted(items, key=lambda item: (item["timestamp"], item["video_id"]))
    for place, item in enumerate(items):
        _check("outcomes", item, config.labels, place)
        _check("context", item, config.log.context, place)
    timestamp = np.array([item["timestamp"] for item in items], np.int64)
    outcomes = [item.get("outcomes") or {} for item in items]
    contexts = [item.get("context") or {} for item in items]
    labels = {label: _numbers([row.get(label) for row in outcomes]) for label in config.labels}
    columns: dict[str, Column] = {
        "user_id": Strings(np.zeros(len(items), np.int32), [user_id]),
        "video_id": Strings.of(item["video_id"] for item in items),
        "timestamp": timestamp,
        "visible_at": visible_at(config, timestamp, labels),
        **{name: context_column(column, [row.get(name) for row in contexts]) for name, column in config.log.context.items()},
        **labels,
    }
    return Batch(columns)


def visible_at(config: Config, timestamp: NDArray[np.int64], labels: Mapping[str, NDArray[np.float64]]) -> NDArray[np.int64]:
    """When the rows' outcomes could be known [n], ms: ``visible_after`` seconds after the impression, or with it."""
    if config.log.visible_after is None:
        return timestamp
    seconds = np.nan_to_num(labels[config.log.visible_after])
    return np.asarray(timestamp + np.rint(1000 * np.maximum(seconds, 0)).astype(np.int64))


def context_column(column: ColumnConfig, values: Sequence[Any]) -> Column:
    """Context values as a column; None is null."""
    match column.type:
        case "category":
            return Strings.of(None if value is None else str(value) for value in values)
        case "categories":
            return StringLists.of(values)
        case "number":
            return _numbers(values)


def _numbers(values: Sequence[Any]) -> NDArray[np.float64]:
    return np.array([np.nan if value is None else float(value) for value in values], np.float64)


def _check(key: str, item: Mapping[str, Any], known: Mapping[str, Any], place: int) -> None:
    for name in item.get(key) or {}:
        if name not in known:
            raise WatchNextError(f"history[{place}].{key}: unknown name {name!r}: expected one of {', '.join(known)}")
