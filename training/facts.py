"""What a day looks like: the figures by which the quarantine tells a broken day from a good one."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.columns import Batch, Column, StringLists, Strings
from data.config import Config
from data.features.slates import feature_times
from data.features.tables import Tables
from data.features.view import View
from training.figures import Scored
from training.metrics import auc
from training.pairs import order_accuracy

LEAST_OF_A_CLASS = 20
"""Positives (and negatives) under which the champion's order on a day says nothing about the day."""


class Figure(NamedTuple):
    """A value, and the standard error that it would have if rows were drawn at random."""

    value: float
    error: float


DayFigures = Mapping[str, Figure]
"""``rows``; ``null:<column>`` and ``other:<column>``, the shares of rows without a value and with another than the most
frequent one; ``rate:<label>``, its mean where known; ``champion:<objective>``, the AUC (order accuracy) of the champion."""


def day_figures(batch: Batch, config: Config, tables: Tables, open_labels: frozenset[str]) -> dict[str, Figure]:
    """The figures of a day's rows; labels whose windows are still open are left out."""
    n = len(batch)
    found = {"rows": Figure(float(n), float(np.sqrt(n)))}
    view = View(batch, feature_times(batch), tables, {})
    for name in _columns(batch, config):
        null, other = _shares(view.column(name))
        found |= {f"null:{name}": _share(null, n), f"other:{name}": _share(other, n)}
    for label in (name for name in config.labels if name not in open_labels):
        values = np.asarray(batch.numbers(label), np.float64)
        known = values[~np.isnan(values)]
        found[f"null:{label}"] = _share(n - len(known), n)
        if len(known):
            found[f"rate:{label}"] = Figure(float(known.mean()), float(known.std() / np.sqrt(len(known))))
    return found


def champion_figures(scored: Scored, config: Config) -> dict[str, Figure]:
    """How well the champion orders the day, per objective that has enough of both classes."""
    found = {}
    for k, objective in enumerate(config.objectives):
        known = ~np.isnan(scored.targets[:, k]) & np.isfinite(scored.predictions[:, k])
        y, p = scored.targets[known, k], scored.predictions[known, k]
        positives = int((y > 0).sum())
        if min(positives, len(y) - positives if objective.kind == "binary" else len(y)) < LEAST_OF_A_CLASS:
            continue
        value = auc(y, p) if objective.kind == "binary" else order_accuracy(y, p)
        if value is not None:
            found[f"champion:{objective.name}"] = Figure(value, auc_error(value, positives, max(len(y) - positives, 1)))
    return found


def auc_error(value: float, positives: int, negatives: int) -> float:
    """The standard error of an AUC (Hanley & McNeil, Radiology 143, 1982)."""
    both, twice = value / (2 - value), 2 * value**2 / (1 + value)
    spread = value * (1 - value) + (positives - 1) * (both - value**2) + (negatives - 1) * (twice - value**2)
    return float(np.sqrt(max(spread, 0.0) / (positives * negatives)))


def _columns(batch: Batch, config: Config) -> list[str]:
    """What features may read of a row, apart from the ids."""
    logged = [*config.log.context, *(name for name in ("query_video_id", "position") if name in batch)]
    return [*logged, *config.user_columns, *config.video_columns]


def _shares(column: Column) -> tuple[int, int]:
    """Rows without a value, and rows with another value than the most frequent one."""
    codes = _codes(column)
    counts = np.bincount(codes[codes >= 0])
    return int((codes < 0).sum()), int(counts.sum() - counts.max(initial=0))


def _codes(column: Column) -> NDArray[np.int64]:
    """Equal numbers for equal values [n], -1 for null."""
    if isinstance(column, StringLists):
        column = column.first()
    if isinstance(column, Strings):
        return column.codes.astype(np.int64)
    known = ~np.isnan(column)
    codes = np.full(len(column), -1, np.int64)
    codes[known] = np.unique(column[known], return_inverse=True)[1].reshape(-1)
    return codes


def _share(count: int, n: int) -> Figure:
    share = count / n if n else 0.0
    return Figure(share, float(np.sqrt(share * (1 - share) / n)) if n else 0.0)
