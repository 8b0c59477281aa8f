"""How each kind of feature of one row is computed: as :func:`data.features.spec.encode_feature` has it, for one request.

What the bundle alone decides is looked up once. Over one user's few entries, and some tens of numbers, loops in Python take
less than the calls of numpy that they stand for, above all where scoring has been through the caches.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from data.columns import Column, StringLists, Strings
from data.config import (
    ActivityFeature,
    CategoryFeature,
    ClockFeature,
    Feature,
    HistoryFeature,
    NumberFeature,
    RateFeature,
    RecentFeature,
)
from data.features.asof import Ints
from data.features.encoded_rows import Places, positions
from data.features.fitted import signed_log
from data.features.layout import NULL, PADDING
from data.features.moments import hours_ms
from data.features.one_request import Moment
from data.features.past import MICRO
from data.features.rates import LEAST, MOST, Totals
from data.features.spec import Knowledge, encode_feature
from data.features.static import FIRST, category_rows, row_of
from data.features.view import HALF

Row = NDArray[np.int32]
Floats = NDArray[np.float32]


class ShortWays:
    """Some features of one row, all those of a kind at a time.

    Args:
        ints: where features stand in the row; ``floats`` likewise.
        columns: that entries' histories mostly come from.
    """

    def __init__(
        self, features: Sequence[Feature], know: Knowledge, ints: Places, floats: Places, columns: Mapping[str, Column]
    ) -> None:
        self._know, self._ints, self._floats = know, ints, floats
        labels = tuple(know.config.labels)
        rates = [feature for feature in features if isinstance(feature, RateFeature)]
        self._rates = Rates(rates, labels, know)
        self._rate_at = positions([f.name for f in rates], floats)
        numbers = [f for f in features if isinstance(f, NumberFeature) and self._scaled(f)]
        self._numbers = numbers
        self._number_at = positions([f.name for f in numbers], floats)
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
                self._one.append((ints[feature.name], single))
        self._recent = [Recent(f, labels, know) for f in features if isinstance(f, RecentFeature)]
        self._activities = [f for f in features if isinstance(f, ActivityFeature)]
        histories = [f for f in features if isinstance(f, HistoryFeature)]
        self._histories = [(ints[f.name], History(f, know, columns.get(f.of))) for f in histories]

    def put(self, moment: Moment, totals: Mapping[str, Totals], ints: Row, floats: Floats) -> None:
        """Write them into the row."""
        for place, row in self._one:
            ints[place] = row(moment)
        if self._numbers:
            floats[self._number_at] = self._number_values(moment)
        if self._rates.features:
            floats[self._rate_at] = self._rates.columns(moment, totals)
        for recent in self._recent:
            floats[self._floats[recent.feature.name]] = recent.columns(moment)
        for activity in self._activities:
            floats[self._floats[activity.name]] = _activity(activity, moment)
        for place, history in self._histories:
            ints[place] = history.rows(moment)
        for other in self._rest:
            cutoff, past = np.array([moment.cutoff], np.int64), moment.entries.past
            rows, values = encode_feature(self._know, other, moment.queries, cutoff, past)
            if rows is not None:
                ints[self._ints[other.name]] = rows.reshape(-1)
            if values is not None:
                floats[self._floats[other.name]] = values.reshape(-1)

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
        return lambda moment: next(map(row, moment.texts(feature.column)), NULL)


class Rates:
    """All rates of a row at once, slot by slot: a slot [s] is a feature's label, with a count and a mean."""

    def __init__(self, features: Sequence[RateFeature], labels: Sequence[str], know: Knowledge) -> None:
        self.features, self._vocabularies = features, know.vocabularies
        self._names = sorted({name for feature in features for name in feature.keys})
        self._feature = np.array([n for n, f in enumerate(features) for _ in f.labels], np.int64)
        self._label = np.array([labels.index(label) for f in features for label in f.labels], np.int64)
        slots = [(label, feature.strength) for feature in features for label in feature.labels]
        usual = [np.zeros(len(f.labels)) if "user_id" in f.keys else know.totals[f.name].per_key for f in features]
        priors = [know.priors[label] for label, _ in slots]
        self._slots = [
            (1.0 + count, prior * strength, strength)
            for count, prior, (_, strength) in zip(np.concatenate([[], *usual]).tolist(), priors, slots, strict=True)
        ]
        self._numbers = [n for n, (label, _) in enumerate(slots) if know.config.labels[label].type == "number"]
        self._against = self._scaled(priors)

    def columns(self, moment: Moment, totals: Mapping[str, Totals]) -> Floats:
        """Count and mean of each slot [2 s]: :func:`data.features.rates.rate_columns`."""
        numbers = {name: self._known(name, moment) for name in self._names}
        counts, sums = list[int](), list[int]()
        for feature in self.features:
            found = totals[feature.name].of_keys(_combined(feature, numbers))
            counts += found[0].tolist()
            sums += found[1].tolist()
        counts, sums = self._with_recent(moment, totals, counts, sums)
        ratios, means = list[float](), list[float]()
        for count, outcomes, (usual, weight, strength) in zip(counts, sums, self._slots, strict=True):
            ratios.append((1.0 + count) / usual)
            means.append((float(outcomes) / MICRO + weight) / (count + strength))
        columns = np.empty((len(counts), 2), np.float32)
        columns[:, 0] = np.log10(ratios)
        columns[:, 1] = self._scaled(means) - self._against
        return columns.reshape(-1)

    def _scaled(self, means: Sequence[float]) -> NDArray[np.float64]:
        """Each slot's mean [s] as logit, a number's as signed log."""
        scaled = np.log([_odds(mean) for mean in means])
        for n in self._numbers:
            scaled[n] = math.copysign(np.log1p(abs(means[n])), means[n])
        return scaled

    def _known(self, name: str, moment: Moment) -> list[int]:
        """The numbers of the row's texts, of those that totals can hold."""
        get = self._vocabularies[name].get
        return [number for number in map(get, moment.texts(name)) if number is not None]

    def _with_recent(
        self, moment: Moment, totals: Mapping[str, Totals], counts: list[int], sums: list[int]
    ) -> tuple[list[int], list[int]]:
        """Counts and sums with the entries that began to count since the totals' boundary."""
        entries = moment.entries
        spans: dict[tuple[int, int], list[int]] = {}
        for n, feature in enumerate(self.features):
            since, until = totals[feature.name].boundary, moment.until(feature)
            if entries.newest >= since:
                spans.setdefault((since, until), []).append(n)
        for (since, until), features in spans.items():
            used = entries.known & (entries.counts >= since) & (entries.counts < until)
            if not used.any():
                continue
            match = np.zeros((len(self.features), len(entries)), np.int64)
            for n in features:
                match[n] = _matches(self.features[n], moment)
            more = (match @ used.T.astype(np.int64), match @ np.where(used, entries.micro, 0).T)
            counts, sums = (
                (values + new[self._feature, self._label]).tolist() for values, new in zip((counts, sums), more, strict=True)
            )
        return counts, sums


