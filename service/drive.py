"""Simulated users at a real server: a product's days over HTTP, and what its slates were worth."""

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Any

import numpy as np
import orjson
import sqlalchemy as sa
from numpy.typing import NDArray

from data.database import database_url, open_database, reading
from data.errors import WatchNextError
from data.feedback import schema
from data.home import Home
from data.simulator.audience import Audience, Reaction, Visit
from data.simulator.settings import DEVICES
from data.simulator.utility import DISMISSAL_COST, utility, worth
from data.simulator.world import World
from service.trial import get, post

SETTINGS = {
    "WATCHNEXT_REPLAY_CLOCK": "1",
    "WATCHNEXT_DEADLINE_MS": "60000",
    "WATCHNEXT_RATE_LIMIT": "0",
    "WATCHNEXT_POLL_SECONDS": "0.2",
    "WATCHNEXT_LOG_LEVEL": "warning",
}
"""Of a server that lives faster than the clock."""
CLIENTS = 4
AT_ONCE = 1_000
SWAPPED_WITHIN = 120.0
STRENGTH = 20.0
"""A video's click rate is smoothed towards that of all by so many impressions."""

EARNS = {"watched": 0.0, "dismiss": -DISMISSAL_COST}
"""What an event without a value is worth; a watch has its share."""

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Asked:
    """A visit, the slate that it got, and by whom."""

    visit: Visit
    request_id: str
    videos: tuple[int, ...]
    model_version: int


@dataclass(frozen=True)
class Judged:
    """The true utility of a request's slate, and of the same candidates by popularity, by ratings and by the truth."""

    visit: Visit
    model_version: int
    candidates: int
    served: float
    popularity: float
    rated: float
    oracle: float


