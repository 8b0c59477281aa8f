"""GET /v1/models: what the registry holds and what answers. POST /v1/models/promote and /rollback: what shall."""

import math
from contextlib import suppress
from typing import Literal

import structlog
from fastapi import APIRouter, Request
from pydantic import Field

from data.database import DatabaseError
from data.errors import BundleError, WatchNextError
from models.bundle import Manifest, read_manifest
from models.collect import needed
from models.rollouts import Rollout, Rollouts
from service.aside import short_turns
from service.bands import Figures
from service.loading import served_name
from service.problems import Problem, documented
from service.runtime import Runtime
from service.schemas import Models, ObjectiveSummary, Strict, Version, Window
from service.serving import Precision, Serving
from service.shadow import Shadow, ratio
from service.strict_json import JsonRoute
from service.together import reports_elsewhere

log = structlog.get_logger()

router = APIRouter(prefix="/v1", tags=["models"], route_class=JsonRoute)

LEAST, LARGEST = 1_000_000_000, 9_999_999_999
"""Of a version: eight digits of a day and two more."""


class Promotion(Strict):
    """Which version shall be the champion."""

    version: int = Field(strict=True, ge=LEAST, le=LARGEST)


class Rollback(Strict):
    """Back to the champion before the champion."""

    expected: int | None = Field(
        None, strict=True, ge=LEAST, le=LARGEST, description="roll back only if this is the champion; else 409"
    )


class Pointer(Strict):
    """Who is the champion from now on. Every service process follows within seconds."""

    name: str
    champion: int
    previous: int | None = Field(description="what a rollback goes back to")


class SideFigures(Strict):
    """What one side has done since the canary began."""

    requests: int
    errors: int
    latency_ms: float | None = Field(description="95th percentile of the last slates")
    unknown_videos: float = Field(description="share of the candidates")
    unknown_users: float = Field(description="share of the slates")
    null_features: float = Field(description="share of the context features")
    views: int = Field(description="served items that were seen")
    rates: dict[str, float | None] = Field(description="by objective, outcomes per view")
    predicted_over_actual: dict[str, float | None]


class CanaryReport(Strict):
    """The canary that runs, or the last one. Figures are of all workers, since it began to serve in each."""

    version: int
    share: float
    state: Literal["running", "stopped", "withdrawn"]
    reason: str = Field(description="why it was withdrawn")
    champion: SideFigures | None = None
    canary: SideFigures | None = None


class ShadowReport(Strict):
    """The shadow that runs, or the last one, and how it differs from what was served, in the answering process."""

    version: int
    share: float
    state: Literal["running", "stopped", "withdrawn"]
    reason: str
    slates: int = Field(0, description="scored by both")
    left_out: int = Field(0, description="not scored, since requests were waiting")
    failed: int = 0
    rank_correlation: float | None = Field(None, description="mean over slates, of the scores")
    top_overlap: float | None = Field(None, description="mean share of the first ten that are the same")
    latency_ms: float | None = Field(None, description="mean time of the shadow to score a slate")
    champion_latency_ms: float | None = Field(None, description="mean time of the answers to the same requests")
    prediction_ratio: dict[str, float | None] = Field(
        {}, description="by objective, the shadow's mean prediction over the served one's, same candidates"
    )


class ModelsReport(Models):
    """Champion, trials, and every version with why it stays in the registry."""

    refused: str | None = Field(description="why the champion is not what serves")
    precision: Precision | None = Field(description="of the matrix products by which it is scored; null: nothing serves")
    kept: dict[str, str] = Field(description="by version, why it is never collected")
    shadow: ShadowReport | None
    canary: CanaryReport | None


@router.get("/models", responses=documented(500, 503), summary="Versions, champion, objectives, windows, trials")
def models(request: Request) -> ModelsReport:
    # A plain function: it reads the disk and the database, so the framework runs it in a thread.
    runtime: Runtime = request.state.runtime
    serving = runtime.slot.current
    try:
        name = serving.name if serving else served_name(runtime.settings)
        champion = runtime.registry.champion(name)
        manifests = _manifests(runtime, name)
        kept, trials = needed(runtime.registry, name), Rollouts(runtime.registry).find(name)
    except WatchNextError as error:
        log.warning("the registry can't be read", reason=str(error))
        raise Problem(503, "the registry can't be read, or is empty; the log says why") from None
    current = serving.version if serving else None
    return ModelsReport(
        name=name,
        champion=champion,
        serving=current,
        objectives=_objectives(serving) if serving else [],
        versions=[_version(manifest, champion, current) for manifest in reversed(manifests)],
        refused=runtime.slot.refused,
        precision=serving.precision if serving else None,
        kept={str(version): reason for version, reason in sorted(kept.items())},
        shadow=_shadow(trials.get("shadow"), runtime.slot.shadow),
        canary=_canary(trials.get("canary"), runtime),
    )


