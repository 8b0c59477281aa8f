"""Videos of the query video's topics, the most popular first."""

from collections.abc import Sequence
from dataclasses import dataclass

from models.indexes import TopicIndex
from service.generators.protocol import Taste, wanted


@dataclass(frozen=True)
class Topic:
    index: TopicIndex
    name: str = "topic"

    def candidates(self, taste: Taste, quota: int) -> Sequence[int]:
        return wanted(lambda n: self.index.query(taste.query_video, n), taste, quota)
