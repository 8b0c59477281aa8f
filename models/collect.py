"""Garbage collection of the registry: old versions go, what anybody may still need stays.

A version is removed while its folder is locked alone, after a last look at who needs it: it gets a temporary name with a
lock beside it, as what is being published has. Killed at any point, the collector leaves a version whole, or such a
folder, which the next publisher or collector removes.
"""

import logging
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

from data.errors import BundleError
from data.experiments import load_experiments
from models.bundle import read_manifest
from models.leases import alone
from models.registry import Registry
from models.rollouts import Rollouts
from models.staging import discard, locked, remove_abandoned

logger = logging.getLogger(__name__)


@dataclass
class Collection:
    """What was removed (in a dry run: would be), and why each of the others was not."""

    removed: list[int] = field(default_factory=list)
    kept: dict[int, str] = field(default_factory=dict)


def collect(registry: Registry, name: str, keep: int, dry_run: bool = False) -> Collection:
    """Remove all but the ``keep`` versions published last and those that are needed.

    Raises:
        BundleError: ``keep`` is under 1, or a folder can't be removed.
        DatabaseError: nobody can say what is needed; nothing is removed.
    """
    if keep < 1:
        raise BundleError(f"expected to keep at least 1 version, got {keep}")
    folder = registry.folder_of_all(name)
    if not folder.is_dir():
        return Collection()
    try:
        return _collect(registry, name, keep, dry_run)
    except OSError as error:
        raise BundleError(f"cannot collect in {folder}: {error.strerror}") from None


def _collect(registry: Registry, name: str, keep: int, dry_run: bool) -> Collection:
    result, folder = Collection(), registry.folder_of_all(name)
    with locked(folder):
        if not dry_run:
            remove_abandoned(folder)
        newest = dict.fromkeys(_newest_first(registry, name)[:keep], "among the newest")
        newest = _with_origins(registry, name, newest)
        for version in registry.versions(name):
            reason = needed(registry, name).get(version) or newest.get(version)
            reason = reason or _remove(registry, name, version, dry_run)
            if reason is None:
                result.removed.append(version)
            else:
                result.kept[version] = reason
    return result


def needed(registry: Registry, name: str) -> dict[int, str]:
    """The versions that must stay, each with its reasons.

    Raises:
        WatchNextError: the database, or an experiment's file, can't be read.
    """
    reasons: dict[int, str] = {}
    for version, reason in _needs(registry, name):
        reasons[version] = f"{reasons[version]}, {reason}" if version in reasons else reason
    return _with_origins(registry, name, reasons)


def _needs(registry: Registry, name: str) -> list[tuple[int, str]]:
    """Who needs which version, a pair for each reason."""
    rollouts, pointer = Rollouts(registry), registry.pointer(name)
    found = [] if pointer is None else [(pointer.version, "champion"), (pointer.previous, "previous")]
    found += [(version, "pinned") for version in rollouts.pinned(name)]
    found += [(rollout.version, kind) for kind, rollout in rollouts.find(name).items() if rollout.running]
    experiments = load_experiments(registry.home.root / "experiments", name)
    found += [(arm.bundle, "experiment") for e in experiments for arm in e.arms]
    return [(version, reason) for version, reason in found if version is not None]


def live_from(registry: Registry, name: str) -> date | None:
    """The first day whose served rows a live profile of some version that serves, or may be gone back to, still reads: the
    day after the last that its own state knows. None where there is no such version.

    Raises:
        WatchNextError: the database, or an experiment's file, can't be read.
    """
    serving = [version for version, reason in _needs(registry, name) if reason != "pinned"]
    days = [datetime.strptime(str(version // 100), "%Y%m%d").date() for version in serving]
    return min(days) + timedelta(days=1) if days else None


def _with_origins(registry: Registry, name: str, reasons: dict[int, str]) -> dict[int, str]:
    """Those too whose weights a refreshed version has: training goes on from there."""
    origins: dict[int, str] = {}
    for version in reasons:
        with suppress(BundleError):
            origin = read_manifest(registry.folder_of(name, version)).refreshed_from
            if origin is not None:
                origins[origin] = f"refreshed as {version}"
    return origins | reasons


def _remove(registry: Registry, name: str, version: int, dry_run: bool) -> str | None:
    """Remove a version; if it can't be, say why not."""
    folder = registry.folder_of(name, version)
    with alone(folder) as free:
        if not free:
            return "in use"
        # Who needs it says so while holding it: nobody can begin to now.
        if (reason := needed(registry, name).get(version)) is not None:
            return reason
        if not dry_run:
            registry.retire(name, version)
            discard(folder)
            logger.info("bundle_collected", extra={"bundle": name, "version": version})
        return None


def _newest_first(registry: Registry, name: str) -> list[int]:
    """The readable versions, the last published first. A damaged one is not worth one of the places."""
    found = []
    for version in registry.versions(name):
        with suppress(BundleError):
            found.append((read_manifest(registry.folder_of(name, version)).created_at, version))
    return [version for _, version in sorted(found, reverse=True)]
