"""Building the generators' indexes from the log, a day at a time."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.columns import Batch, Strings
from data.config import Config
from data.errors import BundleError, ConfigError
from data.features.slates import CROSSING_MS
from data.objectives import positive_label
from models.indexes.arrays import grown, load_array, save_array
from models.indexes.co_watch import write_co_watch
from models.indexes.found import id_order
from models.indexes.nearest import write_nearest
from models.indexes.pairs import PairCounts, Watches
from models.indexes.popularity import DAY_MS, Decayed, popularity
from models.indexes.topic import write_topic
from models.indexes.trending import UNKNOWN_TIME, write_trending

POPULAR_HALF_LIFE_DAYS = 7.0
TRENDING_HALF_LIFE_DAYS = 1.0


def _decayed(half_life_days: float) -> Decayed:
    return Decayed(half_life_days, np.zeros(0), np.zeros(0), 0)


@dataclass
class IndexBuilder:
    """Counts from the log, per video and per pair of videos; memory grows with those, not with the rows.

    Videos have rows of the builder's own, by first appearance, until :meth:`write` is told the catalogue. What it has
    not seen by then cannot be in an index, so a bundle's indexes know nothing past its window.
    """

    config: Config
    ids: dict[str, int] = field(default_factory=dict)
    popular: Decayed = field(default_factory=lambda: _decayed(POPULAR_HALF_LIFE_DAYS))
    trending: Decayed = field(default_factory=lambda: _decayed(TRENDING_HALF_LIFE_DAYS))
    impressions: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    first_seen: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    began: int | None = None  # ms; the log's first impression
    pairs: PairCounts = field(default_factory=PairCounts)

    def __post_init__(self) -> None:
        self._label = positive_label(self.config)

    def add_day(self, batch: Batch) -> None:
        """Take in a day's impressions. Days come in order, each once; the last rows of one may be a little later than the
        first of the next, where a request crosses midnight.

        Raises:
            ValueError: the day begins before what was taken in, and by more than that.
        """
        if not len(batch):
            return
        timestamps = batch.numbers("timestamp").astype(np.int64)
        if self.began is not None and timestamps.min() < self.popular.as_of - CROSSING_MS:
            raise ValueError(f"a day begins at {timestamps.min()}, before what has been taken in up to {self.popular.as_of}")
        videos = self._rows(batch.strings("video_id"))
        queries = self._rows(batch.strings("query_video_id")) if "query_video_id" in batch else np.full(len(batch), -1)
        positive = batch.numbers(self._label) > 0
        size = len(self.ids)
        self.popular.add(videos, positive, timestamps, size)
        self.trending.add(videos, positive, timestamps, size)
        self._appear(videos, timestamps, size)
        users = _hashed(batch.strings("user_id").take(positive))
        self.pairs.add(Watches(users, videos[positive], queries[positive], timestamps[positive]), size)

    def write(self, folder: Path, video_ids: Sequence[str], videos: Batch | None, embeddings: NDArray[np.float32]) -> None:
        """Write the indexes into ``folder``.

        Args:
            video_ids: The catalogue [V]; its order is the rows that the indexes answer with.
            videos: The videos' table, for topics (``generators.topic_column``) and first appearances (``valid_from``).
            embeddings: Of the catalogue's videos [V, D].

        Raises:
            BundleError: an embedding is not finite, or their number is not the catalogue's.
        """
        if len(embeddings) != len(video_ids):
            raise BundleError(f"expected an embedding of each of the {len(video_ids)} videos, got {len(embeddings)}")
        ids = list(video_ids)
        order = id_order(ids)
        own = np.array([self.ids.get(video, len(self.ids)) for video in ids], np.int64)  # unseen: past the end
        of_catalogue = _inverse(own, len(self.ids))
        save_array(folder / "order.npy", order)
        (folder / "about.json").write_text(json.dumps({"videos": len(ids), "label": self._label}, sort_keys=True) + "\n")
        rows = _table_rows(videos, ids)
        column = self.config.generators.topic_column
        if videos is not None and column is not None:
            topics = videos[column]
            if isinstance(topics, np.ndarray):
                raise ConfigError(f"generators.topic_column: {column!r} should be category or categories, it is a number")
            write_topic(folder / "topic", topics, rows, _popularity(self.popular, own), order)
        left, right = of_catalogue[self.pairs.keys >> 32], of_catalogue[self.pairs.keys & 0xFFFFFFFF]
        both = (left >= 0) & (right >= 0)
        counts, expected = self.pairs.counts[both], self.pairs.expected()[both]
        write_co_watch(folder / "co_watch", left[both], right[both], counts, expected, order)
        write_nearest(folder / "nearest", embeddings, self.config.generators.exact_up_to)
        impressions = grown(self.impressions, len(self.ids) + 1)[own]
        since = self._since(own, videos, rows)
        write_trending(folder / "trending", _popularity(self.trending, own), impressions, since, order)

    def save(self, folder: Path) -> None:
        """Write all counts, for a checkpoint."""
        folder.mkdir(parents=True, exist_ok=True)
        state = {"label": self._label, "began": self.began, "popular": self.popular.as_of, "pairs": self.pairs.as_of}
        (folder / "builder.json").write_text(json.dumps({**state, "ids": list(self.ids)}) + "\n")
        for name, array in self._arrays().items():
            save_array(folder / f"{name}.npy", array)

    @classmethod
    def load(cls, config: Config, folder: Path) -> "IndexBuilder":
        """From what :meth:`save` wrote; going on from it gives the same bits as never having stopped.

        Raises:
            BundleError: a file is missing or damaged, or the counts are of another label than the configuration's.
        """
        path = folder / "builder.json"
        try:
            state = json.loads(path.read_text())
            ids = {str(video): row for row, video in enumerate(state["ids"])}
            began, as_of, pairs_as_of, label = state["began"], int(state["popular"]), int(state["pairs"]), state["label"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BundleError(f"cannot read {path}: {error}") from None
        builder = cls(config, ids, began=began)
        if builder._label != label:
            raise BundleError(f"{path} counts {label!r} as a watch, the configuration {builder._label!r}")
        found = {n: load_array(folder / f"{n}.npy", a.dtype.type, mapped=False) for n, a in builder._arrays().items()}
        builder.popular = Decayed(POPULAR_HALF_LIFE_DAYS, found["popular_positives"], found["popular_impressions"], as_of)
        builder.trending = Decayed(
            TRENDING_HALF_LIFE_DAYS, found["trending_positives"], found["trending_impressions"], as_of
        )
        builder.impressions, builder.first_seen = found["impressions"], found["first_seen"]
        tail = Watches(*(found[f"tail_{name}"] for name in ("users", "videos", "queries", "timestamps")))
        builder.pairs = PairCounts(found["pair_keys"], found["pair_counts"], found["degrees"], tail, pairs_as_of)
        return builder

    def _arrays(self) -> dict[str, NDArray[np.int64] | NDArray[np.float64]]:
        return {
            "popular_positives": self.popular.positives,
            "popular_impressions": self.popular.impressions,
            "trending_positives": self.trending.positives,
            "trending_impressions": self.trending.impressions,
            "impressions": self.impressions,
            "first_seen": self.first_seen,
            "pair_keys": self.pairs.keys,
            "pair_counts": self.pairs.counts,
            "degrees": self.pairs.degrees,
            **{f"tail_{name}": array for name, array in vars(self.pairs.tail).items()},
        }

    def _rows(self, column: Strings) -> NDArray[np.int64]:
        """The builder's row of each text [n], -1 where null. Only texts that occur become rows."""
        table = np.full(len(column.values) + 1, -1, np.int64)  # the last is for code -1
        for code in np.unique(column.codes[column.codes >= 0]).tolist():
            table[code] = self.ids.setdefault(column.values[code], len(self.ids))
        return table[column.codes]

    def _appear(self, videos: NDArray[np.int64], timestamps: NDArray[np.int64], size: int) -> None:
        self.impressions = grown(self.impressions, size) + np.bincount(videos, minlength=size)
        new = np.full(size - len(self.first_seen), np.iinfo(np.int64).max)
        self.first_seen = np.concatenate([self.first_seen, new])
        np.minimum.at(self.first_seen, videos, timestamps)
        self.began = int(timestamps.min()) if self.began is None else self.began

    def _since(self, own: NDArray[np.int64], videos: Batch | None, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """When each video of the catalogue appeared [V] (ms): its first ``valid_from``; without one its first
        impression, unless that is of the log's first day, before which it may have been there."""
        never = np.iinfo(np.int64).max
        seen = np.append(self.first_seen, never)[own]
        since = np.where((seen < (self.began or 0) + DAY_MS) | (seen == never), UNKNOWN_TIME, seen)
        if videos is None or "valid_from" not in videos:
            return since
        times = videos.numbers("valid_from")
        dated = (rows >= 0) & ~np.isnan(times.astype(np.float64))
        valid = np.full(len(own), never)
        np.minimum.at(valid, rows[dated], times[dated].astype(np.int64))
        return np.where(valid == never, since, valid)


def build_indexes(
    folder: Path,
    config: Config,
    days: Iterable[Batch],
    videos: Batch | None,
    video_ids: Sequence[str],
    embeddings: NDArray[np.float32],
) -> None:
    """Build all indexes from whole days at once; see :class:`IndexBuilder`."""
    builder = IndexBuilder(config)
    for day in days:
        builder.add_day(day)
    builder.write(folder, video_ids, videos, embeddings)


def _hashed(users: Strings) -> NDArray[np.int64]:
    """A number of 64 bits for each user [n], the same on every day, so that no list of all users need be kept."""
    numbers = np.zeros(len(users.values), np.int64)
    for code in np.unique(users.codes).tolist():
        digest = blake2b(users.values[code].encode("utf-8", "surrogatepass"), digest_size=8).digest()
        numbers[code] = int.from_bytes(digest, "little", signed=True)
    return numbers[users.codes]


def _popularity(counts: Decayed, own: NDArray[np.int64]) -> NDArray[np.float32]:
    """Of each video of the catalogue [V]; unseen ones have no impressions."""
    values = popularity(counts.positives, counts.impressions)
    return np.append(grown(values, own.max(initial=0)), np.float32(0))[own]


def _inverse(own: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """The catalogue's row of each of the builder's rows [size], -1 where the catalogue lacks it."""
    rows = np.full(size + 1, -1, np.int64)
    rows[own] = np.arange(len(own))
    return rows[:size]


def _table_rows(videos: Batch | None, ids: Sequence[str]) -> NDArray[np.int64]:
    """The catalogue's row of each row of the videos' table, -1 where it has none."""
    if videos is None:
        return np.zeros(0, np.int64)
    index = {video: row for row, video in enumerate(ids)}
    return videos.strings("video_id").map(lambda video: index.get(video, -1), -1).astype(np.int64)
