"""What lives as long as the process, whichever bundle it serves."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from time import time
from typing import TypedDict

from models.registry import Registry
from service.generators.gather import Gatherer
from service.keys import Keyring, KeyStore
from service.lane import Lane
from service.observability import Metrics
from service.poller import Poller
from service.serving import Slot
from service.settings import Settings

Clock = Callable[[], int]


def now() -> int:
    """ms since the epoch."""
    return int(time() * 1000)


@dataclass
class Runtime:
    """``pool`` ranks: hydrating, scoring and combining are CPU work of milliseconds, which on the event loop would hold up
    every other request and the health checks. It has about a thread a core, since more would only share the cores
    out; numpy and the scorer let go of the interpreter's lock while they compute."""

    settings: Settings
    metrics: Metrics
    blocked: frozenset[str]
    clock: Clock = now
    slot: Slot = field(default_factory=Slot)

    def __post_init__(self) -> None:
        self.pool = ThreadPoolExecutor(self.settings.threads, thread_name_prefix="rank")
        self.lane = Lane(self.pool, self.settings.threads, self.settings.queue)
        self.keyring = Keyring(KeyStore(self.settings.home_folder()))
        self._key_poller = Poller("keys", self.keyring.refresh, self.settings.poll_seconds)
        self.registry = Registry(self.settings.home_folder())
        self.gatherer = Gatherer(self.settings.threads, self.metrics)

    def open(self) -> None:
        """Read the keys and keep an eye on them. Blocks for the first read."""
        self.keyring.refresh()
        self._key_poller.start()

    def close(self) -> None:
        self._key_poller.close()
        self._key_poller.join()
        self.keyring.close()
        self.pool.shutdown(wait=False, cancel_futures=True)
        self.gatherer.close()


class State(TypedDict):
    """The application's lifespan state: ``request.state.runtime``."""

    runtime: Runtime
