"""A day of the world: who sits down when, what is shown in each request, and what becomes of it."""

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from data.simulator.entities import DAY_MS, Floats, Ints
from data.simulator.exploration import fill_slots
from data.simulator.policy import NONE, Policy, Requests
from data.simulator.preferences import DayTastes, Preferences
from data.simulator.settings import DEVICES, Purpose, stream

CHUNK = 4_096
"""Sittings that are worked out together. Part of a world's identity, as the streams are drawn per chunk."""
_SCROLL_MS, _REQUEST_MS = 700, 30_000


@dataclass(frozen=True)
class Rows:
    """Impressions [n], in order of time. Entities are rows of :class:`Users` and :class:`Videos`."""

    user: Ints
    video: Ints
    timestamp: Ints  # ms
    request: Ints  # numbered from 0 within the day
    query: Ints  # NONE: none
    position: Ints
    propensity: NDArray[np.float64]
    is_exploration: NDArray[np.bool_]
    device: Ints
    click: Floats  # 0 or 1
    watch_time: Floats  # seconds, 0 without a click
    like: Floats
    follow: Floats
    dismiss: Floats

    def __len__(self) -> int:
        return len(self.user)

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> "Rows":
        return Rows(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    @classmethod
    def concatenate(cls, parts: "list[Rows]") -> "Rows":
        return cls(**{field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)})


@dataclass(frozen=True)
class Slate:
    """Some requests of a day with everything that stood for choice: for judging what was not shown."""

    requests: Requests  # [R]
    number: Ints  # [R] of the request within the day
    uniform: NDArray[np.bool_]  # [R] explores in every slot
    candidates: Ints  # [R, C], NONE where a duplicate was
    rows: Rows  # [R * S]


@dataclass(frozen=True)
class Sittings:
    """Sittings [n] in order of time, and how many requests each has."""

    user: Ints
    start: Ints  # ms
    requests: Ints
    device: Ints
    first: Ints  # the number of its first request


def draw_sittings(preferences: Preferences, day: int, requests: int) -> Sittings:
    """Sittings with ``requests`` requests together, by the users' activity and hours, after they signed up."""
    settings, users = preferences.settings, preferences.users
    rng = stream(preferences.seed, Purpose.SESSIONS, day)
    size = rng.integers(1, settings.session + 1, requests)
    size = size[: int(np.searchsorted(np.cumsum(size), requests)) + 1]
    size[-1] -= size.sum() - requests
    midnight = preferences.start + day * DAY_MS
    activity = np.cumsum(users.activity[: np.searchsorted(users.signup, midnight + DAY_MS)])
    user = np.searchsorted(activity, rng.random(len(size)) * activity[-1]).astype(np.int64)
    hour = (users.hour[user] + 3 * rng.standard_normal(len(size))) % 24
    last = midnight + DAY_MS - settings.session * _REQUEST_MS
    start = np.minimum(midnight + (hour * 3_600_000).astype(np.int64), last - 1)
    signup = users.signup[user]
    start = np.where(start <= signup, signup + 1 + (rng.random(len(size)) * (last - signup - 1)).astype(np.int64), start)
    device = np.where(rng.random(len(size)) < 0.75, users.device[user], rng.integers(0, len(DEVICES), len(size)))
    order = np.argsort(start, kind="stable")
    size = size[order]
    return Sittings(user[order], start[order], size, device[order], np.cumsum(size) - size)


def slates_of_day(preferences: Preferences, day: int, requests: int) -> Iterator[list[Slate]]:
    """The day's requests in chunks of sittings: per chunk the first requests of all, the second ones, ..."""
    if requests == 0:
        return
    sittings = draw_sittings(preferences, day, requests)
    policy, tastes = Policy(preferences, day), preferences.day(day)
    for chunk, first in enumerate(range(0, len(sittings.user), CHUNK)):
        rows = slice(first, first + CHUNK)
        part = Sittings(*(getattr(sittings, field.name)[rows] for field in fields(Sittings)))
        yield _chunk(preferences, policy, tastes, part, day, chunk)


