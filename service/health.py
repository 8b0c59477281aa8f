"""GET /healthz (the process lives), /readyz (it can rank), /metrics."""

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from service.problems import Problem, documented
from service.runtime import Runtime
from service.schemas import Health
from service.together import counters, not_ready

router = APIRouter(tags=["health"])


@router.get("/healthz", response_model_exclude_none=True, summary="The process lives")
async def healthz() -> Health:
    return Health(status="ok")


@router.get("/readyz", responses=documented(503), response_model_exclude_none=True, summary="A bundle is loaded and warm")
async def readyz(request: Request) -> Health:
    runtime: Runtime = request.state.runtime
    if (missing := await not_ready(runtime)) is not None:
        raise Problem(503, f"not ready: {missing}", headers={"retry-after": "5"})
    return Health(status="ready", refused=runtime.slot.refused)


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}}, summary="For Prometheus")
async def metrics(request: Request) -> Response:
    runtime: Runtime = request.state.runtime
    for name, value in (await counters(runtime)).items():
        runtime.metrics.feedback.labels(name).set(value)
    return Response(runtime.metrics.text(), media_type=CONTENT_TYPE_LATEST)
