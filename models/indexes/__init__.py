"""The generators' indexes: built from the log when a bundle is made, mapped into memory by the service.

Every index answers with rows of the bundle's catalogue; equal scores are in the order of the video ids.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.errors import BundleError
from models.indexes.arrays import load_array
from models.indexes.build import IndexBuilder, build_indexes, positive_label
from models.indexes.co_watch import CoWatchIndex
from models.indexes.found import Found
from models.indexes.nearest import NearestIndex
from models.indexes.topic import TopicIndex
from models.indexes.trending import TrendingIndex

__all__ = [
    "CoWatchIndex",
    "Found",
    "IndexBuilder",
    "Indexes",
    "NearestIndex",
    "TopicIndex",
    "TrendingIndex",
    "build_indexes",
    "positive_label",
]


@dataclass(frozen=True)
class Indexes:
    """The four indexes of a bundle. Reading them is safe from several threads."""

    topic: TopicIndex | None  # None: the configuration has no topic column
    co_watch: CoWatchIndex
    nearest: NearestIndex
    trending: TrendingIndex

    @classmethod
    def load(cls, folder: Path) -> "Indexes":
        """From a bundle's ``generators`` folder.

        Raises:
            BundleError: a file is missing, damaged, or of another number of videos.
        """
        path = folder / "about.json"
        try:
            videos = int(json.loads(path.read_text())["videos"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BundleError(f"cannot read {path}: {error}") from None
        order = load_array(folder / "order.npy", np.int32)
        topic = TopicIndex.load(folder / "topic", order) if (folder / "topic").is_dir() else None
        indexes = cls(
            topic,
            CoWatchIndex.load(folder / "co_watch", order),
            NearestIndex.load(folder / "nearest", order),
            TrendingIndex.load(folder / "trending"),
        )
        counts = [
            len(order),
            len(indexes.co_watch.offsets) - 1,
            len(indexes.nearest.embeddings),
            len(indexes.trending.scores),
        ]
        if set(counts) != {videos}:
            raise BundleError(f"the indexes in {folder} are of {counts} videos, {path.name} says {videos}")
        return indexes
