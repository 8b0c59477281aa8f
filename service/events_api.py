"""POST /v1/events: what the users did with what they were served."""

from collections import Counter
from typing import Annotated, Literal

import orjson
import structlog
from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import Field, StringConstraints

from data.errors import WatchNextError
from data.feedback.events import Event, Fate
from service.problems import Problem, documented
from service.runtime import Runtime
from service.schemas import Id, Strict
from service.strict_json import JsonRoute

log = structlog.get_logger()

MAX_EVENTS = 1_000
MAX_TYPE = 64
LARGEST = 1e12
LATEST = 1 << 53
"""ms; any time that a client's clock may show, since it decides nothing."""

router = APIRouter(prefix="/v1", tags=["events"], route_class=JsonRoute)

Status = Literal["accepted", "duplicate", "late", "orphan", "rejected"]


class ClientEvent(Strict):
    """Something that a user did with an item of a slate."""

    event_id: Id = Field(description="the client's; the same id twice counts once")
    request_id: Id = Field(description="of the answer that the item was in")
    video_id: Id
    type: Annotated[str, StringConstraints(strict=True, min_length=1, max_length=MAX_TYPE)] = Field(
        description="`view`, or one that the configuration declares"
    )
    user_id: Id | None = Field(None, description="checked against the request's where given")
    timestamp: int | None = Field(
        None, strict=True, ge=0, le=LATEST, description="ms since the epoch, by the client's clock"
    )
    value: float | None = Field(
        None, strict=True, allow_inf_nan=False, ge=-LARGEST, le=LARGEST, description="of a number, such as seconds watched"
    )


class Events(Strict):
    """A batch. Its events are taken in order, each by itself."""

    events: list[ClientEvent] = Field(min_length=1, max_length=MAX_EVENTS)


class EventFate(Strict):
    event_id: str
    status: Status
    reason: str | None = Field(description="why it was not accepted, or what is odd about it")


class Fates(Strict):
    """Of each event, in order. What is accepted is on disk."""

    events: list[EventFate]


@router.post(
    "/events",
    status_code=202,
    response_model=Fates,
    responses=documented(400, 413, 415, 422, 500, 503),
    summary="Say what users did",
)
async def take_in(body: Events, request: Request) -> Response:
    runtime: Runtime = request.state.runtime
    fates = await run_in_threadpool(_take_in, body, runtime)  # it waits for the disk
    return Response(orjson.dumps({"events": fates}), 202, media_type="application/json")


def _take_in(body: Events, runtime: Runtime) -> list[Fate]:
    if runtime.feedback is None or runtime.slot.current is None:
        raise Problem(503, "no bundle is loaded; /readyz says why", headers={"retry-after": "5"})
    events = [Event(**dict(event)) for event in body.events]
    runtime.carry(max((event.timestamp for event in events if event.timestamp is not None), default=None))
    try:
        fates = runtime.feedback.accept(events)
    except WatchNextError as error:
        log.error("events not accepted", events=len(events), reason=str(error))
        detail = "nothing of the batch was accepted: send it again"
        raise Problem(503, detail, headers={"retry-after": "1"}) from None
    _count(fates, runtime)
    runtime.operations.events([event for event, fate in zip(events, fates, strict=True) if fate.status == "accepted"])
    return fates


def _count(fates: list[Fate], runtime: Runtime) -> None:
    for status, count in Counter(fate.status for fate in fates).items():
        runtime.metrics.events.labels(status).inc(count)