def _odds(mean: float) -> float:
    share = LEAST if mean < LEAST else MOST if mean > MOST else mean
    return share / (1 - share)


def _combined(feature: RateFeature, numbers: Mapping[str, Sequence[int]]) -> list[int]:
    """The combined keys of a row whose columns have these numbers."""
    keys = [0]
    for name in feature.keys:
        keys = [(key << HALF) | number for key in keys for number in numbers[name]]
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
            of = moment.entries.past.view.column(feature.of)
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
    time, windows = moment.time, [hours_ms(hours) for hours in feature.hours]
    ago = [time - seen for seen in moment.entries.seen(time - max(windows, default=0)) if seen < time]
    minutes = min(ago) / 60_000 if ago else 0.0
    within = [sum(since <= window for since in ago) for window in windows]
    minute, *counts = np.log10([1 + minutes, *(1.0 + count for count in within)]).tolist()
    return [minute, float(not ago), *counts]


@lru_cache(4096)
def _clock(quarter: int, timezone: str) -> tuple[int, int]:
    """Local hour and weekday of a quarter of an hour since the epoch; offsets change on these at the finest."""
    moment = datetime.fromtimestamp(quarter * 900, ZoneInfo(timezone))
    return moment.hour, moment.weekday()


def _bucket(edges: Sequence[float], value: float) -> int:
    return NULL if value != value else FIRST + bisect_right(edges, value)
