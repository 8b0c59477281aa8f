"""The application factory: the one place where the service is wired."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from time import perf_counter
from typing import Any

import structlog
from fastapi import FastAPI
from pydantic.json_schema import models_json_schema
from threadpoolctl import threadpool_limits

from data.errors import WatchNextError
from data.feedback.store import Feedback
from service import events_api, guard, health, models_api, problems, ranking_api, videos_api
from service.access import Access
from service.body_limit import BodyLimit
from service.clock import Clock, ReplayClock, now
from service.direct import Direct
from service.forward import Forward
from service.loading import Loader, load_champion, load_version, read_blocked, warm
from service.memory import settle
from service.observability import UNTRACED, Metrics, configure_logs
from service.operations import Operations
from service.place import Place
from service.runtime import OpenFeedback, Runtime, State
from service.settings import Settings
from service.watcher import VersionLoader

log = structlog.get_logger()

ROUTERS = (health.router, ranking_api.router, events_api.router, videos_api.router, models_api.router)


def create_app(
    settings: Settings,
    load: Loader = load_champion,
    clock: Clock = now,
    open_feedback: OpenFeedback = Feedback,
    reload: VersionLoader = load_version,
    place: Place | None = None,
) -> FastAPI:
    """The service. It starts without a bundle too; ``/readyz`` then says what is missing.

    Args:
        load: brings what is to be served.
        clock: ms since the epoch, where a request has no timestamp.
        open_feedback: opens the log of what is served and of what comes back.
        reload: brings a version that is to serve from now on, or is on trial.
        place: which of several workers this is; default: it answers alone.

    Raises:
        WatchNextError: a setting is wrong.
    """
    configure_logs(settings.log_level)
    threadpool_limits(1, "blas")  # a product of one vector, shared by threads, waits for the last of them to wake
    metrics = Metrics()
    blocked = read_blocked(settings.blocked_file)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        time = ReplayClock() if settings.replay_clock else clock
        runtime = Runtime(settings, metrics, blocked, time, open_feedback=open_feedback, together=place is not None)
        runtime.operations = Operations(runtime)
        await asyncio.to_thread(runtime.open)
        async with nullcontext() if place is None else place.taken(runtime, ROUTERS) as leave:
            loading = asyncio.create_task(asyncio.to_thread(begin, runtime, load, reload))
            yield {"runtime": runtime}
            if leave is None:
                runtime.close()
            else:
                await leave()
            await loading

    app = FastAPI(
        title="WatchNext",
        version="1",
        lifespan=lifespan,
        docs_url=None,  # those pages fetch their scripts from someone else's server
        redoc_url=None,
        redirect_slashes=False,
        telemetry=UNTRACED,
    )
    problems.install(app)
    app.add_middleware(Direct, routers=(ranking_api.router, events_api.router))  # added first: the innermost
    group = None if place is None else place.group
    if group is not None:
        app.add_middleware(Forward, group=group)
    app.add_middleware(BodyLimit, limit=settings.body_limit)
    app.add_middleware(guard.Guard, settings=settings, group=group)
    app.add_middleware(Access, metrics=metrics)  # added last: the outermost
    for router in ROUTERS:
        app.include_router(router)
    _add_problem_schema(app)
    return app


def begin(runtime: Runtime, load: Loader, reload: VersionLoader) -> None:
    """Start, and from then on follow the registry."""
    start(runtime, load)
    runtime.operations.begin(reload, lambda: start(runtime, load))


def start(runtime: Runtime, load: Loader) -> None:
    """Load, warm, and only then put in place."""
    started = perf_counter()
    try:
        runtime.connect()
        serving = load(runtime.settings)
        runtime.arms.load(serving.name)
        runtime.carry(serving.features.state.boundary)
        warm(serving)
        settle()
    except WatchNextError as error:
        runtime.slot.fail(str(error))
        log.error("no bundle is served", reason=str(error))
    except Exception:
        runtime.slot.fail("the bundle can't be loaded; the log says why")
        log.exception("no bundle is served")
    else:
        runtime.slot.swap(serving)
        seconds = perf_counter() - started
        runtime.metrics.model_version.set(serving.version)
        runtime.metrics.load_seconds.set(seconds)
        log.info("serving", bundle=serving.name, version=serving.version, seconds=round(seconds, 2))


def _add_problem_schema(app: FastAPI) -> None:
    """The endpoints refer to it by name, since FastAPI would declare it as plain ``application/json``."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        schema = generate()
        _, definitions = models_json_schema(
            [(problems.ProblemDetails, "serialization")], ref_template="#/components/schemas/{model}"
        )
        schema["components"]["schemas"].update(definitions["$defs"])
        guard.declare(schema)
        return schema

    app.openapi = openapi  # type: ignore[method-assign]
