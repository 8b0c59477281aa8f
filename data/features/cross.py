"""The cross side of a request's candidates: :func:`data.features.spec.encode_sides` of them all, prepared for a bundle.

Most cross features are rates by one column of the request and one of the videos. All candidates share the former's number:
what is known of them is one stretch of the totals, or one row of a table that is made when the bundle is loaded, where the
general code searches all totals for each. The results are the same to the bit, which the tests hold it to.
"""

import math
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.config import RateFeature
from data.features.asof import Ints
from data.features.candidates import CandidateView, VideoNumbers
from data.features.layout import Block
from data.features.merging import summed
from data.features.one_request import Moment
from data.features.past import Past
from data.features.rates import Entries as Kept
from data.features.rates import Finish, together
from data.features.sorting import first_of_each
from data.features.spec import Knowledge, encode_feature
from data.features.view import HALF, Numbers

TABLE_BYTES = 1 << 23
"""What the table of a feature may take, in each process."""
LOWER = (1 << HALF) - 1

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Asked:
    """A request and its n candidates.

    Attributes:
        rows: of the catalogue [n].
        know: what features are computed from: without what is known of users, where a history stands in its place.
        later: whether any of the user's entries began to count after what is in the totals.
        view: makes the view of all n, for features that are not prepared.
    """

    rows: Ints
    know: Knowledge
    moment: Moment
    later: bool
    view: Callable[[], CandidateView]


class CrossSide:
    """Encodes the candidates of one request at a time; any number of threads may share it."""

    def __init__(self, know: Knowledge, videos: VideoNumbers, nobody: Past) -> None:
        """``nobody`` is a past without entries."""
        layout = know.layout.sides["cross"]
        self._widths, self._nobody = (layout.int_width, layout.float_width), nobody
        self._ints = {f.feature: slice(f.offset, f.offset + f.width) for f in layout.ints}
        self._floats = {f.feature: slice(f.offset, f.offset + f.width) for f in layout.floats}
        self._features = [f for f in know.config.features if f.name in self._ints or f.name in self._floats]
        rates = [f for f in self._features if isinstance(f, RateFeature)]
        self._prepared = {f.name: rate for f in rates if (rate := prepare(f, know, videos)) is not None}
        self.boundary = min((know.totals[f.name].boundary for f in rates), default=np.iinfo(np.int64).max)
        """Of totals (ms): what began to count before it is in all of them."""

    def with_videos(self, videos: VideoNumbers) -> "CrossSide":
        """The same with other rows of the catalogue."""
        other = copy(self)
        other._prepared = {name: rate.with_videos(videos) for name, rate in self._prepared.items()}
        return other

    def encode(self, asked: Asked) -> Block:
        """The block of all n candidates."""
        n = len(asked.rows)
        block = Block(np.zeros((n, self._widths[0]), np.int32), np.empty((n, self._widths[1]), np.float32))
        for feature in self._features if n else ():
            rate, rows = self._prepared.get(feature.name), None
            numbers = None if rate is None else rate.columns(asked)
            if numbers is None:
                past = asked.moment.entries.past if asked.later else self._nobody
                cutoff = np.full(n, asked.moment.cutoff, np.int64)
                rows, numbers = encode_feature(asked.know, feature, asked.view(), cutoff, past)
            if rows is not None:
                block.ints[:, self._ints[feature.name]] = rows.reshape(n, -1)
            if numbers is not None:
                block.floats[:, self._floats[feature.name]] = numbers
        return block


def prepare(feature: RateFeature, know: Knowledge, videos: VideoNumbers) -> "CrossRate | None":
    """None of a feature that is left to the general code."""
    video, request = sorted(feature.keys, key=videos.has, reverse=True)[:2] if len(feature.keys) == 2 else ("", "")
    if not videos.has(video) or videos.has(request) or know.config.column_type(request) != "category":
        return None
    numbers = math.prod(TableRate.shape(feature, request, video, know))
    if request != "user_id" and not videos.is_list(video) and 4 * numbers <= TABLE_BYTES:
        return TableRate(feature, request, video, know, videos)
    return StretchRate(feature, request, video, know, videos) if feature.keys[0] == request else None


