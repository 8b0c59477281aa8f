"""Folders that appear whole or not at all: written under a temporary name, synced, then renamed.

A temporary folder ``.tmp-<random>`` has a lock file beside it, held by the process that writes it. The kernel lets go
of the lock when that process dies, however it dies: a folder whose lock is free has been abandoned.
"""

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

PREFIX = ".tmp-"
SUFFIX = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's own lock, waiting for it: one process (or thread) at a time."""
    with (folder / SUFFIX).open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """A new temporary folder inside ``folder``, removed at the end unless it has been renamed.

    What killed processes left behind is removed first; what living ones are writing is left alone.
    """
    with ExitStack() as stack:
        with locked(folder):
            remove_abandoned(folder)
            temporary = folder / f"{PREFIX}{secrets.token_hex(8)}"
            lock = folder / f"{temporary.name}{SUFFIX}"
            owner = stack.enter_context(lock.open("xb"))
            stack.callback(lock.unlink, missing_ok=True)
            fcntl.flock(owner, fcntl.LOCK_EX)
            stack.callback(shutil.rmtree, temporary, ignore_errors=True)
            temporary.mkdir()
        yield temporary


def discard(folder: Path) -> None:
    """Remove a published folder: renamed first, so that no reader sees it half gone. The caller holds the parent's lock."""
    temporary = folder.with_name(f"{PREFIX}{secrets.token_hex(8)}")
    lock = temporary.with_name(f"{temporary.name}{SUFFIX}")
    with lock.open("xb") as owner:
        fcntl.flock(owner, fcntl.LOCK_EX)
        try:
            folder.rename(temporary)
            sync(folder.parent)
            shutil.rmtree(temporary)
        finally:
            lock.unlink(missing_ok=True)


def remove_abandoned(folder: Path) -> None:
    """Remove the temporary folders whose writers are dead. The caller holds the folder's lock."""
    for temporary in folder.glob(f"{PREFIX}*"):
        if temporary.name.endswith(SUFFIX):
            continue
        if not temporary.with_name(f"{temporary.name}{SUFFIX}").exists():
            shutil.rmtree(temporary, ignore_errors=True)
    for lock in folder.glob(f"{PREFIX}*{SUFFIX}"):
        with ExitStack() as stack:
            try:
                fcntl.flock(stack.enter_context(lock.open("ab")), fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue  # its writer lives
            shutil.rmtree(lock.with_name(lock.name.removesuffix(SUFFIX)), ignore_errors=True)
            lock.unlink(missing_ok=True)


def sync_tree(folder: Path) -> None:
    """Have every file and folder below ``folder``, and itself, on disk."""
    for parent, _folders, files in os.walk(folder, topdown=False):
        for name in files:
            sync(Path(parent) / name)
        sync(Path(parent))


def sync(path: Path) -> None:
    """Have a file's bytes, or a folder's entries, on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
