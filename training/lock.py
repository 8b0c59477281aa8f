"""One training at a time: a kernel lock on a file, which is free again when its holder dies, however it dies."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from data.errors import WatchNextError
from data.home import Home


class AlreadyRunningError(WatchNextError):
    """Another process trains under this name."""


@contextmanager
def only_one(home: Home, name: str, command: str) -> Iterator[None]:
    """Hold ``locks/<name>``; what it says of its holder is for people, the lock itself is the kernel's.

    Raises:
        AlreadyRunningError: somebody holds it; the text says who. Nothing is waited for.
        WatchNextError: the file cannot be written, or what is done meanwhile meets a full or read-only disk.
    """
    path = home.root / "locks" / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise WatchNextError(f"cannot write {path}: {error.strerror}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise AlreadyRunningError(f"{_holder(path.read_text())} for {name!r}: this one leaves") from None
        with suppress(OSError):  # a full disk is somebody else's to report; the lock holds without the note
            file.truncate(0)
            since = datetime.now(UTC).isoformat(timespec="seconds")
            json.dump({"command": command, "pid": os.getpid(), "since": since}, file)
            file.flush()
        try:
            yield
        except OSError as error:
            where = error.filename or home.root
            raise WatchNextError(f"cannot read or write {where}: {error.strerror or error}") from error


def _holder(text: str) -> str:
    """Who holds the lock, as far as the note is whole."""
    try:
        note = json.loads(text)
        return f"`watchnext {note['command']}` (process {note['pid']}, since {note['since']}) is running"
    except (ValueError, KeyError, TypeError):
        return "another training is running"