class CrossRate:
    """A rate by a column of the request and one of the videos."""

    def __init__(self, feature: RateFeature, request: str, video: str, know: Knowledge, videos: VideoNumbers) -> None:
        self.feature, self._request, self._video, self._videos = feature, request, video, videos
        self._labels = [list(know.config.labels).index(label) for label in feature.labels]
        self._finish = Finish.of(feature, know.totals[feature.name], know.priors, know.config.labels)
        nothing = np.zeros((1, len(feature.labels)), np.int64)
        self._none = self._finish(nothing, nothing)

    def with_videos(self, videos: VideoNumbers) -> "CrossRate":
        """The same with other rows of the catalogue."""
        other = copy(self)
        other._videos = videos
        return other

    def columns(self, asked: Asked) -> Floats:
        """What :func:`data.features.rates.rate_columns` gives [n, 2 labels]."""
        moment = asked.moment
        texts = moment.texts(self._request)
        shared = moment.numberings[self._request](texts[0]) if texts else -1
        found = self._videos.of(self._video, asked.rows, np.full(len(asked.rows), moment.time))
        assert found is not None
        return self._columns(asked, shared, found, self._later(asked, shared) if asked.later and shared >= 0 else None)

    def _columns(self, asked: Asked, shared: int, found: Numbers, later: Kept | None) -> Floats:
        raise NotImplementedError

    def _later(self, asked: Asked, shared: int) -> Kept | None:
        """What of the user's entries is not in the totals, by the number of the video's column; None where nothing is."""
        entries, until = asked.moment.entries, asked.moment.until(self.feature)
        since = asked.know.totals[self.feature.name].boundary
        counts = entries.counts[self._labels]
        used = entries.known[self._labels] & (counts >= since) & (counts < until)
        chosen = np.flatnonzero(used.any(axis=0))
        if self._request != "user_id" and len(chosen):
            chosen = chosen[entries.past.view.number(self._request)[chosen] == shared]
        if not len(chosen):
            return None
        rows, numbers = entries.past.view.keys((self._video,), chosen)
        used = used[:, rows].T
        return Kept(*summed(numbers, [used.astype(np.int64), np.where(used, entries.micro[self._labels][:, rows].T, 0)]))


class StretchRate(CrossRate):
    """The request's column is the first of the keys: what totals keep by its number are neighbours."""

    def _columns(self, asked: Asked, shared: int, found: Numbers, later: Kept | None) -> Floats:
        offsets, numbers = found
        kept, columns = self._kept(asked, shared), self._none.repeat(len(asked.rows), axis=0)
        if later is not None:
            kept = together([kept, later])
        rows, place = _hits(kept, numbers)
        if not len(rows):
            return columns
        counts, sums = kept.counts.take(place, axis=0), kept.sums.take(place, axis=0)
        if offsets is not None:
            rows = offsets.searchsorted(rows, "right") - 1
            starts = np.flatnonzero(first_of_each(rows))
            rows, counts, sums = rows[starts], np.add.reduceat(counts, starts), np.add.reduceat(sums, starts)
        columns[rows] = self._finish(counts, sums)
        return columns

    def _kept(self, asked: Asked, shared: int) -> Kept:
        totals = asked.know.totals[self.feature.name]
        first, behind = totals.keys.searchsorted([max(shared, 0) << HALF, (shared + 1) << HALF]).tolist()
        stretch = slice(first, behind)
        return Kept(totals.keys[stretch] & LOWER, totals.counts[stretch], totals.sums[stretch])


class TableRate(CrossRate):
    """There are few of both: rates of them all are made beforehand, [r + 1, v + 1, 2 labels]; the last of either stand for
    what the totals don't know."""

    def __init__(self, feature: RateFeature, request: str, video: str, know: Knowledge, videos: VideoNumbers) -> None:
        super().__init__(feature, request, video, know, videos)
        self._ahead, totals = feature.keys[0] == request, know.totals[feature.name]
        halves = totals.keys >> HALF, totals.keys & LOWER
        self._table = np.empty(self.shape(feature, request, video, know), np.float32)
        self._table[:] = self._none
        self._table[halves if self._ahead else halves[::-1]] = self._finish(totals.counts, totals.sums)
        self._last = len(self._table) - 1, np.uint64(self._table.shape[1] - 1)

    @staticmethod
    def shape(feature: RateFeature, request: str, video: str, know: Knowledge) -> tuple[int, int, int]:
        """Of the table."""
        return len(know.vocabularies[request]) + 1, len(know.vocabularies[video]) + 1, 2 * len(feature.labels)

    def _columns(self, asked: Asked, shared: int, found: Numbers, later: Kept | None) -> Floats:
        _, numbers = found
        known = np.minimum(numbers.view(np.uint64), self._last[1]).view(np.int64)  # -1 is the largest of these
        columns: Floats = self._table[min(shared, self._last[0])].take(known, axis=0)
        if later is None:
            return columns
        rows, place = _hits(later, numbers)
        hit = numbers[rows]
        keys = (shared << HALF) | hit if self._ahead else (hit << HALF) | shared
        counts, sums = asked.know.totals[self.feature.name].look_up(keys)
        columns[rows] = self._finish(counts + later.counts[place], sums + later.sums[place])
        return columns


def _hits(kept: Kept, numbers: Ints) -> tuple[Ints, Ints]:
    """Which of the numbers are kept, and where."""
    place = kept.keys.searchsorted(numbers)
    hits = np.flatnonzero(kept.keys.take(place, mode="clip") == numbers) if len(kept.keys) else place[:0]
    return hits, place[hits]
