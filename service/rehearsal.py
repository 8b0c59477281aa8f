"""Recent requests answered once more, by a bundle that does not serve them: to warm it, or to compare it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from models.ranking import combine, order
from service.generators.protocol import Taste
from service.pipeline import Candidates, hydrate, score
from service.serving import Serving
from service.shadow import Score, Scored

if TYPE_CHECKING:
    from service.inputs import Query
    from service.pipeline import Slate
    from service.runtime import Runtime

log = structlog.get_logger()

BROUGHT = 200
"""Candidates that the generators are asked for."""


def rehearse(serving: Serving, recent: "Sequence[Query]", runtime: "Runtime") -> None:
    """Answer recent requests with a bundle that is to serve, to nobody: nothing is counted or logged.

    A request that fits the bundle before may not fit this one, so that one's failure is only noted; failing them all
    refuses the bundle.

    Raises:
        Exception: the last one, where every request failed.
    """
    laid = runtime.videos.over(serving) if runtime.videos is not None else serving
    failures = []
    for query in recent:
        try:
            _answer(query, laid, runtime)
        except Exception as error:
            failures.append(error)
    if failures:
        log.warning("requests that a new bundle can't answer", failed=len(failures), of=len(recent), last=repr(failures[-1]))
        if len(failures) == len(recent):
            raise failures[-1]


def score_again(runtime: "Runtime") -> Score:
    """Scores a slate's candidates with another bundle, which ranks with weights of its own."""

    def again(slate: "Slate", serving: Serving) -> Scored:
        laid = runtime.videos.over(serving) if runtime.videos is not None else serving
        person = hydrate(replace(slate.query, ranking=laid.ranking), laid, runtime.feedback)
        ids = slate.candidates.video_ids
        predictions = score(person, Candidates(ids, laid.video_rows(ids), [()] * len(ids)), laid).predictions
        return predictions, combine(predictions, laid.ranking)

    return again


def _answer(query: "Query", serving: Serving, runtime: "Runtime") -> None:
    person = hydrate(replace(query, ranking=serving.ranking), serving, runtime.feedback)
    ids = query.candidates if query.candidates is not None else _brought(query, serving, person.features.watched)
    scores = score(person, Candidates(ids, serving.video_rows(ids), [()] * len(ids)), serving)
    order(combine(scores.predictions, serving.ranking).keys, ids)


def _brought(query: "Query", serving: Serving, watched: Sequence[str]) -> list[str]:
    recent = serving.index_rows(watched)
    row = -1 if query.query_video_id is None else serving.features.index_row(query.query_video_id)
    taste = Taste(query_video=row, recent=recent[recent >= 0], timestamp=query.timestamp, unwanted=frozenset())
    rows = [r for s in serving.sources for r in s.generator.candidates(taste, min(s.quota, BROUGHT))]
    return [serving.features.video_id(row) for row in dict.fromkeys(rows)]
