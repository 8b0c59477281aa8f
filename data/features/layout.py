"""How encoded features lie in arrays: one int32 and one float32 matrix per side."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from data.config import (
    ActivityFeature,
    CategoriesFeature,
    CategoryFeature,
    Config,
    Feature,
    HistoryFeature,
    NumberFeature,
    RateFeature,
    RecentFeature,
    Side,
    embedding_table,
)

SIDES: tuple[Side, ...] = ("user", "context", "video", "cross", "training_only")

UNSEEN = 0
"""The row of every embedding table that stands for ids never seen: learnt, like any other."""
NULL = 1
"""The row that stands for a null category."""
PADDING = -1
"""Fills the unused places of a pooled field; it has no embedding."""


@dataclass(frozen=True)
class IntField:
    """Columns [offset, offset + width) of a side's ints: rows of ``table``. ``pooled`` ones are averaged over the
    places that are not PADDING (all padding: zeros)."""

    feature: str
    table: str
    offset: int
    width: int
    pooled: bool
    dropout: float = 0.0
    l2: float = 0.0


@dataclass(frozen=True)
class FloatField:
    """Columns [offset, offset + width) of a side's floats; ``names`` says what each is (for reports and LightGBM)."""

    feature: str
    offset: int
    names: tuple[str, ...]

    @property
    def width(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class SideLayout:
    ints: tuple[IntField, ...] = ()
    floats: tuple[FloatField, ...] = ()

    @property
    def int_width(self) -> int:
        return sum(f.width for f in self.ints)

    @property
    def float_width(self) -> int:
        return sum(f.width for f in self.floats)


@dataclass(frozen=True)
class Layout:
    """The arrays' columns, side by side, and the width of each embedding table. A pure function of the configuration."""

    sides: Mapping[Side, SideLayout]
    tables: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Block:
    """One side's features of n rows: ints [n, int_width] int32, floats [n, float_width] float32."""

    ints: NDArray[np.int32]
    floats: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.ints)

    def take(self, rows: NDArray[np.int64]) -> "Block":
        return Block(self.ints.take(rows, 0), self.floats.take(rows, 0))


def build_layout(config: Config) -> Layout:
    """The layout of a configuration's features, in the order in which they are declared."""
    sides: dict[Side, SideLayout] = {side: SideLayout() for side in SIDES}
    tables: dict[str, int] = {}
    for feature in config.features:
        side = config.feature_side(feature)
        now = sides[side]
        table = embedding_table(feature)
        ints, floats = now.ints, now.floats
        if table is not None:
            tables[table] = getattr(feature, "dim")  # noqa: B009
            ints = (*ints, _int_field(feature, table, now.int_width))
        names = float_names(feature)
        if names:
            floats = (*floats, FloatField(feature.name, now.float_width, names))
        sides[side] = SideLayout(ints, floats)
    return Layout(sides, tables)


def _int_field(feature: Feature, table: str, offset: int) -> IntField:
    match feature:
        case CategoriesFeature():
            return IntField(feature.name, table, offset, feature.max_values, True)
        case HistoryFeature():
            return IntField(feature.name, table, offset, feature.length, True)
        case CategoryFeature():
            return IntField(feature.name, table, offset, 1, False, feature.dropout, feature.l2)
        case _:
            return IntField(feature.name, table, offset, 1, False)


def float_names(feature: Feature) -> tuple[str, ...]:
    """What a feature puts into the floats."""
    name = feature.name
    match feature:
        case NumberFeature() if feature.scaling != "buckets":
            return (name, f"{name}:null")
        case RateFeature():
            return tuple(f"{name}:{what}:{label}" for label in feature.labels for what in ("count", "mean"))
        case RecentFeature():
            return tuple(
                f"{name}:{what}:{label}:{n}" for label in feature.labels for n in feature.last for what in ("mean", "null")
            )
        case ActivityFeature():
            return (f"{name}:minutes_since", f"{name}:null", *(f"{name}:last_{hours:g}h" for hours in feature.hours))
        case _:
            return ()
