"""The request path, top to bottom, in :func:`rank`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import structlog
from numpy.typing import NDArray

from data.columns import Batch
from data.errors import WatchNextError
from data.exploration import Filled, fill, lots
from data.features.request import RequestFeatures
from data.feedback.store import Feedback
from models.ranking import Combined, combine, order
from models.scorer import Scores
from service.generators.gather import Gatherer
from service.generators.protocol import Taste
from service.inputs import Query
from service.observability import Metrics
from service.runtime import Runtime
from service.schemas import MAX_CANDIDATES
from service.serving import Serving

log = structlog.get_logger()

DAY_MS = 86_400_000
CERTAIN = np.random.default_rng(0)
"""Draws nothing: of a request that doesn't explore."""


@dataclass(frozen=True)
class Person:
    """Whom the slate is for: the features at the request's time, and what was seen since the bundle's boundary.
    ``complete`` is False where the profile couldn't be read."""

    features: RequestFeatures
    seen: frozenset[str] = frozenset()
    complete: bool = True


@dataclass(frozen=True)
class Candidates:
    """What is scored: ids, their rows in the catalogue [n] (-1 unknown), and who brought each."""

    video_ids: Sequence[str]
    rows: NDArray[np.int64]
    generators: Sequence[Sequence[str]]
    degraded: Sequence[str] = ()

    def take(self, kept: NDArray[np.int64]) -> "Candidates":
        places = kept.tolist()
        video_ids, generators = map(self.video_ids.__getitem__, places), map(self.generators.__getitem__, places)
        return Candidates(list(video_ids), self.rows[kept], list(generators), self.degraded)


@dataclass(frozen=True)
class Slate:
    """The ordered result, with all that the answer and the log of what was served need."""

    query: Query
    name: str
    version: int
    candidates: Candidates
    scores: Scores
    combined: Combined
    best_first: NDArray[np.int64]  # positions among the candidates
    filled: Filled  # such positions too, slot by slot
    degraded: Sequence[str]
    rebuildable: bool

    @property
    def shown(self) -> NDArray[np.int64]:
        """Positions among the candidates, in the order of the slots."""
        return self.filled.shown


def rank(query: Query, serving: Serving, runtime: Runtime) -> Slate:
    """From a checked request to a slate. Runs in a worker thread: it is CPU work from end to end."""
    metrics = runtime.metrics
    with metrics.stage("hydrate"):
        person = hydrate(query, serving, runtime.feedback)
    with metrics.stage("gather"):
        unwanted = unwanted_videos(query, person, serving, runtime.blocked)
        found = gather(query, person, unwanted, serving, runtime.gatherer)
    with metrics.stage("filter"):
        candidates = keep_eligible(found, unwanted, query, serving)
    with metrics.stage("score"):
        scores = score(person, candidates, serving)
    with metrics.stage("combine"):
        combined = combine(scores.predictions, query.ranking)
    with metrics.stage("slate"):
        slate = cut(query, person, serving, candidates, scores, combined)
    note(slate, person, len(found.video_ids), serving, metrics)
    return slate


def hydrate(query: Query, serving: Serving, feedback: Feedback | None = None) -> Person:
    """The user's and the context's features at the request's time: from the bundle's state and what the events told since
    then. A history that the request brings stands in place of these; it doesn't make a video unseen."""
    history, seen, complete = query.history, frozenset[str](), True
    if feedback is not None:
        try:
            history, seen = live_profile(query, serving, feedback)
        except WatchNextError as error:
            log.warning("profile left out", reason=str(error))
            complete = False
    features = serving.features.request(
        query.user_id, query.context, query.timestamp, history, query.history_replaces, query.query_video_id
    )
    return Person(features, seen, complete)


def live_profile(query: Query, serving: Serving, feedback: Feedback) -> tuple[Batch | None, frozenset[str]]:
    """The rows of the log that features read beside the bundle's state, and the videos that the user saw since then."""
    since, history, seen = serving.features.state.boundary, query.history, frozenset[str]()
    if history is None:
        history = feedback.profile(serving.name, query.user_id, since, query.timestamp, serving.config)
    if query.candidates is None:
        seen = frozenset(feedback.seen(serving.name, query.user_id, since))
    return history, seen


