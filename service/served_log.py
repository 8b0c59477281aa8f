"""What was served, as the log keeps it."""

import math
from collections.abc import Iterable

import numpy as np
import orjson
import structlog

from data.feedback.served import Served, ServedItem
from data.feedback.store import Feedback
from service.observability import Metrics
from service.pipeline import Slate

log = structlog.get_logger()


def log_served(slate: Slate, feedback: Feedback | None, metrics: Metrics) -> None:
    """Hand the slate to the log, before its answer leaves, so that no event can come before it. Never waits for the disk
    and never fails: a slate that a defect keeps from the log is counted."""
    if feedback is None:
        return
    try:
        feedback.log_served(served(slate))
    except Exception:
        metrics.served_log_failures.inc()
        log.exception("a slate was not logged")


def served(slate: Slate) -> Served:
    """The slate with all that is needed to rebuild its rows, and to judge it later."""
    query = slate.query
    return Served(
        request_id=query.request_id,
        name=slate.name,
        user_id=query.user_id,
        timestamp=query.timestamp,
        route=query.route,
        items=_items(slate),
        context=query.context,
        query_video_id=query.query_video_id,
        weights=dict(zip(query.ranking.objectives, query.ranking.weights.tolist(), strict=True)),
        model_version=slate.version,
        experiment=query.treatment.experiment,
        arm=query.treatment.arm,
        rebuildable=slate.rebuildable,
        candidates=_candidates(slate) if query.sampled else None,
    )


def _items(slate: Slate) -> list[ServedItem]:
    names, shown = slate.query.ranking.objectives, slate.shown
    predictions = _finite(slate.scores.predictions[shown].astype(np.float32).ravel().tolist())  # as they are answered
    scores = _finite(slate.combined.scores[shown].tolist())
    of_slots = zip(shown.tolist(), slate.filled.propensity.tolist(), slate.filled.explored.tolist(), strict=True)
    return [
        ServedItem(
            video_id=slate.candidates.video_ids[place],
            position=position,
            score=scores[position],
            predictions=dict(zip(names, predictions[position * len(names) : (position + 1) * len(names)], strict=True)),
            generators=slate.candidates.generators[place],
            propensity=propensity,
            is_exploration=explored,
        )
        for position, (place, propensity, explored) in enumerate(of_slots)
    ]


def _candidates(slate: Slate) -> bytes:
    """Everything that stood for choice, in the order in which it was scored; what isn't finite is null."""
    predictions = np.ascontiguousarray(slate.scores.predictions.T, np.float32)
    content = {
        "video_ids": list(slate.candidates.video_ids),
        "scores": slate.combined.scores,
        "predictions": dict(zip(slate.query.ranking.objectives, predictions, strict=True)),
        "generators": [list(names) for names in slate.candidates.generators],
    }
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


def _finite(values: Iterable[float]) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values]
