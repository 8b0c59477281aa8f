"""What is liked now, and a share of the newest: the one generator that has something for everybody."""

from collections.abc import Sequence
from dataclasses import dataclass

from models.indexes import TrendingIndex
from service.generators.protocol import Taste, wanted


@dataclass(frozen=True)
class Trending:
    index: TrendingIndex
    name: str = "trending"

    def candidates(self, taste: Taste, quota: int) -> Sequence[int]:
        return wanted(lambda n: self.index.query(n, taste.timestamp), taste, quota)
