"""A look at something every so often, in a thread of its own."""

from collections.abc import Callable
from threading import Event, Thread

import structlog

log = structlog.get_logger()


class Poller:
    """Calls ``look`` every ``seconds`` until closed. A look that fails is logged, and the next one comes all the same."""

    def __init__(self, name: str, look: Callable[[], None], seconds: float) -> None:
        self._look, self._seconds = look, seconds
        self._closed = Event()
        self._thread = Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """No look begins after this; one that is under way may end later."""
        self._closed.set()

    def join(self, timeout: float | None = None) -> None:
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _run(self) -> None:
        while not self._closed.wait(self._seconds):
            try:
                self._look()
            except Exception:
                log.exception("a regular look failed", poller=self._thread.name)
