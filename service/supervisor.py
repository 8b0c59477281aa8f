"""Several workers behind one address: the supervisor binds it, starts them, starts those that die again, and stops them."""

import errno
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any

import structlog

from data.errors import WatchNextError
from service.group import LEFT
from service.observability import configure_logs
from service.settings import Settings

log = structlog.get_logger()

ROOT = Path(__file__).resolve().parents[1]
BACKLOG = 2_048
LOOK = 0.1
FIRST_WAIT, LONGEST_WAIT, WELL = 0.5, 30.0, 60.0
"""Seconds before a worker is started again, doubled each time unless it lived well for so long."""
LONGEST_PATH = 90
"""A socket's path has at most 107 bytes."""


def serve(settings: Settings, host: str, port: int) -> None:
    """Answer until a signal comes, which is passed on and then taken as it would have been.

    Raises:
        WatchNextError: the address can't be had, or the workers refuse the settings.
    """
    if settings.replay_clock:
        raise WatchNextError("a replay's clock is one process's: set WATCHNEXT_WORKERS=1 with WATCHNEXT_REPLAY_CLOCK")
    configure_logs(settings.log_level)
    with _private_folder(settings.home_folder().root) as folder, _listening(host, port) as listening:
        log.info("listening", addresses=[one.getsockname()[:2] for one in listening], workers=settings.processes)
        caught = _Supervisor(settings, folder, listening).run()
    signal.raise_signal(caught)


@dataclass
class _Worker:
    index: int
    process: "subprocess.Popen[bytes] | None" = None
    started: float = 0.0
    wait: float = FIRST_WAIT
    due: float = field(default=0.0)


class _Supervisor:
    def __init__(self, settings: Settings, folder: Path, listening: Sequence[socket.socket]) -> None:
        self._settings, self._folder, self._listening = settings, folder, listening
        self._workers = [_Worker(index) for index in range(settings.processes)]
        self._life, self._held = os.pipe()  # the second end is nobody else's
        self._signals: list[int] = []
        self._wake = Event()

    def run(self) -> int:
        """Until a signal comes; returns it. A second one kills."""
        before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            while not self._signals:
                for worker in self._workers:
                    self._look_after(worker)
                self._wake.wait(LOOK)
            return self._signals[0]
        finally:
            self._stop()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, _: Any) -> None:
        self._signals.append(number)
        self._wake.set()

    def _look_after(self, worker: _Worker) -> None:
        if worker.process is not None and (code := worker.process.poll()) is not None:
            if code == LEFT:
                raise WatchNextError("a worker can't be started; its reason stands above")
            if monotonic() - worker.started > WELL:
                worker.wait = FIRST_WAIT
            log.error("a worker died", worker=worker.index, code=code, again_in=worker.wait)
            worker.process, worker.due = None, monotonic() + worker.wait
            worker.wait = min(LONGEST_WAIT, 2 * worker.wait)
        if worker.process is None and monotonic() >= worker.due:
            worker.process, worker.started = self._start(worker.index), monotonic()

    def _start(self, index: int) -> "subprocess.Popen[bytes]":
        listening = [one.fileno() for one in self._listening]
        words = (index, len(self._workers), self._folder, self._life, *listening)
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "service.worker", *map(str, words)],
            pass_fds=(self._life, *listening),
            env=self._environment(),
        )

    def _environment(self) -> dict[str, str]:
        """The settings as they stand; and where counts are shared, which must be known before anything is counted."""
        found = {"PROMETHEUS_MULTIPROC_DIR": str(self._folder), **os.environ}
        found["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        return found | ({"WATCHNEXT_NAME": self._settings.name} if self._settings.name else {})

    def _stop(self) -> None:
        """All at once; each writes what it has queued."""
        processes = [worker.process for worker in self._workers if worker.process is not None]
        for process in processes:
            process.terminate()
        asked = len(self._signals)
        while any(process.poll() is None for process in processes):
            if len(self._signals) > max(1, asked):
                for process in processes:
                    process.kill()
            self._wake.clear()
            self._wake.wait(LOOK)
        os.close(self._held)
        os.close(self._life)


@contextmanager
def _listening(host: str, port: int) -> Iterator[list[socket.socket]]:
    """On every address that the host's name has here, as uvicorn does."""
    with ExitStack() as stack:
        found: list[socket.socket] = []
        try:
            for family, _, _, _, address in dict.fromkeys(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)):
                try:
                    found.append(stack.enter_context(socket.create_server(address, family=family, backlog=BACKLOG)))
                except OSError as error:
                    if error.errno != errno.EADDRNOTAVAIL:
                        raise
        except OSError as error:
            raise WatchNextError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
        if not found:
            raise WatchNextError(f"cannot listen on {host}:{port}: this machine has no such address")
        yield found


@contextmanager
def _private_folder(home: Path) -> Iterator[Path]:
    """A new folder for this service alone. Those of killed ones are removed: nobody holds their lock."""
    home.mkdir(parents=True, exist_ok=True)
    for left in home.glob("workers-*"):
        with _locked(left) as free:
            if free:
                shutil.rmtree(left, ignore_errors=True)
    short = len(os.fsencode(home)) < LONGEST_PATH - len("/workers-12345678/00.sock")
    folder = Path(tempfile.mkdtemp(prefix="workers-", dir=home if short else None))  # mode 0700
    with _locked(folder):
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Whether the folder's lock was free; it is held until the block's end."""
    try:
        file = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        yield False
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(file)
