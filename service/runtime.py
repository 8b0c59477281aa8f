"""What lives as long as the process, whichever bundle it serves."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, TypedDict

import sqlalchemy as sa

from data.config import Config
from data.database import database_url, open_database
from data.feedback.store import Feedback
from models.registry import Registry
from service.arms import Arms
from service.catalogue import LiveVideos
from service.clock import Clock, ReplayClock, now
from service.generators.gather import Gatherer
from service.keys import Keyring, KeyStore
from service.lane import Lane
from service.observability import Metrics
from service.poller import Poller
from service.serving import Slot
from service.settings import Settings

if TYPE_CHECKING:
    from service.inside import Inside
    from service.operations import Operations
    from service.peers import Peers

OpenFeedback = Callable[[sa.Engine, Callable[[], Config | None], Clock], Feedback]
"""Tests bring their own."""
LOOK_SECONDS = 5.0
"""How often the catalogue's tables and the experiments' files are looked at."""


@dataclass
class Runtime:
    """The threads of ``lane`` rank: hydrating, scoring and combining are CPU work of milliseconds, which on the event loop
    would hold up every other request and the health checks; where there is none, a quick one is ranked on it. There is about
    a thread a core, since more would only share the cores out; numpy and the scorer let go of the interpreter's lock while
    they compute."""

    settings: Settings
    metrics: Metrics
    blocked: frozenset[str]
    clock: Clock = now
    slot: Slot = field(default_factory=Slot)
    open_feedback: OpenFeedback = Feedback
    feedback: Feedback | None = field(default=None, init=False)  # these two from the moment that there is a database
    videos: LiveVideos | None = field(default=None, init=False)
    operations: "Operations" = field(init=False)  # given to it by the application
    peers: "Peers | None" = field(default=None, init=False)  # these two where it is one of several workers
    inside: "Inside | None" = field(default=None, init=False)
    together: bool = False

    def __post_init__(self) -> None:
        threads = self.settings.ranking_threads(self.together)
        self.lane = Lane(threads, self.settings.queue)
        self._connecting = Lock()
        self.keyring = Keyring(KeyStore(self.settings.home_folder()))
        self._key_poller = Poller("keys", self.keyring.refresh, self.settings.poll_seconds)
        self.registry = Registry(self.settings.home_folder())
        self.gatherer = Gatherer(threads, self.metrics)
        self.arms = Arms(self.settings.home_folder())

    def connect(self) -> None:
        """Open what stands in the database beside the champion: events, served slates, videos. Once is enough.

        Raises:
            DatabaseError: without it nothing can be served, since what was taken down isn't known.
        """
        with self._connecting:
            if self.feedback is not None:
                return
            home = self.settings.home_folder()
            home.root.mkdir(parents=True, exist_ok=True)
            engine = open_database(database_url(home))
            videos = LiveVideos(engine, self.clock)
            videos.load()
            self.feedback, self.videos = self.open_feedback(engine, self._config, self.clock), videos
            self._looking = Poller("videos and experiments", self._look_around, LOOK_SECONDS)
            self._looking.start()

    @property
    def judges(self) -> bool:
        """Whether this process decides if a canary is withdrawn."""
        return self.peers is None or self.peers.group.leads

    def take_over(self, video_ids: Sequence[str]) -> None:
        """See to it that what another worker has just changed of these videos holds here. Raises DatabaseError."""
        with self._connecting:  # while the tables are being read, nobody knows from before or after the change
            videos = self.videos
        if videos is not None:  # else they will be read
            videos.take_over(video_ids)

    def carry(self, timestamp: int | None) -> None:
        """Let a replay's clock know of a time that a request or an event carries."""
        if timestamp is not None and isinstance(self.clock, ReplayClock):
            self.clock.carry(timestamp)

    def time(self, timestamp: int | None = None) -> int:
        """The time of a request that is being answered now, ms; ``timestamp`` is its own."""
        self.carry(timestamp)
        return self.clock() if self.feedback is None else self.feedback.now()

    def _look_around(self) -> None:
        """What other processes, or people, changed."""
        if self.videos is not None:
            self.videos.look()
        if self.slot.current is not None:
            self.arms.reload(self.slot.current.name)

    def _config(self) -> Config | None:
        return None if self.slot.current is None else self.slot.current.config

    def open(self) -> None:
        """Read the keys and keep an eye on them. Blocks for the first read."""
        self.keyring.refresh()
        self._key_poller.start()

    def close(self) -> None:
        self.operations.close()
        self._key_poller.close()
        self._key_poller.join()
        self.keyring.close()
        self.lane.close()
        self.gatherer.close()
        if self.feedback is not None:
            self._looking.close()
            self._looking.join()
            self.feedback.close()


class State(TypedDict):
    """The application's lifespan state: ``request.state.runtime``."""

    runtime: Runtime
