"""Features of a request: the serving face of :class:`data.features.state.FeatureState`."""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.columns import Batch, Column, Strings
from data.config import ColumnConfig, RateFeature
from data.days import day_of, day_start
from data.features.asof import Ints
from data.features.candidates import CandidateView, VideoNumbers
from data.features.cross import Asked, CrossSide
from data.features.entries import Entries
from data.features.history import context_column, history_batch
from data.features.id_rows import IdRows
from data.features.layered import LayeredTable
from data.features.layout import Block
from data.features.one_request import Moment
from data.features.past import Past, join, past_batch, timings
from data.features.rates import Totals
from data.features.recent import WATCHED
from data.features.settled import Settled, SettledUsers
from data.features.single import SingleRow
from data.features.spec import Knowledge, encode_sides, longest_window
from data.features.state import FeatureState
from data.features.tables import EntityTable
from data.features.view import View
from data.objectives import positive_label
from data.vocabulary import Numbering

_UNKNOWN = "\x00"
"""Stands for every video that is not in the catalogue; no id can be this text."""


@dataclass(frozen=True)
class RequestFeatures:
    """The user's and the context's blocks of one request, and what the candidates' cross features need."""

    user: Block
    context: Block
    known_user: bool
    nulls: tuple[str, ...]
    _positive: str
    _moment: Moment
    _knowledge: Knowledge

    @property
    def watched(self) -> tuple[str, ...]:
        """Ids of the last watched videos, newest first."""
        entries = self._moment.entries
        rows = np.array(entries.last(self._positive, 0.0, self._moment.time, WATCHED), np.int64)
        videos = entries.past.view.batch.strings("video_id").take(rows)
        return tuple(text for text in videos.tolist() if text is not None)


