"""A slate as it was served."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


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
