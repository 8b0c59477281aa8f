"""Topic match: videos that share a topic with the query video, the most popular first."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.columns import StringLists, Strings
from models.indexes.arrays import load_array, save_array
from models.indexes.found import NOTHING, Found, best

LISTED = 500
"""Videos kept per topic."""


@dataclass(frozen=True)
class TopicIndex:
    """Topics of each video, and of each topic its most popular videos.

    A candidate's score is its popularity plus log(sum of log(1 + V / V_t) over the topics t that it shares with the
    query video), V_t of the V videos having topic t: with one topic a video that is the order of popularity; with
    several, sharing more of them, or rarer ones, counts for more.
    """

    topic_offsets: NDArray[np.int64]  # [V + 1] into topics: those of each video
    topics: NDArray[np.int32]
    video_offsets: NDArray[np.int64]  # [T + 1] into videos and scores: those of each topic
    videos: NDArray[np.int32]
    scores: NDArray[np.float32]  # popularity
    weights: NDArray[np.float32]  # [T] log(1 + V / V_t)
    order: NDArray[np.int32]

    def query(self, row: int, n: int) -> Found:
        """Up to ``n`` candidates for the video in ``row``; none for an unknown one (-1)."""
        if not 0 <= row < len(self.order):
            return NOTHING
        topics = self.topics[self.topic_offsets[row] : self.topic_offsets[row + 1]].tolist()
        spans = [slice(self.video_offsets[t], self.video_offsets[t + 1]) for t in topics]
        if not spans:
            return NOTHING
        if len(spans) == 1:  # the list is in order already
            rows, scores = self.videos[spans[0]][: n + 1], self.scores[spans[0]][: n + 1]
            scores = scores + np.log(self.weights[topics[0]])
        else:
            rows, first, inverse = np.unique(
                np.concatenate([self.videos[span] for span in spans]), return_index=True, return_inverse=True
            )
            shared = np.repeat(self.weights[topics], [span.stop - span.start for span in spans])
            scores = np.concatenate([self.scores[span] for span in spans])[first] + np.log(np.bincount(inverse, shared))
        others = rows != row
        return best(rows[others], scores[others], n, self.order)

    @classmethod
    def load(cls, folder: Path, order: NDArray[np.int32]) -> "TopicIndex":
        """From the files that :func:`write_topic` wrote."""
        return cls(
            load_array(folder / "topic_offsets.npy", np.int64),
            load_array(folder / "topics.npy", np.int32),
            load_array(folder / "video_offsets.npy", np.int64),
            load_array(folder / "videos.npy", np.int32),
            load_array(folder / "scores.npy", np.float32),
            load_array(folder / "weights.npy", np.float32),
            order,
        )


def write_topic(
    folder: Path,
    topics: Strings | StringLists,
    rows: NDArray[np.int64],
    popularity: NDArray[np.float32],
    order: NDArray[np.int32],
) -> None:
    """Write the index.

    Args:
        topics: Of the videos' table, one row [m] or more a video; a video's last row holds.
        rows: The table's rows as rows of the catalogue [m], -1 where the catalogue lacks the video.
        popularity: Of each video of the catalogue [V].
    """
    count = len(order)
    video, topic = _pairs(topics, rows, count)
    used, inverse = np.unique(topic, return_inverse=True)
    topic = inverse.astype(np.int32)
    sizes = np.bincount(topic, minlength=len(used))
    sequence = np.lexsort((order[video], -popularity[video], topic))
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    place = np.arange(len(sequence)) - np.repeat(starts[:-1], sizes)
    listed = video[sequence][place < LISTED]
    by_video = np.lexsort((topic, video))
    save_array(folder / "topic_offsets.npy", _offsets(np.bincount(video, minlength=count)))
    save_array(folder / "topics.npy", topic[by_video].astype(np.int32))
    save_array(folder / "video_offsets.npy", _offsets(np.minimum(sizes, LISTED)))
    save_array(folder / "videos.npy", listed.astype(np.int32))
    save_array(folder / "scores.npy", popularity[listed].astype(np.float32))
    save_array(folder / "weights.npy", np.log1p(count / np.maximum(sizes, 1)).astype(np.float32))


def _pairs(
    topics: Strings | StringLists, rows: NDArray[np.int64], count: int
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Every (row of the catalogue, topic's code) once, from each video's last row of the table."""
    last = np.full(count, -1, np.int64)
    known = np.flatnonzero(rows >= 0)
    np.maximum.at(last, rows[known], known)
    lines = last[last >= 0]
    videos = rows[lines]
    if isinstance(topics, Strings):
        codes = topics.codes[lines]
    else:
        taken = topics.take(lines)
        videos, codes = np.repeat(videos, np.diff(taken.offsets)), taken.flat.codes
    pairs = np.unique(np.stack([videos[codes >= 0], codes[codes >= 0].astype(np.int64)]), axis=1)
    return pairs[0], pairs[1].astype(np.int32)


def _offsets(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
