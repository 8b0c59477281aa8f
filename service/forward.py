"""Every request goes to the worker that it is for: a user's to the one that has the user, a change of the catalogue to the
lead, a batch of events to all whose users it is about."""

import asyncio
from collections.abc import Sequence
from time import perf_counter
from typing import Any

import orjson
import structlog
from pydantic import ValidationError
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from data.errors import WatchNextError
from service.batch_split import part_of, put_in, rounds
from service.body_limit import replay
from service.events_api import Events
from service.group import LEAD, Group
from service.guard import RANKING, READS
from service.inside import Reply, question
from service.peers import PeerAway
from service.problems import Problem
from service.runtime import Runtime
from service.shards import shard_in, shard_of
from service.strict_json import read

log = structlog.get_logger()

EVENTS, VIDEOS = "/v1/events", "/v1/videos"
GRACE = 0.5
"""Seconds beyond the deadline, by which the worker that has the user answers itself."""
WAITING = 90.0
"""Seconds for what waits for the disk: longer than that worker waits itself."""


class Forward:
    """Stands behind the guard and the limit of the body, before the endpoints. Where a worker is away 503 is answered: no
    other may answer for its users, since it would not know what they did."""

    def __init__(self, app: ASGIApp, group: Group) -> None:
        self.app, self._group = app, group

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in READS:
            return await self.app(scope, receive, send)
        message = await receive()  # the whole body, which its limit has put together; else its sender has gone
        scope["state"]["begun"], body = perf_counter(), message.get("body", b"")
        try:
            reply = await self._elsewhere(scope, body, scope["state"]["runtime"])
        except Problem as problem:
            return await problem.response()(scope, receive, send)
        if reply is None:
            return await self.app(scope, replay([message], receive), send)
        scope["state"] |= {"request_id": reply.request_id, "route": reply.route}
        structlog.contextvars.bind_contextvars(request_id=reply.request_id)
        await send({"type": "http.response.start", "status": reply.status, "headers": list(reply.headers)})
        await send({"type": "http.response.body", "body": reply.body})

    async def _elsewhere(self, scope: Scope, body: bytes, runtime: Runtime) -> Reply | None:
        """What another worker answered; None where the request is this one's, or so wrong that any may say so."""
        path = scope["path"]
        if path in RANKING:
            user_id = user_in(body)
            owner = self._group.index if user_id is None else self._group.owner_of(user_id)
            if owner == self._group.index:
                runtime.lane.check()
                return None
            return await _handed(owner, scope, body, runtime, runtime.settings.deadline_ms / 1e3 + GRACE)
        if path.startswith(VIDEOS) and self._group.index != LEAD:
            return await _handed(LEAD, scope, body, runtime)
        return await self._events(scope, body, runtime) if path == EVENTS else None

    async def _events(self, scope: Scope, body: bytes, runtime: Runtime) -> Reply | None:
        events = events_in(body)
        if events is None or runtime.feedback is None:
            return None
        owners = await self._owners([event["request_id"] for event in events], runtime)
        if len(set(owners)) == 1:
            return None if owners[0] == self._group.index else await _handed(owners[0], scope, body, runtime)
        try:
            Events.model_validate({"events": events})  # as a whole: of a malformed batch nothing is taken in
        except ValidationError:
            return None
        return await self._split(scope, events, owners, runtime)

    async def _owners(self, request_ids: Sequence[str], runtime: Runtime) -> list[int]:
        """Of each request. An id that doesn't say whose it is (from before there were shards, or invented) is looked up;
        where it is nobody's, it has one worker all the same, so that a batch that is sent again meets who knows it."""
        shards = {request_id: shard_in(request_id) for request_id in request_ids}
        silent = [request_id for request_id, shard in shards.items() if shard is None]
        if silent:
            assert runtime.feedback is not None
            try:
                users = await asyncio.to_thread(runtime.feedback.users_of, silent)
            except WatchNextError as error:
                log.error("events not accepted", events=len(request_ids), reason=str(error))
                raise Problem(
                    503, "nothing of the batch was accepted: send it again", headers={"retry-after": "1"}
                ) from None
            shards |= {request_id: shard_of(users.get(request_id, request_id)) for request_id in silent}
        return [self._group.owner(shards[request_id] or 0) for request_id in request_ids]

    async def _split(self, scope: Scope, events: Sequence[Any], owners: Sequence[int], runtime: Runtime) -> Reply:
        fates: list[Any] = [None] * len(events)
        for parts in rounds(owners, [event["event_id"] for event in events]):
            asked = [_told(owner, scope, part_of(events, places), runtime) for owner, places in parts]
            replies = await asyncio.gather(*asked)
            refused = [reply for reply in replies if reply.status != 202]
            if len(refused) == len(replies) and not any(fates):
                return refused[0]  # nothing of the batch was accepted
            if refused:
                detail = "a part of the batch was not accepted: send all of it again, what was accepted counts once"
                raise Problem(503, detail, headers={"retry-after": "1"})
            for (_, places), reply in zip(parts, replies, strict=True):
                put_in(fates, places, reply.body)
        answer = Response(orjson.dumps({"events": fates}), 202, media_type="application/json")
        return Reply(202, answer.raw_headers, bytes(answer.body), scope["state"]["request_id"], EVENTS)


async def _handed(owner: int, scope: Scope, body: bytes, runtime: Runtime, seconds: float = WAITING) -> Reply:
    """What ``owner`` answers, which may be this worker. Raises Problem where it doesn't."""
    peers, inside = runtime.peers, runtime.inside
    assert peers is not None
    assert inside is not None
    frame = question(scope, body)
    if owner == peers.group.index:
        return await inside.reply(frame)
    try:
        return Reply.of(await peers.ask(owner, frame, seconds))
    except PeerAway as away:
        detail = "the process that has this is starting again" if away.gone else "the process that has this gave no answer"
        raise Problem(503, detail, headers={"retry-after": "1"}) from None


async def _told(owner: int, scope: Scope, body: bytes, runtime: Runtime) -> Reply:
    """:func:`_handed`, where a worker that is away has answered 503."""
    try:
        return await _handed(owner, scope, body, runtime)
    except Problem as problem:
        answer = problem.response()
        return Reply(problem.status, answer.raw_headers, bytes(answer.body), scope["state"]["request_id"], EVENTS)


def user_in(body: bytes) -> str | None:
    """The user of a ranking request, as the endpoint will read it; None where it will refuse the request."""
    found = _object_in(body)
    return as_id(found.get("user_id")) if found is not None else None


def events_in(body: bytes) -> list[Any] | None:
    """The events of a batch, their ids as texts; None where the endpoint will refuse it."""
    found = (_object_in(body) or {}).get("events")
    if not isinstance(found, list) or not found:
        return None
    events = []
    for event in found:
        if not isinstance(event, dict):
            return None
        ids = {name: as_id(event.get(name)) for name in ("event_id", "request_id", "video_id")}
        if None in ids.values():
            return None
        events.append({**event, **ids})
    return events


def as_id(value: Any) -> str | None:
    """As :data:`service.schemas.Id` reads it."""
    return str(value) if type(value) is int else value if isinstance(value, str) else None


def _object_in(body: bytes) -> dict[str, Any] | None:
    try:
        found = read(body)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
