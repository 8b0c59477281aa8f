"""The user and context sides of one request: :func:`data.features.spec.encode_sides` of one row, prepared for a bundle.

Everything that depends on the bundle alone (where a feature stands, embedding rows of a table's texts, priors on their
scale) is looked up once. What is left for a request is done for all features at a time, on one user's few entries. The
results are the same to the bit, which the tests hold it to.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cached_property, lru_cache
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from data.columns import Batch, Column, StringLists, Strings
from data.config import (
    ActivityFeature,
    CategoryFeature,
    ClockFeature,
    Feature,
    HistoryFeature,
    NumberFeature,
    RateFeature,
    RecentFeature,
    Side,
)
from data.features.asof import Ints
from data.features.entries import Entries, Labels
from data.features.fitted import signed_log
from data.features.layout import NULL, PADDING, Block, SideLayout
from data.features.moments import hours_ms
from data.features.past import MICRO, Past
from data.features.rates import Finish, Totals
from data.features.spec import Knowledge, encode_feature
from data.features.static import FIRST, category_rows, row_of
from data.features.tables import EntityTable, Tables
from data.features.user_rows import UserRows
from data.features.view import View

ROW: tuple[Side, ...] = ("user", "context")
Row = NDArray[np.int32]
Floats = NDArray[np.float32]


class Moment:
    """One request: its view, its times, its user's entries, and the user's row of the users' table (-1: none)."""

    def __init__(self, queries: View, cutoff: int, past: Past, labels: Labels, users: EntityTable | None) -> None:
        self.queries, self.cutoff, self.past = queries, cutoff, past
        self.time = int(queries.time[0])
        self.entries = Entries(past, labels)
        self._users, self._texts = users, dict[str, list[str]]()

    @cached_property
    def row(self) -> int:
        return -1 if self._users is None else self._users.row_at(self.texts("user_id")[0], self.time)

    def texts(self, name: str) -> list[str]:
        """The texts of the row's column."""
        found = self._texts.get(name)
        if found is None:
            found = self._texts[name] = _texts(self.queries, name)
        return found


