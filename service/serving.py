"""What answers requests: one loaded, warmed bundle, and the slot that holds it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from data.config import Config
from data.features.layout import Block
from data.features.request import RequestEncoder
from models.leases import Lease
from models.ranking import Ranking
from models.scorer import Scorer, as_it_comes
from service.generators.protocol import Source

if TYPE_CHECKING:
    from service.canary import Canary
    from service.shadow import Shadow


Precision = Literal["float32", "bfloat16"]


class Catalogue(Protocol):
    """The features of the videos: the bundle's :class:`Block`, or one with newer rows laid over it."""

    def take(self, rows: NDArray[np.int64]) -> Block:
        """Of these rows [n]; -1 is the unknown video's."""
        ...


@dataclass(frozen=True)
class Serving:
    """Immutable, so that a request which has taken it sees one version from beginning to end."""

    name: str
    version: int
    window: tuple[date, date]
    config: Config
    features: RequestEncoder
    scorer: Scorer
    catalogue: Catalogue
    sources: tuple[Source, ...]
    ranking: Ranking
    taken_down: frozenset[str] = frozenset()
    taken_down_rows: frozenset[int] = frozenset()
    encode: Callable[[Block], Block] = as_it_comes  # from videos' features to what the catalogue has of them
    precision: Precision = "float32"  # of the scorer's products
    lease: Lease | None = None  # keeps its folder from being collected, until nothing refers to it any more

    @property
    def salt(self) -> str:
        """What makes this product's lots different from another's."""
        return f"{self.name}:{self.config.seed}"

    def video_rows(self, video_ids: Sequence[str]) -> NDArray[np.int64]:
        """Rows of the catalogue [n] to score with; -1 where unknown."""
        return self.features.video_rows(video_ids)

    def index_rows(self, video_ids: Sequence[str]) -> NDArray[np.int64]:
        """Rows of the catalogue [n] that the generators know the videos by; -1 where unknown."""
        return self.features.index_rows(video_ids)

    def sources_with(self, quotas: Mapping[str, int] | None) -> tuple[Source, ...]:
        """The generators, with other quotas where an arm of an experiment gives them."""
        if not quotas:
            return self.sources
        return tuple(replace(s, quota=quotas.get(s.generator.name, s.quota)) for s in self.sources)


class Slot:
    """Holds the :class:`Serving` of the moment. A swap is one assignment: requests under way keep what they took."""

    def __init__(self) -> None:
        self.current: Serving | None = None
        self.reason = "the bundle is being loaded"  # why there is none
        self.refused: str | None = None  # why the champion is not what serves
        self.others: Mapping[int, Serving] = {}  # by version, those that arms of experiments are served by
        self.canary: Canary | None = None
        self.shadow: Shadow | None = None

    def choose(self, user_id: str) -> Serving | None:
        """What answers this user."""
        canary = self.canary
        return canary.serving if canary is not None and canary.takes(user_id) else self.current

    def swap(self, serving: Serving) -> None:
        self.current = serving

    def fail(self, reason: str) -> None:
        """Say why there is no (new) bundle. The one that serves, if any, keeps serving."""
        self.reason = reason
