"""What time it is: the machine's, or that of a replayed log."""

from collections.abc import Callable
from threading import Lock
from time import time

Clock = Callable[[], int]


def now() -> int:
    """ms since the epoch."""
    return int(time() * 1000)


class ReplayClock:
    """The newest timestamp that a request or an event carried (0 until there is one), so that a log can be replayed faster
    than it was lived. For demos and tests, since any caller can move it."""

    def __init__(self) -> None:
        self._newest = 0
        self._lock = Lock()

    def __call__(self) -> int:
        return self._newest

    def carry(self, timestamp: int) -> None:
        """Move on to ``timestamp`` (ms); never back."""
        with self._lock:
            self._newest = max(self._newest, timestamp)
