"""POST /v1/rank and POST /v1/recommend."""

from time import perf_counter

import structlog
from fastapi import APIRouter, Request, Response

from service.answers import encode
from service.inputs import to_query
from service.pipeline import rank
from service.problems import Problem, documented
from service.runtime import Runtime
from service.schemas import Answer, ColumnsAnswer, RankRequest, RecommendRequest, SlateRequest
from service.served_log import log_served
from service.serving import Serving
from service.shards import stamped
from service.strict_json import JsonRoute

log = structlog.get_logger()

router = APIRouter(prefix="/v1", tags=["ranking"], route_class=JsonRoute)

ERRORS = documented(400, 413, 415, 422, 500, 503)


@router.post("/rank", response_model=Answer | ColumnsAnswer, responses=ERRORS, summary="Order the caller's candidates")
async def rank_candidates(body: RankRequest, request: Request) -> Response:
    return await _answer(body, body.limit, request)


@router.post("/recommend", response_model=Answer | ColumnsAnswer, responses=ERRORS, summary="Find candidates and order them")
async def recommend(body: RecommendRequest, request: Request) -> Response:
    return await _answer(body, body.limit, request)


async def _answer(body: SlateRequest, limit: int | None, request: Request) -> Response:
    runtime: Runtime = request.state.runtime
    serving = runtime.slot.choose(body.user_id)
    if serving is None:
        raise Problem(503, "no bundle is loaded; /readyz says why", headers={"retry-after": "5"})
    seconds = runtime.settings.deadline_ms / 1e3
    begun = perf_counter()
    until = getattr(request.state, "begun", begun) + seconds
    request.state.request_id = request_id = stamped(request.state.request_id, body.user_id)
    structlog.contextvars.bind_contextvars(request_id=request_id)
    try:
        run = runtime.lane.run_here if _may_stay(body, serving, runtime) else runtime.lane.run
        answer = await run(until - begun, _respond, body, limit, serving, runtime, request_id, until)
        return Response(answer, media_type="application/json")
    except TimeoutError:
        detail = f"no answer within {runtime.settings.deadline_ms:g} ms"
        raise Problem(503, detail, headers={"retry-after": "1"}) from None


def _may_stay(body: SlateRequest, serving: Serving, runtime: Runtime) -> bool:
    """Whether this may be ranked on the event loop: it waits for nothing (no generators, no profile that is on disk), and
    no other worker's requests pass through here."""
    if runtime.together or not isinstance(body, RankRequest):
        return False
    feedback, since = runtime.feedback, serving.features.state.boundary
    return feedback is None or feedback.at_hand(serving.name, body.user_id, since)


def _respond(
    body: SlateRequest, limit: int | None, serving: Serving, runtime: Runtime, request_id: str, until: float
) -> bytes:
    try:
        return _slate(body, limit, serving, runtime, request_id, until)
    except Problem:
        raise
    except Exception:
        runtime.operations.failed(serving.version)
        champion = runtime.slot.current
        if champion is None or champion.version == serving.version:
            raise
        # A canary, or one that was withdrawn while this request was with it.
        log.exception("the version failed, the champion answers", version=serving.version, champion=champion.version)
        return _slate(body, limit, champion, runtime, request_id, until)


def _slate(
    body: SlateRequest, limit: int | None, serving: Serving, runtime: Runtime, request_id: str, until: float
) -> bytes:
    started = perf_counter()
    now = runtime.time(body.timestamp)
    treatment = runtime.arms.treatment(body.user_id, now if body.timestamp is None else body.timestamp, serving)
    if treatment.bundle is not None:
        serving = runtime.slot.others.get(treatment.bundle, serving)
    if runtime.videos is not None:
        serving = runtime.videos.over(serving)
    slate = rank(to_query(body, limit, serving, now, request_id, treatment), serving, runtime)
    answer = encode(slate)
    if perf_counter() < until:  # later it was answered 503, and nobody saw it
        log_served(slate, runtime.feedback, runtime.metrics)
        runtime.operations.answered(slate, serving, perf_counter() - started)
    else:
        runtime.operations.failed(serving.version)
    return answer
