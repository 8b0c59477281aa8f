"""How many served slates a process took in: a number in a file that outlives a kill.

The number is written into a page that the kernel holds, so it costs no system call and a killed process leaves it as it
was. What the database knows of the process stands in the ``writers`` table; the difference was lost. The file is locked
while its process lives. (A power cut may lose the last second of the number too; then the loss is bounded by the queue.)
"""

import fcntl
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SIZE = 8


class Ledger:
    """The number of one process. Not for several threads at once."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        os.ftruncate(self._file, SIZE)
        self._page = mmap.mmap(self._file, SIZE)
        self.count = 0

    def add(self) -> None:
        """One more."""
        self.count += 1
        self._page[:] = self.count.to_bytes(SIZE, "little")

    def remove(self) -> None:
        """The process ends well: nothing is to be looked up."""
        self._page.close()
        self.path.unlink(missing_ok=True)
        os.close(self._file)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """No other process is in such a block of this folder."""
    file = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


@contextmanager
def left_behind(path: Path) -> Iterator[int | None]:
    """The number that a dead process left, removed at the end; None where the process lives."""
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        yield None
        return
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        yield int.from_bytes(os.read(file, SIZE), "little")
        path.unlink(missing_ok=True)
    finally:
        os.close(file)