class Popularity:
    """What the log says of every video up to the last night, whoever watched."""

    def __init__(self, videos: int) -> None:
        self._views, self._clicks, self._earned = np.zeros((3, videos))

    def add(self, views: Ints, clicks: Ints, videos: Ints, earned: Sequence[float] | NDArray[Any]) -> None:
        """Take in the videos that were seen, those that were clicked, and what else videos earned: the share watched of
        each watch, less DISMISSAL_COST for each dismissal."""
        self._views += np.bincount(views, minlength=len(self._views))
        self._clicks += np.bincount(clicks, minlength=len(self._clicks))
        self._earned += np.bincount(videos, earned, len(self._earned))

    def rates(self) -> NDArray[np.float64]:
        """Clicks per impression [V], smoothed; of a video that nobody saw the mean of all."""
        return self._smoothed(self._clicks)

    def ratings(self) -> NDArray[np.float64]:
        """What a video earned per impression, likewise: the truth's worth, as far as it is the same for everybody."""
        return self._smoothed(self._earned)

    def _smoothed(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        mean = sums.sum() / max(self._views.sum(), 1.0)
        return np.asarray((sums + STRENGTH * mean) / (self._views + STRENGTH))


class Product:
    """What a product does with the service at ``address``, whose files are in ``home``.

    Args:
        popularity: of the days before; goes on counting.
        uploaded_until: ms; videos uploaded before are known to the service.
    """

    def __init__(self, address: str, home: Home, world: World, popularity: Popularity, uploaded_until: int) -> None:
        self._address, self._world = address, world
        self._audience, self._popularity = Audience(world), popularity
        self._engine = open_database(database_url(home))
        self._next_video = int(np.searchsorted(world.videos.upload, uploaded_until))
        self._events = 0
        self.fates: Counter[str] = Counter()

    def live(self, day: int) -> list[Judged]:
        """A day: new videos as they come, requests and what the users do, tick by tick; then its judgement."""
        asked: list[Asked] = []
        seen: dict[str, list[int]] = {"view": [], "click": []}
        earned: list[tuple[int, float]] = []
        watching: dict[int, int] = {}
        with ThreadPoolExecutor(CLIENTS) as clients:
            for visits in filter(None, self._audience.visits(day)):
                self._upload(visits[0].timestamp)
                slates = list(clients.map(lambda visit: self._ask(visit, watching.get(visit.sitting)), visits))
                events = []
                for slate in slates:
                    for reaction in self._audience.react(slate.visit, slate.videos):
                        events.append(self._event(slate, reaction))
                        if reaction.type in seen:
                            seen[reaction.type].append(slate.videos[reaction.position])
                        if reaction.type == "click":
                            watching[slate.visit.sitting] = slate.videos[reaction.position]
                        if reaction.type in EARNS:
                            worth_of = EARNS[reaction.type] if reaction.value is None else reaction.value
                            earned.append((slate.videos[reaction.position], worth_of))
                self._tell(events)
                asked += slates
        judged = judge(self._world, asked, self._candidates(asked), self._popularity)
        views, clicks, videos = (np.array(rows, np.int64) for rows in (*seen.values(), [video for video, _ in earned]))
        self._popularity.add(views, clicks, videos, [value for _, value in earned])
        self._audience.sleep()
        return judged

    def wait_for(self, version: int) -> None:
        """Until the service answers with this version.

        Raises:
            WatchNextError: it doesn't in time.
        """
        until = monotonic() + SWAPPED_WITHIN
        while (serving := get(f"{self._address}/v1/models")["serving"]) != version:
            if monotonic() > until:
                raise WatchNextError(f"expected the service to answer with version {version}, it still does with {serving}")
            sleep(0.1)

    def _ask(self, visit: Visit, watching: int | None) -> Asked:
        body = {
            "user_id": f"u{visit.user}",
            "context": {"device": DEVICES[visit.device]},
            "query_video_id": None if watching is None else f"v{watching}",
            "timestamp": visit.timestamp,
            "limit": self._world.settings.slate,
        }
        answer = post(f"{self._address}/v1/recommend", body)
        videos = tuple(int(item["video_id"][1:]) for item in answer["items"])
        return Asked(visit, answer["request_id"], videos, answer["model_version"])

    def _event(self, slate: Asked, reaction: Reaction) -> dict[str, Any]:
        self._events += 1
        event: dict[str, Any] = {"event_id": f"e{self._events}", "request_id": slate.request_id, "type": reaction.type}
        event |= {"video_id": f"v{slate.videos[reaction.position]}", "timestamp": reaction.timestamp}
        return event if reaction.value is None else {**event, "value": reaction.value}

    def _tell(self, events: Sequence[Mapping[str, Any]]) -> None:
        for first in range(0, len(events), AT_ONCE):
            answer = post(f"{self._address}/v1/events", {"events": events[first : first + AT_ONCE]})
            self.fates.update(fate["status"] for fate in answer["events"])

    def _upload(self, now: int) -> None:
        """Bring the videos that were uploaded up to now (ms)."""
        videos, first = self._world.videos, self._next_video
        self._next_video = int(np.searchsorted(videos.upload, now, side="right"))
        bodies = [self._video(row) for row in range(first, self._next_video)]
        if bodies:
            post(f"{self._address}/v1/videos", {"videos": bodies})

    def _video(self, row: int) -> dict[str, Any]:
        videos = self._world.videos
        topics = [int(topic) for topic in (videos.topic[row], videos.second_topic[row]) if topic >= 0]
        columns = {
            "author_id": f"a{videos.author[row]}",
            "topic": f"topic{topics[0]}",
            "topics": [f"topic{topic}" for topic in topics],
            "duration": float(videos.duration[row]),
        }
        return {"video_id": f"v{row}", "columns": columns, "valid_from": int(videos.upload[row])}

    def _candidates(self, asked: Sequence[Asked]) -> dict[str, Ints]:
        """What stood for choice in each request, from the log."""
        times = [slate.visit.timestamp for slate in asked]
        wanted = sa.select(schema.served.c.request_id, schema.served.c.candidates).where(
            schema.served.c.timestamp.between(min(times, default=0), max(times, default=-1)),
            schema.served.c.candidates.is_not(None),
        )
        with reading(self._engine) as connection:
            return {
                row.request_id: np.array([int(name[1:]) for name in orjson.loads(row.candidates)["video_ids"]], np.int64)
                for row in connection.execute(wanted)
            }


def judge(world: World, asked: Sequence[Asked], candidates: Mapping[str, Ints], popularity: Popularity) -> list[Judged]:
    """The true utility of the slates whose candidates are known, beside the best by popularity, ratings and the truth."""
    known = [slate for slate in asked if slate.request_id in candidates and slate.videos]
    if not known:
        return []
    lists = [candidates[slate.request_id] for slate in known]
    sizes = [len(videos) for videos in lists]
    user, time, device = (
        np.repeat([getattr(slate.visit, name) for slate in known], sizes) for name in ("user", "timestamp", "device")
    )
    worths = np.split(worth(world, user, np.concatenate(lists), time, device), np.cumsum(sizes)[:-1])
    orders = popularity.rates(), popularity.ratings()
    return [_judged(world, *one, orders) for one in zip(known, lists, worths, strict=True)]


def _judged(world: World, slate: Asked, videos: Ints, worths: Any, orders: Sequence[NDArray[np.float64]]) -> Judged:
    of_video, device, slots = dict(zip(videos.tolist(), worths.tolist(), strict=True)), slate.visit.device, len(slate.videos)
    served = [of_video[video] for video in slate.videos]
    others = [worths[np.lexsort((videos, -order[videos]))][:slots] for order in orders]
    figures = (utility(world, values, device) for values in (served, *others, np.sort(worths)[::-1][:slots]))
    return Judged(slate.visit, slate.model_version, len(videos), *figures)
