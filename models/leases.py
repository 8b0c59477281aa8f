"""Holding on to a published version: what any living process holds, the garbage collector leaves alone.

A lease is a shared lock on the version's folder itself, so that reading processes need no right to write. The kernel
lets go of it when the process dies, however it dies. Only :mod:`models.collect` asks for the lock alone.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data.errors import BundleError


class Lease:
    """Taken when made, given back by :meth:`release`, or with the last reference to it.

    Raises:
        BundleError: the folder is gone, or is being removed.
    """

    def __init__(self, folder: Path) -> None:
        self._descriptor = -1
        try:
            self._descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(self._descriptor, fcntl.LOCK_SH)
            still_there = os.path.samestat(os.stat(folder), os.fstat(self._descriptor))
        except OSError as error:
            self.release()
            raise BundleError(f"cannot open {folder}: {error.strerror}") from None
        if not still_there:
            self.release()
            raise BundleError(f"{folder} has been removed meanwhile")

    def release(self) -> None:
        """Twice is fine."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> "Lease":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __del__(self) -> None:
        self.release()


@contextmanager
def alone(folder: Path) -> Iterator[bool]:
    """Whether nobody holds the folder. If so, nobody can until the block ends."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)
