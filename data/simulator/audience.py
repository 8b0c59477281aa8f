"""Users who answer: who comes when, and what they do with the slate that they are given.

Everything follows from the world's seed and from what was served. Two products that serve the same world meet the same
visits, with the same luck, but for those that a user who lost interest leaves out. A user's willingness w is 1 at first;
each dismissal takes the share LAPSE of it, each night brings back the share RECOVERY of what is missing, and a sitting takes
place with probability w.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from data.simulator.entities import DAY_MS, Ints
from data.simulator.preferences import DayTastes
from data.simulator.settings import Purpose, stream
from data.simulator.sittings import draw_sittings
from data.simulator.world import World

TICK_MS = 600_000
"""Requests of one tick are asked together and answered, by the users, before the next: a user asks once in each."""
FIRST_TICK, TICKS = 6, 144
"""Nobody watches before one in the morning, when the night's work is done."""
LAPSE, RECOVERY = 0.1, 0.2
_SCROLL_MS = 700


@dataclass(frozen=True)
class Visit:
    """A request that a user makes. ``number`` tells it from the day's others, whatever is served."""

    day: int
    number: int
    sitting: int
    user: int
    device: int
    timestamp: int  # ms


@dataclass(frozen=True)
class Reaction:
    """What a user did with the video at a place of the slate: ``view``, ``click``, ``watched`` (the share, in ``value``),
    ``like``, ``follow`` or ``dismiss``."""

    position: int
    type: str
    timestamp: int  # ms
    value: float | None = None


class Audience:
    """The users of a world. Ask for the days in order, and call :meth:`sleep` after each."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._tastes: tuple[int, DayTastes] = (-1, world.preferences.day(0))
        self.willingness = np.ones(world.settings.users)

    def visits(self, day: int) -> list[list[Visit]]:
        """The day's requests, tick by tick; a sitting's follow each other."""
        world = self._world
        drawn = draw_sittings(world.preferences, day, world.requests_on(day))
        comes = stream(world.seed, Purpose.VISITS, day).random(len(drawn.user)) < self.willingness[drawn.user]
        midnight = world.start + day * DAY_MS
        hours = (drawn.start - midnight) / DAY_MS
        begins = FIRST_TICK + (hours * (TICKS - FIRST_TICK - world.settings.session)).astype(np.int64)
        ticks: list[list[Visit]] = [[] for _ in range(TICKS)]
        free_from: dict[int, int] = {}
        for sitting in np.flatnonzero(comes).tolist():
            user, tick = int(drawn.user[sitting]), int(begins[sitting])
            tick = max(tick, free_from.get(user, 0))
            for step in range(int(drawn.requests[sitting])):
                if tick + step < TICKS:
                    number, time = int(drawn.first[sitting]) + step, midnight + (tick + step) * TICK_MS
                    ticks[tick + step].append(Visit(day, number, sitting, user, int(drawn.device[sitting]), time))
            free_from[user] = tick + int(drawn.requests[sitting])
        return ticks

    def react(self, visit: Visit, videos: Sequence[int] | Ints) -> list[Reaction]:
        """What the user does with a slate (rows of the world's videos, from the top), in the order of time."""
        places = np.arange(len(videos))
        rows, devices = np.asarray(videos, np.int64), np.full(len(videos), visit.device)
        rng = stream(self._world.seed, Purpose.REACTIONS, visit.day, visit.number)
        lots = rng.random((5, self._world.settings.slate))[:, : len(rows)]
        spread = rng.standard_gamma(2.0, self._world.settings.slate)[: len(rows)] / 2
        preferences = self._world.preferences
        hours = np.full(len(rows), visit.timestamp % DAY_MS // 3_600_000)
        users = np.full(len(rows), visit.user)
        click, satisfied = preferences.logits(self._tastes_on(visit.day), users, rows, devices, hours)
        true = preferences.outcomes(click, satisfied, rows)
        seen = lots[0] < preferences.examination(places, devices)
        clicked = seen & (lots[1] < true["click"])
        dismissed = seen & (lots[2] < np.where(clicked, true["dismiss"], true["dismiss_unclicked"]))
        watched = np.maximum(true["watch_time"] / self._world.videos.duration[rows] * spread, 0.001).round(3)
        liked, followed = clicked & (lots[3] < true["like"]), clicked & (lots[4] < true["follow"])
        self.willingness[visit.user] *= (1 - LAPSE) ** int(dismissed.sum())
        told = {"click": clicked, "like": liked, "follow": followed, "dismiss": dismissed}
        return list(_reactions(visit.timestamp, seen, told, watched))

    def sleep(self) -> None:
        """A night passes."""
        self.willingness += RECOVERY * (1 - self.willingness)

    def _tastes_on(self, day: int) -> DayTastes:
        if self._tastes[0] != day:
            self._tastes = day, self._world.preferences.day(day)
        return self._tastes[1]


def _reactions(time: int, seen: np.ndarray, told: dict[str, np.ndarray], watched: np.ndarray) -> Iterator[Reaction]:
    for position in np.flatnonzero(seen).tolist():
        at = time + 1 + position * _SCROLL_MS
        yield Reaction(position, "view", at)
        for type_, happened in told.items():
            if happened[position]:
                yield Reaction(position, type_, at)
                if type_ == "click":
                    yield Reaction(position, "watched", at, float(watched[position]))
