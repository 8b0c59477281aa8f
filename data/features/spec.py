"""Compute every feature of a set of rows, side by side: the one implementation for training and serving."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.columns import StringLists, Strings
from data.config import (
    ActivityFeature,
    CategoriesFeature,
    CategoryFeature,
    ClockFeature,
    Config,
    CrossedFeature,
    Feature,
    HistoryFeature,
    NumberFeature,
    RateFeature,
    RecentFeature,
    Side,
    embedding_table,
)
from data.features.asof import Ints
from data.features.fitted import Scales
from data.features.layout import Block, Layout
from data.features.moments import activity_columns, history_rows, hours_ms, recent_columns
from data.features.past import Past, Priors
from data.features.rates import Totals, rate_columns
from data.features.static import (
    FIRST,
    FIXED_SIZES,
    bucket_rows,
    categories_rows,
    category_rows,
    clock_rows,
    crossed_column,
    number_values,
)
from data.features.view import View
from data.vocabulary import Vocabulary

Values = tuple[NDArray[np.int32] | None, NDArray[np.float32] | None]


@dataclass(frozen=True)
class Knowledge:
    """What is known at ``boundary`` (ms), apart from the recent past: fitted scales, vocabularies, totals."""

    config: Config
    layout: Layout
    vocabularies: Mapping[str, Vocabulary]
    scales: Scales
    priors: Priors
    totals: Mapping[str, Totals]
    boundary: int


def encode_sides(know: Knowledge, queries: View, cutoff: Ints, past: Past, sides: Iterable[Side]) -> dict[Side, Block]:
    """Blocks of the given sides for the queries' rows.

    Args:
        cutoff: [n] ms; features ``until = "day"`` take in what counts before it, all others before ``queries.time``.
    """
    n, sides = len(queries), tuple(sides)
    blocks = {
        side: Block(
            np.zeros((n, know.layout.sides[side].int_width), np.int32),
            np.zeros((n, know.layout.sides[side].float_width), np.float32),
        )
        for side in sides
    }
    features = {feature.name: feature for feature in know.config.features}
    ints = {(side, field.feature): field for side in sides for field in know.layout.sides[side].ints}
    floats = {(side, field.feature): field for side in sides for field in know.layout.sides[side].floats}
    for side, name in {**ints, **floats} if n else ():
        rows, numbers = encode_feature(know, features[name], queries, cutoff, past)
        if rows is not None:
            of = ints[side, name]
            blocks[side].ints[:, of.offset : of.offset + of.width] = rows.reshape(n, -1)
        if numbers is not None:
            place = floats[side, name]
            blocks[side].floats[:, place.offset : place.offset + place.width] = numbers
    return blocks


def encode_feature(know: Knowledge, feature: Feature, queries: View, cutoff: Ints, past: Past) -> Values:
    """One feature's embedding rows and numbers [n, width], each where it has any."""
    labels = know.config.labels
    match feature:
        case CategoryFeature():
            column = queries.column(feature.column)
            assert isinstance(column, Strings)
            return category_rows(column, know.vocabularies[feature.table or feature.column]), None
        case CategoriesFeature():
            lists = queries.column(feature.column)
            assert isinstance(lists, StringLists)
            return categories_rows(feature, lists, know.vocabularies[feature.table or feature.column]), None
        case CrossedFeature():
            return category_rows(crossed_column(feature, queries), know.vocabularies[feature.name]), None
        case ClockFeature():
            return clock_rows(feature, queries.time, know.config.timezone), None
        case NumberFeature():
            values = number_values(feature, queries, know.config.durations)
            scale = know.scales[feature.name]
            if feature.scaling == "buckets":
                return bucket_rows(scale, values), None
            return None, scale.apply(feature, values)
        case RateFeature():
            until = queries.time if feature.until == "moment" else cutoff
            totals = know.totals[feature.name]
            return None, rate_columns(feature, totals, past, queries, until, know.priors, labels)
        case RecentFeature():
            return None, recent_columns(feature, past, queries, know.priors, labels)
        case ActivityFeature():
            return None, activity_columns(feature, past, queries)
        case HistoryFeature():
            return history_rows(feature, past, queries, lambda: _history_values(know, feature, past)), None


def _history_values(know: Knowledge, feature: HistoryFeature, past: Past) -> NDArray[np.int32]:
    """The embedding rows of what the past entries would be in a history [m]."""
    of = past.view.column(feature.of)
    single = of.first() if isinstance(of, StringLists) else of
    assert isinstance(single, Strings)
    return category_rows(single, know.vocabularies[feature.table or feature.of])


def vocabulary_sources(config: Config) -> dict[str, list[str]]:
    """For every vocabulary the columns whose texts it numbers (a crossed feature's: none, it is its own)."""
    sources: dict[str, list[str]] = {"user_id": ["user_id"], "video_id": ["video_id"]}
    for feature in config.features:
        pairs: list[tuple[str, str | None]] = []
        match feature:
            case CategoryFeature() | CategoriesFeature():
                pairs = [(feature.table or feature.column, feature.column)]
            case HistoryFeature():
                pairs = [(feature.table or feature.of, feature.of)]
            case RateFeature():
                pairs = [(key, key) for key in feature.keys]
            case CrossedFeature():
                pairs = [(feature.name, None)]
            case _:
                pass
        for name, column in pairs:
            columns = sources.setdefault(name, [])
            if column is not None and column not in columns:
                columns.append(column)
    return sources


def table_sizes(know: Knowledge) -> dict[str, int]:
    """Rows of every embedding table that may be looked up now."""
    sizes: dict[str, int] = {}
    for feature in know.config.features:
        table = embedding_table(feature)
        match feature:
            case ClockFeature():
                sizes[feature.name] = FIXED_SIZES[feature.part]
            case NumberFeature() if table is not None:
                sizes[table] = FIRST + len(know.scales[feature.name].edges) + 1
            case _ if table is not None:
                sizes[table] = FIRST + know.vocabularies[table].admitted
    return sizes


def longest_window(config: Config) -> int:
    """The longest activity window, ms."""
    hours = [hours for feature in config.features if isinstance(feature, ActivityFeature) for hours in feature.hours]
    return hours_ms(max(hours, default=0.0))
