"""Videos whose embeddings point where those of the user's recent watches point."""

from collections.abc import Sequence
from dataclasses import dataclass

from models.indexes import NearestIndex
from service.generators.protocol import Taste, wanted


@dataclass(frozen=True)
class Nearest:
    index: NearestIndex
    name: str = "nearest"

    def candidates(self, taste: Taste, quota: int) -> Sequence[int]:
        return wanted(lambda n: self.index.query(taste.recent, None, n), taste, quota)