@router.post(
    "/models/promote", responses=documented(400, 409, 413, 415, 422, 500, 503), summary="Make a version the champion"
)
def promote(body: Promotion, request: Request) -> Pointer:
    runtime: Runtime = request.state.runtime
    name = _name(runtime)
    try:
        with short_turns():
            runtime.registry.promote(name, body.version)
    except WatchNextError as error:
        raise _refusal(error) from None
    return _pointer(runtime, name)


@router.post(
    "/models/rollback",
    responses=documented(400, 409, 413, 415, 422, 500, 503),
    summary="Make the champion before the champion again",
)
def rollback(body: Rollback, request: Request) -> Pointer:
    runtime: Runtime = request.state.runtime
    name = _name(runtime)
    try:
        with short_turns():
            back = runtime.registry.rollback(name, body.expected)
    except WatchNextError as error:
        raise _refusal(error) from None
    return Pointer(name=name, champion=back.version, previous=back.previous)


def _name(runtime: Runtime) -> str:
    try:
        return runtime.slot.current.name if runtime.slot.current else served_name(runtime.settings)
    except WatchNextError as error:
        raise _refusal(error) from None


def _pointer(runtime: Runtime, name: str) -> Pointer:
    try:
        pointer = runtime.registry.pointer(name)
    except WatchNextError as error:
        raise _refusal(error) from None
    assert pointer is not None
    return Pointer(name=name, champion=pointer.version, previous=pointer.previous)


def _refusal(error: WatchNextError) -> Problem:
    """What does not fit the registry is said as it is; what is wrong with the database is the log's."""
    if isinstance(error, DatabaseError):
        log.error("the database can't be written", reason=str(error))
        return Problem(503, "the database can't be read or written; the log says why", headers={"retry-after": "5"})
    return Problem(409, str(error))


def _manifests(runtime: Runtime, name: str) -> list[Manifest]:
    """In the order of publishing; a version whose manifest can't be read is no version."""
    found = []
    folder = runtime.settings.home_folder().registry(name)
    for version in runtime.registry.versions(name):
        with suppress(BundleError):
            found.append(read_manifest(folder / str(version)))
    return sorted(found, key=lambda manifest: (manifest.created_at, manifest.version))


def _objectives(serving: Serving) -> list[ObjectiveSummary]:
    weights = dict(zip(serving.ranking.objectives, serving.ranking.weights.tolist(), strict=True))
    return [
        ObjectiveSummary(name=o.name, family=o.family, kind=o.kind, label=o.label, given=o.given, weight=weights[o.name])
        for o in serving.config.objectives
    ]


def _version(manifest: Manifest, champion: int | None, current: int | None) -> Version:
    window = manifest.window
    return Version(
        version=manifest.version,
        created_at=manifest.created_at.isoformat(),
        window=Window(first_day=window.first_day.isoformat(), last_day=window.last_day.isoformat()),
        objectives=list(manifest.objectives),
        champion=manifest.version == champion,
        serving=manifest.version == current,
    )


def _canary(rollout: Rollout | None, runtime: Runtime) -> CanaryReport | None:
    if rollout is None:
        return None
    report = CanaryReport.model_validate({key: getattr(rollout, key) for key in ("version", "share", "state", "reason")})
    running = runtime.slot.canary
    if running is None or running.rollout.version != rollout.version:
        return report
    champion, canary = running.figures(reports_elsewhere(runtime, running))
    return report.model_copy(update={"champion": _side(champion), "canary": _side(canary)})


def _side(figures: Figures) -> SideFigures:
    views, positives = figures.views, figures.positives
    return SideFigures(
        requests=figures.requests,
        errors=figures.errors,
        latency_ms=None if math.isnan(figures.latency) else figures.latency * 1e3,
        unknown_videos=ratio(figures.unknown_videos, figures.candidates) or 0.0,
        unknown_users=ratio(figures.unknown_users, figures.slates) or 0.0,
        null_features=ratio(figures.nulls, figures.context) or 0.0,
        views=views,
        rates={name: ratio(count, views) for name, count in positives.items()},
        predicted_over_actual={name: ratio(figures.predicted[name], count) for name, count in positives.items()},
    )


def _shadow(rollout: Rollout | None, running: Shadow | None) -> ShadowReport | None:
    if rollout is None:
        return None
    report = ShadowReport.model_validate({key: getattr(rollout, key) for key in ("version", "share", "state", "reason")})
    if running is None or running.rollout.version != rollout.version:
        return report
    sums = running.differences()
    figures = {
        "slates": sums.slates,
        "left_out": sums.left_out,
        "failed": sums.failed,
        "rank_correlation": ratio(sums.correlation, sums.correlated),
        "top_overlap": ratio(sums.overlap, sums.slates),
        "latency_ms": ratio(sums.seconds * 1e3, sums.slates),
        "champion_latency_ms": ratio(sums.champion_seconds * 1e3, sums.slates),
        "prediction_ratio": {name: ratio(*pair) for name, pair in sums.predicted.items()},
    }
    return report.model_copy(update=figures)
