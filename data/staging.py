"""Publishing several files at once, so that a kill leaves the old ones or the new ones.

New files are written under ``logs/<dataset>/.staging`` and synced; then a journal of the renames is written; then they
are done. A kill before the journal changes nothing; after it, the next start finishes the renames. One process at a
time holds the dataset.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data.errors import LogError
from data.home import Home

JOURNAL = "journal.json"


class Staging:
    """New files of a dataset, not yet in place. Open it with :func:`open_staging`."""

    def __init__(self, home: Home, dataset: str) -> None:
        self.root = home.root
        self.folder = home.logs(dataset) / ".staging"
        self._moves: dict[str, None] = {}
        self._deletes: dict[str, None] = {}

    def new(self, target: Path) -> Path:
        """Where to write what will become ``target``."""
        name = str(target.relative_to(self.root))
        self._moves[name] = None
        self._deletes.pop(name, None)
        path = self.folder / "new" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def current(self, target: Path) -> Path:
        """``target`` as it will be: the staged one, or what is in place."""
        name = str(target.relative_to(self.root))
        return self.folder / "new" / name if name in self._moves else target

    def delete(self, target: Path) -> None:
        """Have ``target`` removed, unless a new one is written."""
        name = str(target.relative_to(self.root))
        if name not in self._moves:
            self._deletes[name] = None

    def scratch(self, name: str) -> Path:
        """A folder that never gets published."""
        path = self.folder / "scratch" / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def publish(self) -> None:
        """Put everything in place. From the moment the journal is there, it will be."""
        for name in self._moves:
            sync(self.folder / "new" / name)
        for folder in {(self.folder / "new" / name).parent for name in self._moves}:
            sync(folder)
        journal = self.folder / JOURNAL
        part = journal.with_suffix(".part")
        part.write_text(json.dumps({"moves": list(self._moves), "deletes": list(self._deletes)}))
        sync(part)
        part.rename(journal)
        sync(self.folder)
        self.finish()

    def finish(self) -> None:
        """Do what the journal says, as far as it isn't done; without one, forget the staged files."""
        journal = self.folder / JOURNAL
        if journal.is_file():
            todo = json.loads(journal.read_text())
            touched: set[Path] = set()
            for name in todo["moves"]:
                staged, target = self.folder / "new" / name, self.root / name
                if staged.exists():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    os.replace(staged, target)
                    touched.add(target.parent)
            for name in todo["deletes"]:
                target = self.root / name
                target.unlink(missing_ok=True)
                if target.parent.is_dir() and not any(target.parent.iterdir()):
                    target.parent.rmdir()
                touched.add(target.parent.parent)
            for folder in touched:
                sync(folder)
            journal.unlink()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def open_staging(home: Home, dataset: str) -> Iterator[Staging]:
    """Hold the dataset and clean up what a killed run left; afterwards forget what was not published.

    Raises:
        LogError: another process holds it, or the home can't be written.
    """
    folder = home.logs(dataset)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise LogError(f"cannot write to {folder}: {error.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise LogError(f"another ingest of dataset {dataset!r} is running in {home.root}") from None
        staging = Staging(home, dataset)
        staging.finish()
        try:
            yield staging
        except OSError as error:
            raise LogError(f"cannot read or write {error.filename or home.root}: {error.strerror or error}") from None
        finally:
            staging.finish()


def sync(path: Path) -> None:
    """fsync a file or a folder; a folder that is gone needs none."""
    if not path.exists():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
