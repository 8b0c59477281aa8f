"""What answers requests: one loaded, warmed bundle, and the slot that holds it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray

from data.config import Config
from data.features.layout import Block
from data.features.request import RequestEncoder
from models.scorer import Scorer
from service.generators.protocol import Source
from service.ranking import Ranking


@dataclass(frozen=True)
class Serving:
    """Immutable, so that a request which has taken it sees one version from beginning to end."""

    name: str
    version: int
    window: tuple[date, date]
    config: Config
    features: RequestEncoder
    scorer: Scorer
    catalogue: Block  # [V + 1]; the last row is the unknown video's
    sources: tuple[Source, ...]
    ranking: Ranking

    def video_rows(self, video_ids: Sequence[str]) -> NDArray[np.int64]:
        """Rows of the catalogue [n]; -1 where unknown, which is the last row as numpy counts."""
        row = self.features.video_row
        return np.fromiter((row(video_id) for video_id in video_ids), np.int64, len(video_ids))


class Slot:
    """Holds the :class:`Serving` of the moment. A swap is one assignment: requests under way keep what they took."""

    def __init__(self) -> None:
        self.current: Serving | None = None
        self.reason = "the bundle is being loaded"  # why there is none

    def swap(self, serving: Serving) -> None:
        self.current = serving

    def fail(self, reason: str) -> None:
        """Say why there is no (new) bundle. The one that serves, if any, keeps serving."""
        self.reason = reason
