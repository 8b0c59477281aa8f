"""What was served, as the log keeps it."""

import numpy as np
import orjson
import structlog

from data.feedback.served import Served, ServedColumns
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


def _items(slate: Slate) -> ServedColumns:
    shown, candidates = slate.shown, slate.candidates
    places = shown.tolist()
    return ServedColumns(
        [candidates.video_ids[place] for place in places],
        slate.combined.scores[shown],
        slate.query.ranking.objectives,
        slate.scores.predictions[shown].astype(np.float32),  # as they are answered
        [candidates.generators[place] for place in places],
        slate.filled.propensity,
        slate.filled.explored,
    )


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
