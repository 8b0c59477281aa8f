"""A small product: users ask, are answered by a state of features and a live profile, and send events, late ones too."""

import heapq
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from data.config import Config
from data.database import database_url, open_database
from data.days import day_start
from data.features.layout import Block
from data.features.request import RequestEncoder
from data.features.state import FeatureState
from data.features.tables import EntityTable
from data.feedback.events import Event, Fate
from data.feedback.export import Exported, export_days
from data.feedback.served import Served, ServedItem
from data.feedback.store import Feedback
from data.home import Home
from data.log import list_days, read_day
from tests.small_log import FIRST_DAY, small_config, small_tables

HOUR = 3_600_000
SECOND = 1_000


def feedback_config(**changes: Any) -> Config:
    """:func:`tests.small_log.small_config` with windows of 1, 2 and 6 hours, and a rating of 40 that no feature reads."""
    base = small_config().model_dump(mode="json")
    objectives = [dict(objective) for objective in base["objectives"]]
    for objective, hours in zip(objectives, (1, 2, 6), strict=True):
        objective["window"] = hours * 3600.0
    objectives[2]["absent"] = 0.0
    rating = {"name": "rating", "family": "satisfaction", "label": "rating", "kind": "regression", "window": 40 * 3600.0}
    labels = {
        **base["labels"],
        "rating": {"type": "number", "aggregate": "last", "minimum": 1, "maximum": 5, "event": "stars"},
    }
    return small_config(**{"labels": labels, "objectives": [*objectives, rating], **changes})


class Clock:
    """Time that stands still until it is set."""

    def __init__(self, now: int) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


def start_of(config: Config, day: int) -> int:
    return day_start(FIRST_DAY + timedelta(days=day), config.timezone)


def slate(request_id: str, user: str, timestamp: int, videos: list[str], **more: Any) -> Served:
    items = [ServedItem(video, place, 1.0 - place / 10, {"click": 0.1}, ("topic",)) for place, video in enumerate(videos)]
    return Served(request_id, "small", user, timestamp, "recommend", items, **more)


@contextmanager
def opened(home: Path, config: Config, clock: Clock, **options: Any) -> Iterator[Feedback]:
    home.mkdir(parents=True, exist_ok=True)
    engine = open_database(database_url(Home(home), {}))
    feedback = Feedback(engine, lambda: config, clock, **options)
    try:
        yield feedback
    finally:
        feedback.close()
        engine.dispose()


def export(home: Path, config: Config, now: int) -> list[Exported]:
    return export_days(config, Home(home), now, Console(quiet=True))


def state_of(home: Path, config: Config, tables: Mapping[str, EntityTable]) -> FeatureState | None:
    """Fitted on the first exported day and advanced over them all."""
    days = list_days(Home(home), config.dataset)
    if not days:
        return None
    batches = [(day, read_day(Home(home), config, day)) for day in days]
    state = FeatureState.fit(config, tables, batches[:1])
    for day, batch in batches:
        state.advance(batch, day_start(day + timedelta(days=1), config.timezone))
    return state


@dataclass
class Answer:
    """What the features of a request were when it was answered, and at which boundary their state stood."""

    user: Block
    context: Block
    cross: Block  # of the items
    videos: list[str]
    boundary: int
    live: int  # rows of the profile


