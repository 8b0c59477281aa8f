"""What goes on beside the answers: recent requests remembered, shadow and canary fed, the champion watched."""

from collections import deque
from collections.abc import Callable, Iterable
from itertools import cycle
from typing import TYPE_CHECKING

import structlog

from service.poller import Poller
from service.tallies import Outcome
from service.watcher import VersionLoader, Watcher

if TYPE_CHECKING:
    from service.inputs import Query
    from service.pipeline import Slate
    from service.runtime import Runtime
    from service.serving import Serving

log = structlog.get_logger()

RECENT = 32
"""Requests that a new bundle is warmed with."""
EVERY = 32
"""Once there are so many, one of so many takes the place of the oldest: whoever remembers every request has the ids of the
next one written to memory that no cache holds, and lets go of as many others."""
LONGEST = 200
"""Of a remembered request's history and exclusions: longer ones are not worth the memory."""


class Operations:
    """Everything here is cheap for the request that calls it, and never fails it."""

    def __init__(self, runtime: "Runtime") -> None:
        self._runtime = runtime
        self._recent: deque[Query] = deque(maxlen=RECENT)
        self._turn = cycle(range(EVERY))
        self._poller: Poller | None = None
        self._watcher: Watcher | None = None
        self._closed = False

    def begin(self, load_version: VersionLoader, restart: Callable[[], None]) -> None:
        """Watch the champion from now on. ``restart`` tries to begin anew while nothing is served."""
        self._watcher = Watcher(self._runtime, load_version, restart, lambda: list(self._recent))
        self._poller = Poller("watcher", self._watcher.look, self._runtime.settings.poll_seconds)
        if not self._closed:
            self._poller.start()

    def answered(self, slate: "Slate", serving: "Serving", seconds: float) -> None:
        """``serving`` made ``slate`` in ``seconds``."""
        query, slot = slate.query, self._runtime.slot
        try:
            wanted = len(self._recent) < RECENT or not next(self._turn)
            if wanted and len(query.history_videos) <= LONGEST >= len(query.exclude):
                self._recent.append(query)
            if (canary := slot.canary) is not None:
                canary.tallies.answered(slate, serving, seconds)
            if (shadow := slot.shadow) is not None and slate.version != shadow.rollout.version:
                shadow.offer(slate, seconds)
        except Exception:
            log.exception("what follows an answer failed")

    def failed(self, version: int) -> None:
        """``version`` failed to answer."""
        if (canary := self._runtime.slot.canary) is not None:
            canary.tallies.failed(version)

    def events(self, events: Iterable[Outcome]) -> None:
        """Events that were accepted, each for the first time."""
        if (canary := self._runtime.slot.canary) is not None:
            canary.tallies.events(events)

    def close(self) -> None:
        """A look that is under way may go on for as long as a bundle takes to load."""
        self._closed = True
        if self._poller is not None:
            self._poller.close()
            self._poller.join(60)
        if self._watcher is not None:
            self._watcher.close()
        if (shadow := self._runtime.slot.shadow) is not None:
            shadow.close()
