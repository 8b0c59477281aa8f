"""The candidates of a request as a view: what their cross features look up of videos is numbered once for a bundle."""

from collections.abc import Callable, Mapping, Sequence
from copy import copy

import numpy as np

from data.columns import Batch, Column, StringLists, Strings
from data.config import Config, RateFeature
from data.features.asof import Ints, running
from data.features.tables import EntityTable
from data.features.view import HALF, Numbers, View, numbers_of
from data.vocabulary import Numbering


class VideoNumbers:
    """Numbers of the texts that rates of user and video are kept by: of the video's id and columns.

    Args:
        ids: of the catalogue's rows [V].
        numberings: by vocabulary; take in the texts that the vocabularies lack.
    """

    def __init__(
        self, config: Config, table: EntityTable | None, ids: Sequence[str], numberings: Mapping[str, Numbering]
    ) -> None:
        self._names = cross_keys(config)
        self._table = table
        texts = Strings(np.arange(len(ids), dtype=np.int32), ids)
        self._video = _numbered(texts, numberings["video_id"])[1] if "video_id" in self._names else None
        self._entities = None if table is None else table.entities(texts)
        everything = np.arange(0 if table is None else table.size)
        self._columns = {
            name: _with_none(_numbered(table.column(name, everything), numberings[name]))
            for name in self._names
            if table is not None and name != "video_id"
        }

    def with_videos(
        self, table: EntityTable | None, above: EntityTable, known: Ints, numberings: Mapping[str, Numbering]
    ) -> "VideoNumbers":
        """The same with the videos of ``above`` behind, which ``table`` has over the rows of the one before.

        Args:
            known: their rows of the catalogue so far [L], -1 where they are new.
        """
        other = copy(self)
        other._table = table
        ids = Strings(np.arange(len(above.ids), dtype=np.int32), above.ids.texts)
        if self._video is not None:
            other._video = np.concatenate([self._video, _numbered(ids, numberings["video_id"])[1]])
        if self._table is not None and self._entities is not None:
            upper = np.full(len(self._entities), -1, np.int64)
            upper[known[known >= 0]] = np.flatnonzero(known >= 0)
            lower = np.concatenate([self._entities, self._table.entities(ids)])
            other._entities = np.stack([lower, np.concatenate([upper, np.arange(len(known))])], axis=1)
            rows = np.arange(above.size)
            other._columns = {
                name: _joined(numbers, _with_none(_numbered(above.column(name, rows), numberings[name])))
                for name, numbers in self._columns.items()
            }
        return other

    def has(self, name: str) -> bool:
        """Whether there are numbers of a column."""
        return name in self._columns or (name == "video_id" and self._video is not None)

    def is_list(self, name: str) -> bool:
        """Whether a video may have several of a column's numbers."""
        return name in self._columns and self._columns[name][0] is not None

    def of(self, name: str, rows: Ints, time: Ints) -> Numbers | None:
        """Of a column of the videos, at rows of the catalogue [n] as of each time [n]; None of other columns."""
        if name == "video_id" and self._video is not None:
            return None, self._video[rows]
        if name not in self._columns or self._table is None or self._entities is None:
            return None
        offsets, numbers = self._columns[name]
        places = self._table.rows_of(self._entities[rows], time)
        if offsets is None:
            return None, numbers.take(places)
        starts = offsets.take(places)
        ends = running(offsets.take(places + 1) - starts)
        return ends, numbers.take(np.repeat(starts - ends[:-1], np.diff(ends)) + np.arange(ends[-1]))


class CandidateView(View):
    """n candidates of one request, which all have its columns.

    Args:
        request: the request's own view, of one row.
        rows: of the catalogue [n].
        batch: makes the columns of all n rows, where a feature asks for texts.
    """

    def __init__(self, request: View, videos: VideoNumbers, rows: Ints, batch: Callable[[], Batch]) -> None:
        super().__init__(request.batch, np.repeat(request.time, len(rows)), request.tables, request.numberings)
        self._request, self._videos, self._rows, self._make = request, videos, rows, batch
        self._plain: View | None = None

    def column(self, name: str) -> Column:
        if self._plain is None:
            self._plain = View(self._make(), self.time, self.tables, self.numberings)
        return self._plain.column(name)

    def keys(self, names: tuple[str, ...], of: Ints | None = None) -> tuple[Ints, Ints]:
        """As of any view; where a text of the request meets the videos' it is looked up once for all."""
        of_videos = [self._videos.of(name, self._rows, self.time) for name in names]
        of_request = [self._request.numbers(name)[1] for name, found in zip(names, of_videos, strict=True) if found is None]
        if of is not None or len(names) != 2 or len(of_request) != 1 or len(of_request[0]) != 1:
            return super().keys(names, of)
        (found,), shared = [pair for pair in of_videos if pair is not None], int(of_request[0][0])
        offsets, numbers = found
        rows = np.arange(len(self)) if offsets is None else np.repeat(np.arange(len(self)), np.diff(offsets))
        known = (numbers >= 0) & (shared >= 0)
        if not known.all():
            rows, numbers = rows[known], numbers[known]
        return rows, (shared << HALF) | numbers if of_videos[0] is None else (numbers << HALF) | shared

    def numbers(self, name: str) -> Numbers:
        found = self._videos.of(name, self._rows, self.time)
        if found is not None:
            return found
        offsets, numbers = self._request.numbers(name)
        n = len(self)
        if offsets is None:
            return None, np.repeat(numbers, n)
        return np.arange(n + 1) * len(numbers), np.tile(numbers, n)


def cross_keys(config: Config) -> list[str]:
    """The columns of videos by which rates of user (or context) and video are kept."""
    rates = [f for f in config.features if isinstance(f, RateFeature) and config.feature_side(f) == "cross"]
    return sorted({key for feature in rates for key in feature.keys if config.column_side(key) == "video"})


def _joined(first: Numbers, second: Numbers) -> Numbers:
    """Of :func:`_with_none`'s both."""
    offsets, more = first[0], second[0]
    if offsets is None or more is None:
        return None, np.concatenate([first[1][:-1], second[1]])
    return np.concatenate([offsets[:-1], offsets[-2] + more[1:-1], more[-1:]]), np.concatenate([first[1], second[1]])


def _with_none(numbers: Numbers) -> Numbers:
    """With what row -1 has behind all others: a null, or none of a list."""
    offsets, of_rows = numbers
    return (None, np.append(of_rows, -1)) if offsets is None else (np.append(offsets, 0), of_rows)


def _numbered(column: Column, numbering: Numbering) -> Numbers:
    """Offsets, of a list, and numbers; of the column's rows."""
    if isinstance(column, StringLists):
        return column.offsets, numbers_of(column.flat, numbering).astype(np.int64)
    assert isinstance(column, Strings)
    return None, numbers_of(column, numbering).astype(np.int64)