@dataclass
class World:
    """Runs ``days`` days; on each, in the morning, what is final is exported and the state learnt anew."""

    config: Config
    home: Path
    seed: int = 0
    days: int = 4
    requests: int = 30
    restarts: bool = True
    answers: dict[str, Answer] = field(default_factory=dict)
    fates: list[tuple[Event, int, Fate]] = field(default_factory=list)

    def run(self) -> "World":
        rng = np.random.default_rng(self.seed)
        self.tables = small_tables(self.seed)
        clock = Clock(start_of(self.config, 0))
        todo: list[tuple[int, int, str, Any]] = []
        for day in range(self.days):
            start = start_of(self.config, day)
            heapq.heappush(todo, (start + 7 * HOUR, len(todo), "learn", None))
            for time in rng.integers(0, 24 * HOUR, self.requests).tolist():
                heapq.heappush(todo, (start + time, len(todo), "ask", f"r{day}-{time}"))
        self.encoder: RequestEncoder | None = None
        waiting = todo
        while waiting:
            with opened(self.home, self.config, clock) as feedback:
                for _ in range(150 if self.restarts else 1 << 30):
                    if not waiting:
                        break
                    clock.now, number, what, which = heapq.heappop(waiting)
                    if what == "learn":
                        self._learn(clock.now)
                    elif what == "ask":
                        self._ask(feedback, which, rng, waiting, number)
                    else:
                        fate = feedback.accept(which)
                        self.fates += [(event, clock.now, fate) for event, fate in zip(which, fate, strict=True)]
        self.end = clock.now + 100 * HOUR
        export(self.home, self.config, self.end)
        return self

    def _learn(self, now: int) -> None:
        export(self.home, self.config, now)
        state = state_of(self.home, self.config, self.tables)
        self.encoder = None if state is None else RequestEncoder(state)

    def _ask(self, feedback: Feedback, request: str, rng: np.random.Generator, todo: list[Any], number: int) -> None:
        user = f"u{rng.integers(8)}"
        t = feedback.now()
        if rng.random() < 0.2:
            t -= int(rng.integers(1, 20 * 60 * SECOND))  # the caller's own time
        context = {"tab": None if rng.random() < 0.1 else str(rng.integers(3)), "battery": float(rng.random())}
        videos = [f"v{i}" for i in rng.choice(28, rng.integers(1, 6), replace=False)]
        own = rng.random() < 0.05
        if self.encoder is not None and not own:
            boundary = self.encoder.state.boundary
            profile = feedback.profile("small", user, boundary, t)
            features = self.encoder.request(user, context, t, profile)
            rows = np.array([self.encoder.video_row(video) for video in videos])
            if min(rows) >= 0:
                cross = self.encoder.cross(features, rows)
                live = 0 if profile is None else len(profile)
                self.answers[request] = Answer(features.user, features.context, cross, videos, boundary, live)
        feedback.log_served(slate(request, user, t, videos, context=context, rebuildable=not own))
        for time, events in self._react(request, user, t, videos, rng):
            heapq.heappush(todo, (max(time, t), number * 1000 + int(rng.integers(1000)) + 10**6, "tell", events))

    def _react(
        self, request: str, user: str, t: int, videos: list[str], rng: np.random.Generator
    ) -> Iterator[tuple[int, list[Event]]]:
        """Batches of events with their times: most soon, some just before or after a window closes, some repeated."""
        made: list[tuple[int, Event]] = []
        for place, video in enumerate(videos):
            if rng.random() < 0.3:
                continue
            delay = int(rng.choice([5 * SECOND, 40 * 60 * SECOND, HOUR, 2 * HOUR, 6 * HOUR, 6 * HOUR + 1, 39 * HOUR]))
            moment = t + (delay if rng.random() < 0.4 else int(rng.integers(0, 60 * SECOND)))
            kinds = [("view", None), ("click", None), ("watch", 5.5), ("watch", 31.25), ("like", 1.0), ("stars", 4.0)]
            for kind, (name, value) in enumerate(kinds):
                if rng.random() < (0.8, 0.5, 0.4, 0.3, 0.4, 0.2)[kind]:
                    moment += int(rng.integers(0, 3)) * int(rng.choice([0, SECOND, 30 * 60 * SECOND]))
                    skewed = moment + int(rng.integers(-HOUR, HOUR))
                    made.append((moment, Event(f"{request}/{place}/{kind}", request, video, name, value, skewed, user)))
        by_time: dict[int, list[Event]] = {}
        for moment, event in made:
            by_time.setdefault(moment, []).append(event)
            if rng.random() < 0.2:
                by_time.setdefault(moment + int(rng.integers(0, HOUR)), []).append(event)
        yield from by_time.items()


def exported_days(home: Path, config: Config) -> list[date]:
    return list_days(Home(home), config.dataset)
