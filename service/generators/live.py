"""Videos that the bundle's indexes don't hold yet, taken in among what they bring."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import numpy as np

from data.columns import StringLists, Strings
from data.features.tables import EntityTable
from models.indexes import TrendingIndex
from models.indexes.trending import FRESH_SHARE
from service.generators.protocol import Generator, Source, Taste
from service.generators.topic import Topic
from service.generators.trending import Trending
from service.serving import Serving


@dataclass(frozen=True)
class LiveTopic:
    """Topic match with new videos taken in: those that share most topics with the query video, then the newest, have
    ``FRESH_SHARE`` of the places."""

    below: Generator
    topics_of: dict[int, frozenset[str]]  # of each new video's row, the newest first
    query_topics: "QueryTopics"
    name: str = "topic"

    def candidates(self, taste: Taste, quota: int) -> Sequence[int]:
        wanted = self.query_topics(taste.query_video)
        shared = {row: len(topics & wanted) for row, topics in self.topics_of.items() if topics & wanted}
        eligible = [row for row in shared if row not in taste.unwanted and row != taste.query_video]
        fresh = sorted(eligible, key=lambda row: -shared[row])
        return interleaved(fresh, self.below.candidates(taste, quota))[:quota]


@dataclass(frozen=True)
class QueryTopics:
    """The topics that a video has by its last row."""

    serving: Serving
    column: str

    def __call__(self, row: int) -> frozenset[str]:
        if row < 0:
            return frozenset()
        features = self.serving.features
        table = features.state.tables["videos"]
        at = table.rows_at(Strings.of([features.video_id(row)]), np.array([np.iinfo(np.int64).max]))
        return _texts(table.column(self.column, at))[0]


def with_live_videos(laid: Serving, table: EntityTable, first: int) -> tuple[Source, ...]:
    """The generators of ``laid`` with the videos of ``table`` that the bundle lacks, whose rows are ``first`` and on."""
    began = table.first_valid()
    index_row = laid.features.index_row
    new = [place for place, text in enumerate(table.ids.texts) if index_row(text) >= first]
    new.sort(key=lambda place: (-began[place], table.ids.texts[place]))
    return tuple(replace(s, generator=_taking_in(s.generator, laid, table, new, first)) for s in laid.sources)


def _taking_in(generator: Generator, laid: Serving, table: EntityTable, new: Sequence[int], first: int) -> Generator:
    column = laid.config.generators.topic_column
    match generator:
        case Trending():
            rows = [first + place for place in new]
            return Trending(fresher(generator.index, rows, table.first_valid()[list(new)].tolist(), first + len(table.ids)))
        case Topic() if column is not None:
            latest = Strings.of(table.ids.texts[place] for place in new)
            at = table.rows_at(latest, np.full(len(new), np.iinfo(np.int64).max))
            topics = _texts(table.column(column, at))
            return LiveTopic(
                generator,
                {first + place: texts for place, texts in zip(new, topics, strict=True)},
                QueryTopics(laid, column),
            )
        case _:
            return generator


def fresher(index: TrendingIndex, rows: Sequence[int], since: Sequence[int], size: int) -> TrendingIndex:
    """The index with new videos among the fresh ones; its catalogue then has ``size`` rows."""
    fresh = np.concatenate([np.array(rows, np.int32), index.fresh])
    times = np.concatenate([np.array(since, np.int64), index.fresh_since])
    order = np.argsort(-times, kind="stable")
    scores = np.concatenate([index.scores, np.zeros(size - len(index.scores), np.float32)])
    return replace(index, fresh=fresh[order], fresh_since=times[order], scores=scores)


def interleaved(fresh: Iterable[int], old: Iterable[int]) -> list[int]:
    """Every beginning of the list has its share of fresh ones, as long as there are any."""
    fresh, old = list(fresh), list(old)
    every = max(1, round(1 / FRESH_SHARE) - 1)
    groups = [old[place : place + every] for place in range(0, len(old), every)]
    merged: list[int] = []
    for group, one in zip_longest(groups, fresh):
        merged += [*(group or ()), *(() if one is None else (one,))]
    return merged


def _texts(column: object) -> list[frozenset[str]]:
    """The topics of each row [n]."""
    if isinstance(column, StringLists):
        return [frozenset(texts) for texts in column.tolist()]
    assert isinstance(column, Strings)
    return [frozenset(() if text is None else (text,)) for text in column.tolist()]
