"""What the workers of one service ask and tell each other beside requests."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import structlog

from data.errors import WatchNextError
from service.canary import Canary
from service.frames import Frame
from service.peers import Answer, PeerAway
from service.problems import Problem
from service.runtime import Runtime
from service.tallies import Report

log = structlog.get_logger()

TELLING = 30.0
"""Seconds in which every worker has to take over a change of the catalogue."""


def answers(runtime: Runtime) -> dict[str, Answer]:
    """What this worker answers, by the kind of question."""

    async def request(frame: Frame) -> Frame:
        assert runtime.inside is not None
        return await runtime.inside.answer(frame)

    async def ready(_: Frame) -> Frame:
        return Frame({"missing": runtime.slot.reason if runtime.slot.current is None else None})

    async def dropped(_: Frame) -> Frame:
        return Frame({"dropped": 0 if runtime.feedback is None else runtime.feedback.dropped})

    async def canary(frame: Frame) -> Frame:
        return Frame({"reports": _reports(runtime.slot.canary, frame.head["of"])})

    async def videos(frame: Frame) -> Frame:
        try:
            await asyncio.to_thread(runtime.take_over, orjson.loads(frame.body))
        except WatchNextError as error:
            log.error("a change of the catalogue was not taken over", reason=str(error))
            return Frame({"done": False})
        return Frame({"done": True})

    return {function.__name__: function for function in (request, ready, dropped, canary, videos)}


def tell(runtime: Runtime, video_ids: Sequence[str]) -> None:
    """Return once what was changed of these videos holds in every worker; one that is away will read it when it starts. For
    a thread that is not the event loop's.

    Raises:
        Problem: 503, not all have confirmed it.
    """
    if runtime.peers is None:
        return
    frame = Frame({"kind": "videos"}, orjson.dumps(list(video_ids)))
    for _ in range(2):  # a kept connection may be to one that is no more
        heard = runtime.peers.gather_from_thread(frame, TELLING)
        if all(answer.gone if isinstance(answer, PeerAway) else answer.head["done"] for answer in heard):
            return
    detail = "it is stored, but not every process has confirmed it: send it again"
    raise Problem(503, detail, headers={"retry-after": "1"})


async def not_ready(runtime: Runtime) -> str | None:
    """What the first of the workers that is not ready misses."""
    if runtime.slot.current is None:
        return runtime.slot.reason
    if runtime.peers is None:
        return None
    heard = await runtime.peers.ask_all(Frame({"kind": "ready"}))
    missing = [str(answer) if isinstance(answer, PeerAway) else answer.head["missing"] for answer in heard]
    return next(filter(None, missing), None)


async def counters(runtime: Runtime) -> Mapping[str, int]:
    """The counts of the log of slates and events, of all workers. Raises DatabaseError."""
    if runtime.feedback is None:
        return {}
    if runtime.peers is None:
        return runtime.feedback.counters()
    heard = await runtime.peers.ask_all(Frame({"kind": "dropped"}))
    elsewhere = sum(answer.head["dropped"] for answer in heard if isinstance(answer, Frame))
    return await asyncio.to_thread(runtime.feedback.counters, elsewhere)


def reports_elsewhere(runtime: Runtime, canary: Canary) -> list[Mapping[int, Report]]:
    """What the other workers report of the two versions, where they have the same. For a thread that is not the event
    loop's."""
    if runtime.peers is None:
        return []
    heard = runtime.peers.gather_from_thread(Frame({"kind": "canary", "of": canary.sides}))
    found = [answer.head["reports"] for answer in heard if isinstance(answer, Frame)]
    return [dict(zip(canary.sides, reports, strict=True)) for reports in found if reports is not None]


def _reports(canary: Canary | None, sides: Any) -> list[Report] | None:
    if canary is None or list(canary.sides) != sides:
        return None
    return [canary.tallies.report(version) for version in canary.sides]