def unwanted_videos(query: Query, person: Person, serving: Serving, blocked: frozenset[str]) -> frozenset[str]:
    """Ids that this request can't be answered with, whatever path they come by, besides those taken down.

    The caller's own candidates are left out only where ``exclude`` names them. A recommendation also keeps away from
    what the user has seen or is watching, and from what is blocked; `history_replaces` doesn't make a video unseen.
    """
    if query.candidates is not None:
        return query.exclude
    watching = () if query.query_video_id is None else (query.query_video_id,)
    seen = serving.features.seen(query.user_id)
    return query.exclude.union(query.history_videos, seen, person.seen, blocked, watching)


def gather(query: Query, person: Person, unwanted: frozenset[str], serving: Serving, gatherer: Gatherer) -> Candidates:
    """The caller's candidates, or what the generators bring."""
    if query.candidates is not None:
        return Candidates(query.candidates, serving.video_rows(query.candidates), [()] * len(query.candidates))
    recent = serving.index_rows(person.features.watched)
    taste = Taste(
        query_video=-1 if query.query_video_id is None else serving.features.index_row(query.query_video_id),
        recent=recent[recent >= 0],
        timestamp=query.timestamp,
        unwanted=serving.taken_down_rows.union(serving.index_rows(list(unwanted)).tolist()) - {-1},
    )
    gathered = gatherer.gather(serving.sources_with(query.treatment.quotas), taste, MAX_CANDIDATES)
    video_ids = [serving.features.video_id(row) for row in gathered.brought_by]
    return Candidates(video_ids, serving.video_rows(video_ids), list(gathered.brought_by.values()), gathered.degraded)


def keep_eligible(found: Candidates, unwanted: frozenset[str], query: Query, serving: Serving) -> Candidates:
    """The one place that every candidate passes, whoever brought it. What a recommendation brings must exist by now."""
    outs = [out for out in (unwanted, serving.taken_down) if out and not out.isdisjoint(found.video_ids)]
    if not outs and query.candidates is not None:
        return found
    kept = np.ones(len(found.video_ids), bool)
    if outs:
        kept = np.array([not any(video_id in out for out in outs) for video_id in found.video_ids], bool)
    if query.candidates is None:
        kept &= serving.features.valid_from[found.rows] <= query.timestamp
    return found if kept.all() else found.take(np.flatnonzero(kept))


def score(person: Person, candidates: Candidates, serving: Serving) -> Scores:
    """Predictions [n, K] and gates [n, K, E]; no candidate's depends on another's."""
    if not candidates.video_ids:
        outputs = len(serving.ranking.objectives)
        return Scores(np.zeros((0, outputs), np.float32), np.zeros((0, outputs, 0), np.float32))
    video = serving.catalogue.take(candidates.rows)
    cross = serving.features.cross(person.features, candidates.rows)
    return serving.scorer.score(person.features.user, person.features.context, video, cross)


def cut(query: Query, person: Person, serving: Serving, candidates: Candidates, scores: Scores, combined: Combined) -> Slate:
    """Best first, ties by video id, at most ``limit``; some slots by lot where the request explores."""
    best_first = order(combined.keys, candidates.video_ids)
    sunk = combined.sunk
    slots = len(best_first) if query.limit is None else query.limit
    rng = lots(query.request_id, serving.salt) if query.explore else CERTAIN
    filled = fill(best_first, len(best_first) - sunk, slots, query.explore, rng)
    degraded = [*query.degraded, *candidates.degraded]
    if sunk:
        degraded.append(f"{sunk} of {len(candidates.video_ids)} candidates have no finite score")
    if not person.complete:
        degraded.append("profile: left out")
    rebuildable = query.rebuildable and person.complete
    return Slate(
        query, serving.name, serving.version, candidates, scores, combined, best_first, filled, degraded, rebuildable
    )


def note(slate: Slate, person: Person, found: int, serving: Serving, metrics: Metrics) -> None:
    """Count what happened."""
    n, counts = len(slate.candidates.video_ids), metrics.of_route(slate.query.route)
    counts.candidates.observe(n)
    for count, more in (
        (counts.filtered, found - n),
        (counts.empty_slates, not len(slate.shown)),
        (metrics.unknown_users, not person.features.known_user),
        (metrics.unknown_videos, np.count_nonzero(slate.candidates.rows < 0)),
        (metrics.not_finite, slate.combined.sunk),
        (metrics.explored, np.count_nonzero(slate.filled.explored)),
        (metrics.profiles_left_out, not person.complete),
        (metrics.stale_counts, slate.query.timestamp >= serving.features.as_of + DAY_MS),
    ):
        if more:
            count.inc(int(more))
    for feature in person.features.nulls:
        metrics.null_context.labels(feature).inc()
