"""GET /v1/models: what the registry holds and what answers."""

from contextlib import suppress

import structlog
from fastapi import APIRouter, Request

from data.errors import BundleError, WatchNextError
from models.bundle import Manifest, read_manifest
from service.loading import served_name
from service.problems import Problem, documented
from service.runtime import Runtime
from service.schemas import Models, ObjectiveSummary, Version, Window
from service.serving import Serving

log = structlog.get_logger()

router = APIRouter(prefix="/v1", tags=["models"])


@router.get("/models", responses=documented(500, 503), summary="Versions, champion, objectives, windows")
def models(request: Request) -> Models:
    # A plain function: it reads the disk and the database, so the framework runs it in a thread.
    runtime: Runtime = request.state.runtime
    serving = runtime.slot.current
    try:
        name = serving.name if serving else served_name(runtime.settings)
        champion = runtime.registry.champion(name)
        manifests = _manifests(runtime, name)
    except WatchNextError as error:
        log.warning("the registry can't be read", reason=str(error))
        raise Problem(503, "the registry can't be read, or is empty; the log says why") from None
    current = serving.version if serving else None
    return Models(
        name=name,
        champion=champion,
        serving=current,
        objectives=_objectives(serving) if serving else [],
        versions=[_version(manifest, champion, current) for manifest in reversed(manifests)],
    )


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