class SingleRow:
    """Encodes one request at a time; any number of threads may share it."""

    def __init__(self, know: Knowledge, tables: Tables, recent: Batch, nobody: Past) -> None:
        """``recent`` are the rows that users' pasts are taken from, ``nobody`` is a past without entries."""
        self._know = know
        self._users = tables.get("users")
        self._sides = {side: know.layout.sides[side] for side in ROW}
        self._ints: dict[str, slice] = {}
        self._floats: dict[str, slice] = {}
        at_int = at_float = 0
        for layout in self._sides.values():
            self._ints |= {f.feature: _behind(at_int, f.offset, f.width) for f in layout.ints}
            self._floats |= {f.feature: _behind(at_float, f.offset, f.width) for f in layout.floats}
            at_int, at_float = at_int + layout.int_width, at_float + layout.float_width
        self._widths = at_int, at_float
        self._cuts = {side: _cut(self._sides, side) for side in ROW}
        features = [f for f in know.config.features if f.name in self._ints or f.name in self._floats]
        self._user_rows: UserRows | None = None
        if self._users is not None:
            self._user_rows = UserRows(know, self._users, self._ints, self._floats, nobody)
            features = [f for f in features if f.name not in self._user_rows.features]
        self.labels = Labels(know.config)
        rates = [feature for feature in features if isinstance(feature, RateFeature)]
        self._rates = Rates(rates, self.labels.names, know)
        self._rate_at = np.concatenate([_places(self._floats[f.name]) for f in rates] or [np.zeros(0, np.int64)])
        numbers = [f for f in features if isinstance(f, NumberFeature) and self._scaled(f)]
        self._numbers = numbers
        self._number_at = np.concatenate([_places(self._floats[f.name]) for f in numbers] or [np.zeros(0, np.int64)])
        scales = [know.scales[f.name] for f in numbers]
        self._median, self._mean, self._std = (np.array([getattr(s, n) for s in scales]) for n in ("median", "mean", "std"))
        self._log = np.array([f.scaling == "log" for f in numbers], bool)
        self._one: list[tuple[slice, Callable[[Moment], int]]] = []
        self._rest: list[Feature] = []
        for feature in features:
            if isinstance(feature, RateFeature | RecentFeature | HistoryFeature | ActivityFeature) or feature in numbers:
                continue
            single = self._prepare(feature)
            if single is None:
                self._rest.append(feature)
            else:
                self._one.append((self._ints[feature.name], single))
        self._recent = [Recent(f, self.labels.names, know) for f in features if isinstance(f, RecentFeature)]
        self._activities = [f for f in features if isinstance(f, ActivityFeature)]
        columns = {**(tables["videos"].batch.columns if "videos" in tables else {}), **recent.columns}
        self._histories = [
            (self._ints[f.name], History(f, know, columns.get(f.of))) for f in features if isinstance(f, HistoryFeature)
        ]

    def encode(
        self, queries: View, cutoff: int, past: Past, totals: Mapping[str, Totals] | None = None
    ) -> tuple[dict[Side, Block], Entries]:
        """The blocks of one row, and the user's entries.

        Args:
            cutoff: the start of the request's day, ms.
            past: of this user alone.
            totals: in place of the knowledge's, where something is to be forgotten.
        """
        moment = Moment(queries, cutoff, past, self.labels, self._users)
        ints, floats = np.zeros(self._widths[0], np.int32), np.zeros(self._widths[1], np.float32)
        if self._user_rows is not None and self._user_rows.features:
            self._user_rows.put(moment.row, ints, floats)
        for place, row in self._one:
            ints[place] = row(moment)
        if self._numbers:
            floats[self._number_at] = self._number_values(moment)
        if len(self._rate_at):
            floats[self._rate_at] = self._rates.columns(moment, totals or self._know.totals)
        for recent in self._recent:
            floats[self._floats[recent.feature.name]] = recent.columns(moment)
        for activity in self._activities:
            floats[self._floats[activity.name]] = _activity(activity, moment)
        for place, history in self._histories:
            ints[place] = history.rows(moment)
        for other in self._rest:
            rows, values = encode_feature(self._know, other, queries, np.array([cutoff], np.int64), past)
            if rows is not None:
                ints[self._ints[other.name]] = rows.reshape(-1)
            if values is not None:
                floats[self._floats[other.name]] = values.reshape(-1)
        return self._blocks(ints, floats), moment.entries

    def _blocks(self, ints: Row, floats: Floats) -> dict[Side, Block]:
        return {side: Block(ints[None, at_int], floats[None, at_float]) for side, (at_int, at_float) in self._cuts.items()}

    def _scaled(self, feature: NumberFeature) -> bool:
        return feature.scaling != "buckets" and feature.name not in self._know.config.durations

    def _number_values(self, moment: Moment) -> Floats:
        """Scaled value and null indicator of each number [2 F]: :meth:`data.features.fitted.Scale.apply`."""
        values = np.array([self._number(feature.column, moment) for feature in self._numbers], np.float64)
        null = np.isnan(values)
        scaled = np.where(self._log, signed_log(values), values)
        scaled = (np.where(null, self._median, scaled) - self._mean) / self._std
        return np.stack([scaled, null.astype(np.float64)], axis=1).astype(np.float32).reshape(-1)

    def _number(self, name: str, moment: Moment) -> float:
        column = moment.queries.column(name)
        assert isinstance(column, np.ndarray)
        return float(column[0])

    def _prepare(self, feature: Feature) -> Callable[[Moment], int] | None:
        """What gives a feature's embedding row, where that is one look-up."""
        if isinstance(feature, ClockFeature):
            zone, hour = self._know.config.timezone, feature.part == "hour"
            return lambda moment: FIRST + _clock(moment.time // 900_000, zone)[0 if hour else 1]
        if isinstance(feature, NumberFeature) and feature.name not in self._know.config.durations:
            edges = self._know.scales[feature.name].edges
            return lambda moment: _bucket(edges, self._number(feature.column, moment))
        if not isinstance(feature, CategoryFeature):
            return None
        row = row_of(self._know.vocabularies[feature.table or feature.column])
        return lambda moment: _row_of_text(moment.queries.column(feature.column), row)


class Rates:
    """All rates of a row at once, slot by slot: a slot [s] is a feature's label, with a count and a mean."""

    def __init__(self, features: Sequence[RateFeature], labels: Sequence[str], know: Knowledge) -> None:
        self._features, self._vocabularies = features, know.vocabularies
        self._names = sorted({name for feature in features for name in feature.keys})
        self._feature = np.array([n for n, f in enumerate(features) for _ in f.labels], np.int64)
        self._label = np.array([labels.index(label) for f in features for label in f.labels], np.int64)
        usual = [np.zeros(len(f.labels)) if "user_id" in f.keys else know.totals[f.name].per_key for f in features]
        self._finish = Finish(
            [(label, feature.strength) for feature in features for label in feature.labels],
            np.concatenate([np.zeros(0), *usual]),
            know.priors,
            know.config.labels,
        )

    def columns(self, moment: Moment, totals: Mapping[str, Totals]) -> Floats:
        """Count and mean of each slot [2 s]: :func:`data.features.rates.rate_columns`."""
        numbers = {name: self._known(name, moment) for name in self._names}
        found = [totals[feature.name].of_keys(_combined(feature, numbers)) for feature in self._features]
        counts, sums = (np.concatenate([pair[part] for pair in found]) for part in (0, 1))
        if len(moment.entries):
            self._add_recent(moment, totals, counts, sums)
        return self._finish(counts[None], sums[None]).reshape(-1)

    def _known(self, name: str, moment: Moment) -> list[int]:
        """The numbers of the row's texts, of those that totals can hold."""
        get = self._vocabularies[name].get
        return [number for number in map(get, moment.texts(name)) if number is not None]

    def _add_recent(self, moment: Moment, totals: Mapping[str, Totals], counts: Ints, sums: Ints) -> None:
        """Add, in place, the entries that began to count since the totals' boundary."""
        entries = moment.entries
        spans: dict[tuple[int, int], list[int]] = {}
        for n, feature in enumerate(self._features):
            until = moment.time if feature.until == "moment" else moment.cutoff
            spans.setdefault((totals[feature.name].boundary, until), []).append(n)
        for (since, until), features in spans.items():
            if entries.newest < since:
                continue
            used = entries.known & (entries.counts >= since) & (entries.counts < until)
            if not used.any():
                continue
            match = np.zeros((len(self._features), len(entries)), np.int64)
            for n in features:
                match[n] = _matches(self._features[n], moment)
            counts += (match @ used.T.astype(np.int64))[self._feature, self._label]
            sums += (match @ np.where(used, entries.micro, 0).T)[self._feature, self._label]


def _combined(feature: RateFeature, numbers: Mapping[str, Sequence[int]]) -> list[int]:
    """The combined keys of a row whose columns have these numbers."""
    keys = [0]
    for name in feature.keys:
        keys = [(key << 31) | number for key in keys for number in numbers[name]]
    return keys


def _matches(feature: RateFeature, moment: Moment) -> Ints:
    """How many of the row's keys each entry shares [m]."""
    match = np.ones(len(moment.entries), np.int64)
    for name in feature.keys:
        if name != "user_id":
            match *= moment.entries.equal(name, moment.texts(name))
    return match


class Recent:
    """Means of the last outcomes of one feature: :func:`data.features.moments.recent_columns` of one user."""

    def __init__(self, feature: RecentFeature, labels: Sequence[str], know: Knowledge) -> None:
        self.feature = feature
        self._labels = [labels.index(label) for label in feature.labels]
        slots = [label for label in feature.labels for _ in feature.last]
        self._binary = np.array([know.config.labels[label].type == "binary" for label in slots], bool)
        prior = np.array([know.priors[label] for label in slots])
        self._against = np.where(self._binary, prior, signed_log(prior))

    def columns(self, moment: Moment) -> Floats:
        """Mean and whether there is none, by label and N [L, N, 2], flat."""
        last, means = self.feature.last, list[float]()
        for label in self._labels:
            newest = moment.entries.counted(label, moment.time, max(last))
            means += [_mean(newest[:n]) for n in last]
        mean = np.array(means)
        none = np.isnan(mean)
        both = np.empty((len(means), 2), np.float32)
        both[:, 0] = np.where(none, 0.0, np.where(self._binary, mean, signed_log(mean)) - self._against)
        both[:, 1] = none
        return both.reshape(-1)


def _mean(outcomes: Sequence[int]) -> float:
    """Of outcomes in millionths; NaN of none."""
    return float(sum(outcomes)) / (len(outcomes) * MICRO) if outcomes else math.nan


class History:
    """The rows of one feature: :func:`data.features.moments.history_rows`, with those of what was chosen only.

    Args:
        column: that entries mostly come from; its texts are looked up once.
    """

    def __init__(self, feature: HistoryFeature, know: Knowledge, column: Column | None) -> None:
        self._feature, vocabulary = feature, know.vocabularies[feature.table or feature.of]
        self._row, usual = row_of(vocabulary), column.flat if isinstance(column, StringLists) else column
        self._texts = usual.values if isinstance(usual, Strings) else ()
        codes = np.append(np.arange(len(self._texts), dtype=np.int32), np.int32(-1))
        self._rows = category_rows(Strings(codes, self._texts), vocabulary)

    def rows(self, moment: Moment) -> Row:
        """The last ones' embedding rows, newest first, PADDING behind."""
        feature = self._feature
        found = np.full(feature.length, PADDING, np.int32)
        places = moment.entries.last(feature.label, feature.above, moment.time, feature.length)
        if len(places):
            of = moment.past.view.column(feature.of)
            single = of.first() if isinstance(of, StringLists) else of
            assert isinstance(single, Strings)
            codes, texts = single.codes[places], single.values
            if texts is self._texts:
                found[: len(places)] = self._rows[codes]
            else:
                found[: len(places)] = [NULL if code < 0 else self._row(texts[code]) for code in codes.tolist()]
        return found


def _activity(feature: ActivityFeature, moment: Moment) -> list[float]:
    """:func:`data.features.moments.activity_columns` of one user."""
    time = moment.time
    ago = [time - seen for seen in moment.entries.seen.tolist() if seen < time]
    minutes = min(ago) / 60_000 if ago else 0.0
    within = [sum(since <= hours_ms(hours) for since in ago) for hours in feature.hours]
    minute, *counts = np.log10([1 + minutes, *(1.0 + count for count in within)]).tolist()
    return [minute, float(not ago), *counts]


@lru_cache(4096)
def _clock(quarter: int, timezone: str) -> tuple[int, int]:
    """Local hour and weekday of a quarter of an hour since the epoch; offsets change on these at the finest."""
    moment = datetime.fromtimestamp(quarter * 900, ZoneInfo(timezone))
    return moment.hour, moment.weekday()


def _bucket(edges: Sequence[float], value: float) -> int:
    return NULL if value != value else FIRST + bisect_right(edges, value)


def _row_of_text(column: object, row: Callable[[str], int]) -> int:
    assert isinstance(column, Strings)
    code = int(column.codes[0])
    return NULL if code < 0 else row(column.values[code])


def _texts(queries: View, name: str) -> list[str]:
    """The texts of the row's column."""
    column = queries.column(name)
    if isinstance(column, StringLists):
        return column.tolist()[0]
    assert isinstance(column, Strings)
    code = int(column.codes[0])
    return [] if code < 0 else [column.values[code]]


def _cut(sides: Mapping[Side, SideLayout], until: Side) -> tuple[slice, slice]:
    """Where a side's ints and floats lie among those of all sides."""
    before = list(sides)[: list(sides).index(until)]
    ints, floats = sum(sides[side].int_width for side in before), sum(sides[side].float_width for side in before)
    return _behind(ints, 0, sides[until].int_width), _behind(floats, 0, sides[until].float_width)


def _behind(start: int, offset: int, width: int) -> slice:
    return slice(start + offset, start + offset + width)


def _places(place: slice) -> Ints:
    return np.arange(place.start, place.stop)
