"""Products in bfloat16 where they are asked for, the processor has them, and a bundle's order bears them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray

from data.errors import BundleError
from models.bfloat16 import supported
from models.ranking import combine
from models.scorer import Scorer
from service.pipeline import Candidates, Person, score
from service.serving import Serving

log = structlog.get_logger()

USERS, VIDEOS = 16, 500
"""Of the bundle, each user with all of these videos, whose order by both precisions is compared."""
MOST = 0.01
"""Share of pairs of videos that may change order."""


def in_bfloat16(serving: Serving, extra: Path, calls: int) -> Serving:
    """The bundle, scored in bfloat16 by ``calls`` threads at once; as it came where the processor or OpenVINO can't, or more
    than :data:`MOST` of the pairs change order.

    Args:
        extra: the folder of the bundle's scorer.

    Raises:
        WatchNextError: OpenVINO is not installed.
    """
    if not supported():
        log.warning("scored in float32: this processor has no products in bfloat16")
        return serving
    try:
        scorer = Scorer.load(extra, bfloat16=calls)
    except BundleError as error:
        log.warning("scored in float32", version=serving.version, reason=str(error))
        return serving
    encode = scorer.keeping(len(serving.features.video_ids) + 1)
    fast = replace(serving, scorer=scorer, encode=encode, precision="bfloat16")
    swapped = pairs_swapped(serving, fast)
    if swapped > MOST:
        log.warning("scored in float32: bfloat16 changes the order", version=serving.version, pairs=swapped, most=MOST)
        return serving
    log.info("scored in bfloat16", version=serving.version, pairs=swapped)
    return fast


def pairs_swapped(one: Serving, other: Serving) -> float:
    """The share of pairs of videos that the two put in opposite order, for users of the bundle at its state's end; a score
    that is not finite stands in no order, so that its pairs count too."""
    videos, users = len(one.features.video_ids), one.features.state.knowledge.vocabularies["user_id"].texts[:USERS]
    rows = np.unique(np.linspace(0, videos - 1, min(VIDEOS, videos)).astype(np.int64))
    changed = pairs = 0
    for user_id in users:
        scores = (ranking_scores(serving, user_id, rows) for serving in (one, other))
        order, moved = (np.sign(np.subtract.outer(own, own)) for own in scores)
        changed, pairs = changed + int((~(order * moved >= 0)).sum()), pairs + int((order != 0).sum())
    return changed / max(pairs, 1)


def ranking_scores(serving: Serving, user_id: str, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """The ranking scores [n] of these rows of the catalogue, -1 being a video that it doesn't have, at its state's end and
    without a context."""
    person = Person(serving.features.request(user_id, {}, serving.features.state.boundary))
    names = ["" if row < 0 else serving.features.video_ids[row] for row in rows.tolist()]
    predictions = score(person, Candidates(names, rows, [()] * len(rows)), serving).predictions
    return combine(predictions, serving.ranking).scores
