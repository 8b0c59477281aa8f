"""The registry: the published versions of each bundle name, and which of them is the champion.

Versions are folders ``<home>/registry/<name>/<version>/`` and never change; the champion is one row of the database.
A version is ``<last training day as yyyymmdd><two digits>``, so it grows from day to day, as TensorFlow Serving wants.
"""

import logging
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path

import sqlalchemy as sa

from data.config import Config
from data.database import champions, database_url, open_database, reading, upsert, writing
from data.errors import BundleError
from data.home import Home
from models.bundle import (
    CONFIG,
    EXTRA,
    Bundle,
    Manifest,
    Window,
    digest_files,
    installed_libraries,
    read_bundle,
    read_manifest,
    spec_hash,
    write_json,
    write_manifest,
)
from models.leases import Lease
from models.staging import locked, staging, sync, sync_tree

logger = logging.getLogger(__name__)

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_VERSION = re.compile(r"[1-9][0-9]{9}")
RETIRED = ".retired"
"""The end of the name of the empty file that a collected version leaves, so that its number is not given away again."""


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Champion:
    """The champion of a name, and the one before it."""

    version: int
    previous: int | None
    promoted_at: datetime


class Registry:
    """The bundles of a home.

    Args:
        home: Where the folders are.
        url: The database with the champions; default: as :func:`data.database.database_url` says.
        clock: Tells the time (aware).
    """

    def __init__(self, home: Home, url: str | None = None, clock: Callable[[], datetime] = _now) -> None:
        self._home = home
        self._url = url or database_url(home)
        self._clock = clock

    def publish(
        self,
        name: str,
        day: date,
        write: Callable[[Path], None],
        *,
        config: Config,
        first_day: date,
        reference_means: Mapping[str, float | None],
        utilisation: Mapping[str, Sequence[float]],
        window_end: date | None = None,
        refreshed_from: int | None = None,
    ) -> int:
        """Publish a bundle and return its version. Publishing does not promote.

        ``write(folder)`` fills the folder; configuration and manifest are added here. Until everything is written,
        hashed and on disk, the folder has a temporary name and no reader sees it. Killed at any point, it leaves at
        most such a folder, which the next call removes. Several processes may publish at once.

        Args:
            day: The last day trained on, or taken into the features of a refreshed bundle: the version is named after it.
            first_day: The first.
            reference_means: Per objective, its mean in the training data.
            utilisation: Per objective, the mean gate weight of each expert.
            window_end: The last day trained on, where it isn't ``day``.
            refreshed_from: The version whose weights these are.

        Raises:
            BundleError: the disk is full or read-only, the day has 99 versions, or what was written is no bundle.
        """
        folder = self._folder(name)
        if config.name != name:
            raise BundleError(f"cannot publish under {name!r}: the configuration's name is {config.name!r}")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with staging(folder) as temporary:
                write(temporary)
                (temporary / EXTRA).mkdir(exist_ok=True)
                write_json(temporary / CONFIG, config.model_dump(mode="json"))
                files = digest_files(temporary)
                sync_tree(temporary)
                with locked(folder):
                    version = self._next_version(name, day)
                    manifest = Manifest(
                        format=1,
                        name=name,
                        version=version,
                        created_at=self._after_all(name),
                        window=Window(first_day=first_day, last_day=window_end or day),
                        seed=config.seed,
                        libraries=installed_libraries(),
                        objectives=config.objective_names,
                        spec=spec_hash(config),
                        reference_means={k: _finite(mean) for k, mean in reference_means.items()},
                        utilisation={k: tuple(float(u) for u in weights) for k, weights in utilisation.items()},
                        files=files,
                        refreshed_from=refreshed_from,
                    )
                    write_manifest(temporary, manifest)
                    sync_tree(temporary / EXTRA)
                    temporary.rename(folder / str(version))
                    sync(folder)
        except OSError as error:
            raise BundleError(f"cannot publish {name!r} in {folder}: {error}") from error
        logger.info("bundle_published", extra={"bundle": name, "version": version, "files": len(files)})
        return version

    def versions(self, name: str) -> list[int]:
        """The published versions, in increasing order."""
        folder = self._folder(name)
        try:
            entries = [entry for entry in folder.iterdir() if _VERSION.fullmatch(entry.name)]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise BundleError(f"cannot list {folder}: {error.strerror}") from None
        return sorted(int(entry.name) for entry in entries if entry.is_dir() and not entry.is_symlink())

    def newest(self, name: str) -> int | None:
        """The version published last, or None. Versions whose manifest cannot be read are passed over."""
        published = self._published(name)
        return published[-1].version if published else None

    def open(self, name: str, version: int | None = None, verify: bool = True) -> Bundle:
        """Open a version (default: the champion), comparing every file with its checksum unless told not to.

        Raises:
            BundleError: there is none, or it is damaged or of another specification; the text names the file.
        """
        if version is None:
            champion = self.champion(name)
            if champion is None:
                raise BundleError(f"{name!r} has no champion yet: train it first")
            version = champion
        return read_bundle(self.folder_of(name, version), name, version, verify)

    def champion(self, name: str) -> int | None:
        """The version that serves, or None."""
        pointer = self.pointer(name)
        return pointer.version if pointer else None

    def pointer(self, name: str) -> Champion | None:
        """The champion with its predecessor, or None.

        Raises:
            DatabaseError: the database cannot be read.
        """
        self._folder(name)
        with reading(self.engine) as connection:
            row = connection.execute(sa.select(champions).where(champions.c.name == name)).one_or_none()
        if row is None:
            return None
        return Champion(row.version, row.previous, datetime.fromtimestamp(row.promoted_at / 1000, UTC))

    def promote(self, name: str, version: int, keep_previous: bool = False) -> None:
        """Make a version the champion, in one transaction that remembers the one before.

        Args:
            keep_previous: the same weights with newer counts take over: what a rollback goes back to stays.

        Raises:
            BundleError: the version is missing or damaged; the champion stays.
            DatabaseError: the database cannot be written; the champion stays.
        """
        insert = upsert(self.engine, champions).values(name=name, version=version, promoted_at=_milliseconds(self._clock()))
        changed = champions.c.version != insert.excluded.version
        statement = insert.on_conflict_do_update(
            index_elements=[champions.c.name],
            set_={
                "version": insert.excluded.version,
                "previous": champions.c.previous
                if keep_previous
                else sa.case((changed, champions.c.version), else_=champions.c.previous),
                "promoted_at": sa.case((changed, insert.excluded.promoted_at), else_=champions.c.promoted_at),
            },
        )
        with self._checked(name, version, "not promoted"), writing(self.engine) as connection:
            connection.execute(statement)
        logger.info("bundle_promoted", extra={"bundle": name, "version": version})

    def rollback(self, name: str, expected: int | None = None) -> Champion:
        """Make the champion before the champion again, in one transaction; a second rollback undoes the first.

        Args:
            expected: roll back only if this is the champion, so that two who mean the same don't undo each other.

        Raises:
            BundleError: there is no champion before, it is missing or damaged, or the champion is not the expected one,
                or changed meanwhile; the champion stays.
            DatabaseError: the database cannot be written; the champion stays.
        """
        pointer = self.pointer(name)
        if pointer is None or pointer.previous is None:
            raise BundleError(f"not rolled back: {name!r} has had no champion before this one")
        if expected not in (None, pointer.version):
            raise BundleError(f"not rolled back: the champion is {pointer.version}, not {expected}")
        back = Champion(pointer.previous, pointer.version, self._clock())
        values = {"version": back.version, "previous": back.previous, "promoted_at": _milliseconds(back.promoted_at)}
        same = sa.and_(*(champions.c[key] == getattr(pointer, key) for key in ("version", "previous")))
        statement = sa.update(champions).where(champions.c.name == name, same).values(**values)
        with self._checked(name, back.version, "not rolled back"), writing(self.engine) as connection:
            if not connection.execute(statement).rowcount:
                raise BundleError("not rolled back: the champion has changed meanwhile")
        logger.info("bundle_rolled_back", extra={"bundle": name, "version": back.version, "from": pointer.version})
        return back

    @contextmanager
    def _checked(self, name: str, version: int, otherwise: str) -> Iterator[None]:
        """The version is whole, and is not collected while this block runs."""
        try:
            lease = self.hold(name, version)
            self.open(name, version)
        except BundleError as error:
            raise BundleError(f"{otherwise}: {error}") from None
        with lease:
            yield

    def hold(self, name: str, version: int) -> Lease:
        """Keep a version from being collected for as long as this process lives and has the lease."""
        return Lease(self.folder_of(name, version))

    def open_serving(self, name: str) -> Bundle:
        """Open the champion; if it is refused, the last good one: the previous champion, else the newest valid version
        published before the champion's promotion, else the newest valid one. What was refused is logged with its reason.

        Raises:
            BundleError: there is no champion, or no version is valid.
        """
        pointer = self.pointer(name)
        if pointer is None:
            raise BundleError(f"{name!r} has no champion yet: train it first")
        reasons: list[str] = []
        for version in self._serving_order(name, pointer):
            try:
                bundle = self.open(name, version)
            except BundleError as error:
                reasons.append(str(error))
                logger.warning("bundle_refused", extra={"bundle": name, "version": version, "reason": str(error)})
                continue
            if reasons:
                instead = {"bundle": name, "champion": pointer.version, "version": version, "reason": reasons[0]}
                logger.warning("bundle_fallback", extra=instead)
            return bundle
        raise BundleError(f"no bundle of {name!r} can be served: {'; '.join(reasons)}")

    def _serving_order(self, name: str, pointer: Champion) -> list[int]:
        # What was published after the promotion has never been promoted: it may have failed its gate.
        published = sorted(self._published(name), key=lambda m: (m.created_at <= pointer.promoted_at, m.created_at))
        champions_first = [version for version in (pointer.version, pointer.previous) if version is not None]
        return list(dict.fromkeys([*champions_first, *(manifest.version for manifest in reversed(published))]))

    def _published(self, name: str) -> list[Manifest]:
        """The readable manifests in the order of publishing."""
        found = []
        for version in self.versions(name):
            try:
                manifest = read_manifest(self._version_folder(name, version))
            except BundleError as error:
                logger.warning("bundle_refused", extra={"bundle": name, "version": version, "reason": str(error)})
                continue
            if (manifest.name, manifest.version) == (name, version):
                found.append(manifest)
        return sorted(found, key=lambda manifest: (manifest.created_at, manifest.version))

    def _next_version(self, name: str, day: date) -> int:
        """One more than the day's last, from 01."""
        first = int(f"{day:%Y%m%d}") * 100
        retired = [int(path.name[:10]) for path in self._folder(name).glob(f"{'[0-9]' * 10}{RETIRED}")]
        version = max([first, *(v for v in [*self.versions(name), *retired] if first <= v < first + 100)]) + 1
        if version > first + 99:
            raise BundleError(f"{name!r} already has version {version - 1}: a day has at most 99 versions")
        return version

    def _after_all(self, name: str) -> datetime:
        """Now, or just after the version published last should the clock have been set back."""
        published = self._published(name)
        now = self._clock()
        return max(now, published[-1].created_at + timedelta(microseconds=1)) if published else now

    def _folder(self, name: str) -> Path:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise BundleError(f"expected a bundle's name (small letters, digits, _; at most 64), got {name!r}")
        return self._home.registry(name)

    def _version_folder(self, name: str, version: int) -> Path:
        if not isinstance(version, int) or not _VERSION.fullmatch(str(version)):
            raise BundleError(f"expected a version as yyyymmdd and two digits, got {version!r}")
        return self._folder(name) / str(version)

    @property
    def home(self) -> Home:
        return self._home

    def folder_of_all(self, name: str) -> Path:
        """Where a name's versions are. Raises BundleError where it is no name."""
        return self._folder(name)

    def folder_of(self, name: str, version: int) -> Path:
        """A published version's folder. Raises BundleError where there is none."""
        folder = self._version_folder(name, version)
        if not folder.is_dir() or folder.is_symlink():
            there = ", ".join(map(str, self.versions(name))) or "none"
            raise BundleError(f"there is no bundle {name!r} {version} in {folder.parent}; there are: {there}")
        return folder

    def retire(self, name: str, version: int) -> None:
        """Never give this version's number to another bundle."""
        (self._folder(name) / f"{version}{RETIRED}").touch()

    def now(self) -> int:
        """ms since the epoch."""
        return _milliseconds(self._clock())

    @cached_property
    def engine(self) -> sa.Engine:
        return open_database(self._url)


def _finite(mean: float | None) -> float | None:
    return None if mean is None or not math.isfinite(mean) else float(mean)


def _milliseconds(time: datetime) -> int:
    return int(time.timestamp() * 1000)