class RequestEncoder:
    """Encodes requests against a frozen state. Immutable after construction, so any number of threads may share it.

    Args:
        settled: what is settled of the state's users, where that was encoded beforehand.

    Attributes:
        video_ids: the catalogue: every video met in the log, then those that only the videos' table knows.
        valid_from: [V] ms from which a video exists (0: always).

    Rows of the catalogue are numbered 0 to V - 1; -1 (or V) is the unknown video's. Videos that :meth:`with_videos` lays
    over the bundle's have the rows behind it.
    """

    def __init__(self, state: FeatureState, settled: SettledUsers | None = None) -> None:
        self.state = state
        self._settled = settled
        vocabulary = state.knowledge.vocabularies["video_id"]
        table = state.tables.get("videos")
        self.video_ids = [*vocabulary.texts, *(t for t in (table.ids.texts if table else ()) if vocabulary.get(t) is None)]
        self._rows = IdRows(self.video_ids)
        self._row = self._rows.of
        self._live: dict[str, int] = {}
        self._candidates = [*self.video_ids, _UNKNOWN]
        self.valid_from = self._valid_from()
        self._latest: Ints = np.zeros(0, np.int64)
        users = len(state.knowledge.vocabularies["user_id"])
        self._recent_start = np.searchsorted(state.recent_user, np.arange(users + 1))
        self._seen_start = np.searchsorted(state.seen_pairs, np.arange(users + 1, dtype=np.int64) << 32)
        self._nothing = past_batch(history_batch(state.config, "", []), state.config)
        self._longest, self._timing = longest_window(state.config), timings(state.config)
        self._positive = positive_label(state.config)
        self._categories = [name for name, column in state.config.log.context.items() if column.type == "category"]
        self._without_users = _without_users(state.knowledge)
        self._known = {name: Numbering(vocabulary) for name, vocabulary in state.knowledge.vocabularies.items()}
        self._numbers = VideoNumbers(state.config, table, self._candidates, self._known)
        self._nobody = self._past(self._nothing, {}, 0)
        self._single = SingleRow(state.knowledge, state.tables, state.recent, self._nobody, settled)
        if table is not None and "video_id" in state.recent:
            table.remember(state.recent.strings("video_id").values)
        self._cross = CrossSide(state.knowledge, self._numbers, self._nobody)

    def video_row(self, video_id: str) -> int:
        """Row of the catalogue to score with, -1 where unknown."""
        row = self._live.get(video_id)
        return self.index_row(video_id) if row is None else row

    def index_row(self, video_id: str) -> int:
        """Row of the catalogue by which the bundle knows a video, where it does; -1 where unknown."""
        row = self._row.get(video_id)
        return self._live.get(video_id, -1) if row is None else row

    def video_rows(self, video_ids: Sequence[str]) -> Ints:
        """:meth:`video_row` of each [n]."""
        known = self._rows.rows(video_ids)
        return np.fromiter(map(self._live.get, video_ids, known.tolist()), np.int64, len(known)) if self._live else known

    def index_rows(self, video_ids: Sequence[str]) -> Ints:
        """:meth:`index_row` of each [n]."""
        live = map(self._live.get, video_ids, repeat(-1)) if self._live else repeat(-1)
        return np.fromiter(map(self._row.get, video_ids, live), np.int64, len(video_ids))

    def video_id(self, row: int) -> str:
        return self._candidates[row]

    @property
    def as_of(self) -> int:
        """Up to when (ms) what is known of videos is known: the boundary, or where their counts were rolled to."""
        return max([self.state.boundary, *(totals.boundary for totals in self.state.knowledge.totals.values())])

    def catalogue(self) -> Block:
        """The video side of the whole catalogue [V] at :attr:`as_of`, and the unknown video's as its last row: [V + 1]. A
        video that starts later stands as it will at its start."""
        valid_from = np.append(self.valid_from[: len(self.video_ids)], -1)
        return self._videos(np.arange(len(self.video_ids) + 1, dtype=np.int32), valid_from)

    def with_videos(self, later: EntityTable) -> "RequestEncoder":
        """The same with the rows of ``later`` laid over the videos' table; its videos get rows of their own."""
        other = copy(self)
        other.state = copy(self.state)
        if below := self.state.tables.get("videos"):
            other.state.tables = {**self.state.tables, "videos": LayeredTable(below, later)}
        first = len(self.video_ids) + 1
        other._live = {text: first + place for place, text in enumerate(later.ids.texts)}
        other._candidates = [*self.video_ids, _UNKNOWN, *later.ids.texts]
        known = np.array([self._row.get(text, -1) for text in later.ids.texts], np.int64)
        began = np.where(known >= 0, np.append(self.valid_from, 0)[known], later.first_valid())
        other.valid_from = np.concatenate([self.valid_from[: first - 1], [0], began])
        other._latest = later.last_valid()
        other._known = {name: Numbering(numbering) for name, numbering in self._known.items()}
        other._numbers = self._numbers.with_videos(other.state.tables.get("videos"), later, known, other._known)
        other._cross = self._cross.with_videos(other._numbers)
        return other

    def live_catalogue(self) -> Block:
        """The video side of the videos laid over the bundle's [L], as they are by their last row."""
        first = len(self.video_ids) + 1
        return self._videos(np.arange(first, len(self._candidates), dtype=np.int32), self._latest)

    def _videos(self, rows: NDArray[np.int32], valid_from: Ints) -> Block:
        """The video side of rows of the catalogue [n] at :attr:`as_of`, or at their start where that is later."""
        ids = Strings(rows, self._candidates).compact()
        time = np.maximum(valid_from + 1, self.as_of)
        queries = View(Batch({"video_id": ids}), time, self.state.tables, self._numberings())
        nobody = self._past(self._nothing, self._numberings(), int(time[-1]))
        cutoff = np.full(len(time), self.state.boundary, np.int64)
        return encode_sides(self.state.knowledge, queries, cutoff, nobody, ["video"])["video"]

    def request(
        self,
        user_id: str,
        context: Mapping[str, Any],
        timestamp: int,
        history: Batch | None = None,
        history_replaces: bool = False,
        query_video_id: str | None = None,
    ) -> RequestFeatures:
        """The user's and context's features at ``timestamp``.

        Args:
            context: context columns by name; those left out are null.
            history: from :func:`data.features.history.history_batch`: what came after the stored state, or instead
                of it with ``history_replaces``.
        """
        state = self.state
        config = state.config
        numberings = self._numberings()
        number = state.knowledge.vocabularies["user_id"].get(user_id)
        cutoff = _day_start(timestamp // 900_000, config.timezone)
        settled = None if history is not None or history_replaces else self._settled_of(number, cutoff)

        def past() -> Past:
            stored = self._nothing if number is None or history_replaces else self._recent(number)
            batch = stored if history is None else join(stored, past_batch(history, config))
            return self._past(batch, numberings, cutoff)

        def queries() -> View:
            columns: dict[str, Column] = {"user_id": _one(user_id), "query_video_id": _one(query_video_id)}
            columns |= {name: _context(column, context.get(name)) for name, column in config.log.context.items()}
            return View(Batch(columns), np.array([timestamp], np.int64), state.tables, numberings)

        texts = {"user_id": [user_id]}
        for name in self._categories:
            value = context.get(name)
            texts[name] = [] if value is None else [str(value)]
        knowledge = self._without_users if history_replaces else state.knowledge
        moment = Moment(texts, numberings, queries, timestamp, cutoff, Entries(past, self._single.labels, settled))
        blocks = self._single.encode(moment, knowledge.totals)
        return RequestFeatures(
            blocks["user"],
            blocks["context"],
            number is not None and number < state.knowledge.vocabularies["user_id"].admitted,
            tuple(name for name in config.log.context if context.get(name) is None),
            self._positive,
            moment,
            knowledge,
        )

    def cross(self, features: RequestFeatures, video_rows: Ints) -> Block:
        """The cross side of candidates, given as rows of the catalogue (-1: unknown) [n]."""
        moment, know = features._moment, features._knowledge
        codes = np.where(video_rows < 0, len(self.video_ids), video_rows)

        def view() -> CandidateView:
            request = moment.queries
            return CandidateView(request, self._numbers, codes, partial(self._candidate_columns, request.batch, codes))

        boundary = 0 if know is self._without_users else self._cross.boundary
        return self._cross.encode(Asked(codes, know, moment, moment.entries.count_since(boundary), view))

    def _candidate_columns(self, request: Batch, codes: Ints) -> Batch:
        """The request's columns for each candidate, beside its id."""
        batch = request.take(np.zeros(len(codes), np.int64))
        return Batch({**batch.columns, "video_id": Strings(codes.astype(np.int32), self._candidates).compact()})

    def seen(self, user_id: str) -> set[str]:
        """Ids of the videos that the user had impressions of within the state's window."""
        number = self.state.knowledge.vocabularies["user_id"].get(user_id)
        if number is None:
            return set()
        pairs = self.state.seen_pairs[self._seen_start[number] : self._seen_start[number + 1]]
        return {self.video_ids[row] for row in (pairs & 0xFFFFFFFF).tolist()}

    def _settled_of(self, number: int | None, cutoff: int) -> Settled | None:
        """What is settled of a user, where it is so before ``cutoff`` (ms) and no video that is laid over changes it."""
        settled = None if self._settled is None else self._settled.of(number)
        if settled is None or settled.until >= cutoff:
            return None
        if self._live and number is not None:
            videos = self._recent(number).strings("video_id").tolist()
            return settled if self._live.keys().isdisjoint(videos) else None
        return settled

    def _recent(self, number: int) -> Batch:
        start, end = self._recent_start[number : number + 2].tolist()
        return self.state.recent.lazily(slice(start, end)) if start < end else self._nothing

    def _past(self, batch: Batch, numberings: dict[str, Numbering], earliest: int) -> Past:
        view = View(batch, batch.numbers("timestamp").astype(np.int64), self.state.tables, numberings)
        return Past(view, self.state.config, earliest - self._longest, self._timing)

    def _numberings(self) -> dict[str, Numbering]:
        return _Numberings(self._known)

    def _valid_from(self) -> Ints:
        table = self.state.tables.get("videos")
        if table is None or not table.dated:
            return np.zeros(len(self.video_ids), np.int64)
        first = {text: int(time) for text, time in zip(table.ids.texts, table.first_valid(), strict=True)}
        return np.array([first.get(text, 0) for text in self.video_ids], np.int64)


class _Numberings(dict[str, Numbering]):
    """Of one call; each is made when it is first asked for."""

    def __init__(self, known: Mapping[str, Numbering]) -> None:
        super().__init__()
        self._known = known

    def __missing__(self, name: str) -> Numbering:
        made = self[name] = Numbering(self._known[name])
        return made


_FIRST, _NULL = np.zeros(1, np.int32), np.full(1, -1, np.int32)


def _one(text: str | None) -> Strings:
    """A column of one row."""
    return Strings(_NULL, []) if text is None else Strings(_FIRST, [text])


def _context(column: ColumnConfig, value: Any) -> Column:
    """:func:`data.features.history.context_column` of one row."""
    if column.type != "category":
        return context_column(column, [value])
    return _one(None if value is None else str(value))


@lru_cache(4096)
def _day_start(quarter: int, timezone: str) -> int:
    """Start of the day (ms) of a quarter of an hour since the epoch."""
    return day_start(day_of(quarter * 900_000, timezone), timezone)


def _without_users(knowledge: Knowledge) -> Knowledge:
    """The same with nothing remembered of any user: a replaced history is all there is."""
    totals = dict(knowledge.totals)
    for feature in knowledge.config.features:
        if isinstance(feature, RateFeature) and "user_id" in feature.keys:
            totals[feature.name] = Totals.empty(len(feature.labels))
    return replace(knowledge, totals=totals)
