"""The request path, top to bottom, in :func:`rank`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.features.request import RequestFeatures
from models.scorer import Scores
from service.generators.gather import Gatherer
from service.generators.protocol import Taste
from service.inputs import Query
from service.observability import Metrics
from service.ranking import Combined, combine, order
from service.runtime import Runtime
from service.schemas import MAX_CANDIDATES
from service.serving import Serving


@dataclass(frozen=True)
class Candidates:
    """What is scored: ids, their rows in the catalogue [n] (-1 unknown), and who brought each."""

    video_ids: Sequence[str]
    rows: NDArray[np.int64]
    generators: Sequence[Sequence[str]]
    degraded: Sequence[str] = ()

    def take(self, kept: NDArray[np.int64]) -> "Candidates":
        places = kept.tolist()
        video_ids = [self.video_ids[i] for i in places]
        return Candidates(video_ids, self.rows[kept], [self.generators[i] for i in places], self.degraded)


@dataclass(frozen=True)
class Slate:
    """The ordered result, with all that the answer and the log of what was served need."""

    query: Query
    version: int
    candidates: Candidates
    scores: Scores
    combined: Combined
    shown: NDArray[np.int64]  # positions among the candidates, best first
    degraded: Sequence[str]


def rank(query: Query, serving: Serving, runtime: Runtime) -> Slate:
    """From a checked request to a slate. Runs in a worker thread: it is CPU work from end to end."""
    metrics = runtime.metrics
    with metrics.stage("hydrate"):
        person = hydrate(query, serving)
    with metrics.stage("gather"):
        unwanted = unwanted_videos(query, serving, runtime.blocked)
        found = gather(query, person, unwanted, serving, runtime.gatherer)
    with metrics.stage("filter"):
        candidates = keep_eligible(found, unwanted, query, serving)
    with metrics.stage("score"):
        scores = score(person, candidates, serving)
    with metrics.stage("combine"):
        combined = combine(scores.predictions, query.ranking)
    with metrics.stage("slate"):
        slate = cut(query, serving, candidates, scores, combined)
    note(slate, person, len(found.video_ids), metrics)
    return slate


def hydrate(query: Query, serving: Serving) -> RequestFeatures:
    """The user's and the context's features at the request's time."""
    return serving.features.request(
        query.user_id, query.context, query.timestamp, query.history, query.history_replaces, query.query_video_id
    )


def unwanted_videos(query: Query, serving: Serving, blocked: frozenset[str]) -> frozenset[str]:
    """Ids that this request can't be answered with, whatever path they come by.

    The caller's own candidates are left out only where ``exclude`` names them. A recommendation also keeps away from
    what the user has seen or is watching, and from what is blocked; `history_replaces` doesn't make a video unseen.
    """
    if query.candidates is not None:
        return query.exclude
    watching = () if query.query_video_id is None else (query.query_video_id,)
    return query.exclude.union(query.history_videos, serving.features.seen(query.user_id), blocked, watching)


def gather(
    query: Query, person: RequestFeatures, unwanted: frozenset[str], serving: Serving, gatherer: Gatherer
) -> Candidates:
    """The caller's candidates, or what the generators bring."""
    if query.candidates is not None:
        return Candidates(query.candidates, serving.video_rows(query.candidates), [()] * len(query.candidates))
    query_row = -1 if query.query_video_id is None else serving.features.video_row(query.query_video_id)
    recent = serving.video_rows(person.watched)
    taste = Taste(
        query_video=query_row,
        recent=recent[recent >= 0],
        timestamp=query.timestamp,
        unwanted=frozenset(serving.video_rows(list(unwanted)).tolist()) - {-1},
    )
    gathered = gatherer.gather(serving.sources, taste, MAX_CANDIDATES)
    rows = np.fromiter(gathered.brought_by, np.int64, len(gathered.brought_by))
    video_ids = [serving.features.video_ids[row] for row in rows.tolist()]
    return Candidates(video_ids, rows, list(gathered.brought_by.values()), gathered.degraded)


def keep_eligible(found: Candidates, unwanted: frozenset[str], query: Query, serving: Serving) -> Candidates:
    """The one place that every candidate passes, whoever brought it. What a recommendation brings must exist by now."""
    kept = np.array([video_id not in unwanted for video_id in found.video_ids], bool)
    if query.candidates is None:
        kept &= serving.features.valid_from[found.rows] <= query.timestamp
    return found if kept.all() else found.take(np.flatnonzero(kept))


def score(person: RequestFeatures, candidates: Candidates, serving: Serving) -> Scores:
    """Predictions [n, K] and gates [n, K, E]; no candidate's depends on another's."""
    if not candidates.video_ids:
        outputs = len(serving.ranking.objectives)
        return Scores(np.zeros((0, outputs), np.float32), np.zeros((0, outputs, 0), np.float32))
    video = serving.catalogue.take(candidates.rows)
    cross = serving.features.cross(person, candidates.rows)
    return serving.scorer.score(person.user, person.context, video, cross)


def cut(query: Query, serving: Serving, candidates: Candidates, scores: Scores, combined: Combined) -> Slate:
    """Best first, ties by video id, at most ``limit``."""
    shown = order(combined.keys, candidates.video_ids)[: query.limit]
    degraded = list(candidates.degraded)
    if sunk := int(combined.not_finite.sum()):
        degraded.append(f"{sunk} of {len(candidates.video_ids)} candidates have no finite score")
    return Slate(query, serving.version, candidates, scores, combined, shown, degraded)


def note(slate: Slate, person: RequestFeatures, found: int, metrics: Metrics) -> None:
    """Count what happened."""
    route, candidates = slate.query.route, slate.candidates
    metrics.candidates.labels(route).observe(len(candidates.video_ids))
    metrics.filtered.labels(route).inc(found - len(candidates.video_ids))
    metrics.unknown_users.inc(not person.known_user)
    metrics.unknown_videos.inc(int((candidates.rows < 0).sum()))
    metrics.not_finite.inc(int(slate.combined.not_finite.sum()))
    metrics.empty_slates.labels(route).inc(len(slate.shown) == 0)
    for feature in person.nulls:
        metrics.null_context.labels(feature).inc()
