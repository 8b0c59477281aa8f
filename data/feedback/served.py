"""A slate as it was served."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ServedItem:
    """One place of a slate. ``score`` and predictions that are not finite are kept as null."""

    video_id: str
    position: int  # from 0
    score: float | None = None
    predictions: Mapping[str, float | None] = field(default_factory=dict)  # by objective
    generators: Sequence[str] = ()
    propensity: float | None = None
    is_exploration: bool | None = None


class ServedColumns(Sequence[ServedItem]):
    """A slate's items as ranking has them, column by column; an item is made where one is asked for.

    Args:
        score: [n], not finite where it is null.
        objectives: names of the columns of ``predictions`` [n, K].
    """

    def __init__(
        self,
        video_id: Sequence[str],
        score: NDArray[np.float64],
        objectives: Sequence[str],
        predictions: NDArray[np.float32],
        generators: Sequence[Sequence[str]],
        propensity: NDArray[np.float64],
        is_exploration: NDArray[np.bool_],
    ) -> None:
        self.video_id, self.generators = video_id, generators
        self.objectives, self._score, self._predictions = objectives, score, predictions
        self._propensity, self._is_exploration = propensity, is_exploration

    def __len__(self) -> int:
        return len(self.video_id)

    def __getitem__(self, place: Any) -> Any:
        return list(self)[place]

    def __iter__(self) -> Iterator[ServedItem]:
        columns = (self.video_id, self.position, self.score, self.predictions, self.generators)
        return map(ServedItem, *columns, self.propensity, self.is_exploration)

    @property
    def position(self) -> Sequence[int]:
        return range(len(self.video_id))

    @property
    def score(self) -> list[float | None]:
        return _finite(self._score.tolist())

    @property
    def predictions(self) -> list[dict[str, float | None]]:
        rows = self._predictions.tolist()
        if not np.isfinite(self._predictions).all():
            rows = [_finite(row) for row in rows]
        return [dict(zip(self.objectives, row, strict=True)) for row in rows]

    @property
    def propensity(self) -> list[float]:
        return list(self._propensity.tolist())

    @property
    def is_exploration(self) -> list[bool]:
        return list(self._is_exploration.tolist())


def _finite(values: Iterable[float]) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values]


@dataclass(frozen=True)
class Served:
    """An answered request, with all that is needed to rebuild its rows.

    Attributes:
        timestamp: the feature time, ms: the request's own, or what :meth:`data.feedback.store.Feedback.now` said before
            the profile was read.
        context: columns of the log's context by name, as the features saw them.
        rebuildable: False where offline features can't be what was served: the request brought its own history.
        candidates: of a sampled request the whole list with predictions, JSON.
    """

    request_id: str
    name: str
    user_id: str
    timestamp: int
    route: str
    items: Sequence[ServedItem]
    context: Mapping[str, Any] = field(default_factory=dict)
    query_video_id: str | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    model_version: int | None = None
    experiment: str | None = None
    arm: str | None = None
    rebuildable: bool = True
    candidates: bytes | None = None