def _chunk(
    preferences: Preferences, policy: Policy, tastes: DayTastes, sittings: Sittings, day: int, chunk: int
) -> list[Slate]:
    settings, seed = preferences.settings, preferences.seed
    streams = [stream(seed, p, day, chunk) for p in (Purpose.CANDIDATES, Purpose.SLOTS, Purpose.OUTCOMES)]
    end = preferences.start + (day + 1) * DAY_MS
    timestamp, query = sittings.start, np.full(len(sittings.user), NONE, np.int64)
    slates = []
    for step in range(int(sittings.requests.max())):
        on = sittings.requests > step
        requests = Requests(sittings.user[on], timestamp[on], sittings.device[on], query[on])
        slate = _serve(preferences, policy, tastes, requests, sittings.first[on] + step, *streams)
        slates.append(slate)
        shape = (len(requests.user), settings.slate)
        watched = slate.rows.watch_time.reshape(shape)
        last = settings.slate - 1 - (watched > 0)[:, ::-1].argmax(axis=1)
        video = slate.rows.video.reshape(shape)[np.arange(shape[0]), last]
        query, timestamp = query.copy(), timestamp.copy()
        query[on] = np.where((watched > 0).any(axis=1), video, requests.query)
        took = _REQUEST_MS // 2 + (watched.sum(axis=1, dtype=np.float64) * 1000).astype(np.int64)
        timestamp[on] = np.minimum(requests.timestamp + took, end - (sittings.requests[on] - step - 1) * _REQUEST_MS)
    return slates


def _serve(
    preferences: Preferences,
    policy: Policy,
    tastes: DayTastes,
    requests: Requests,
    number: Ints,
    of_candidates: np.random.Generator,
    of_slots: np.random.Generator,
    of_outcomes: np.random.Generator,
) -> Slate:
    """Candidates, ranking, exploration, outcomes."""
    settings = preferences.settings
    candidates = policy.candidates(requests, of_candidates)
    score = policy.score(requests, candidates, of_slots)
    uniform = of_slots.random(len(candidates)) < settings.uniform_requests
    explore = np.where(uniform, 1.0, settings.explore)
    shown = fill_slots(candidates, score, explore, settings.slate, of_slots)
    position = np.tile(np.arange(settings.slate), len(candidates))
    user, timestamp, device, query, request = (
        np.repeat(values, settings.slate)
        for values in (requests.user, requests.timestamp, requests.device, requests.query, number)
    )
    timestamp = timestamp + position * _SCROLL_MS
    video = shown.video.ravel()
    click, satisfied = preferences.logits(tastes, user, video, device, timestamp % DAY_MS // 3_600_000)
    true = preferences.outcomes(click, satisfied, video)
    seen = of_outcomes.random(len(video), np.float32) < preferences.examination(position, device)
    clicked = seen & (of_outcomes.random(len(video), np.float32) < true["click"])
    spread = of_outcomes.standard_gamma(2.0, len(video), np.float32) / 2
    liked, followed, dismissed = of_outcomes.random((3, len(video)), np.float32)
    rows = Rows(
        user, video, timestamp, request, query, position,
        shown.propensity.ravel(), shown.is_exploration.ravel(), device,
        click=clicked.astype(np.float32),
        watch_time=np.where(clicked, np.maximum(np.round(true["watch_time"] * spread, 2), 0.01), 0).astype(np.float32),
        like=(clicked & (liked < true["like"])).astype(np.float32),
        follow=(clicked & (followed < true["follow"])).astype(np.float32),
        dismiss=(seen & (dismissed < np.where(clicked, true["dismiss"], true["dismiss_unclicked"]))).astype(np.float32),
    )  # fmt: skip
    return Slate(requests, number, uniform, candidates, rows)


def merge(slates: list[Slate]) -> Rows:
    """The impressions of a chunk, in order of (time, request, position)."""
    rows = Rows.concatenate([slate.rows for slate in slates])
    return rows.take(np.lexsort((rows.position, rows.request, rows.timestamp)))
