"""Videos that the same users watched soon before or after the query video."""

from collections.abc import Sequence
from dataclasses import dataclass

from models.indexes import CoWatchIndex
from service.generators.protocol import Taste, wanted


@dataclass(frozen=True)
class CoWatch:
    index: CoWatchIndex
    name: str = "co_watch"

    def candidates(self, taste: Taste, quota: int) -> Sequence[int]:
        return wanted(lambda n: self.index.query(taste.query_video, n), taste, quota)
