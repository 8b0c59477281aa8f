"""Yesterday's counts without training: what is known of videos advanced to the newest final day, the weights as they are."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import structlog

from data.columns import Batch
from data.config import Config
from data.days import day_of, day_start, days_of
from data.features.state import FeatureState
from data.feedback.batches import provisional
from data.feedback.catalogue import bring_tables
from data.home import Home
from data.log import list_days, read_day
from models.bundle import CONFIG, EXTRA, MANIFEST, Bundle
from models.registry import Registry
from training.calibration_rows import ROWS
from training.days import read_tables
from training.learner import WAITING, Learner
from training.lock import only_one
from training.plan import digest, trained
from training.publish import RUN_FILE, published_by, write_counts
from training.quarantine import Quarantine

log = structlog.get_logger()

REPLACED = ("state", "counts", "catalogue", "users", "generators", WAITING, ROWS, RUN_FILE)
"""What of a bundle a refresh makes anew, or leaves out: rows that wait for their labels, and those that calibration was
fitted on, stay with the trained one."""


def refresh(config: Config, home: Home, now: int) -> int | None:
    """Publish and promote the champion with the counts of this morning; None where it knows them already.

    Days in quarantine are passed over, days that nobody has judged are taken as good.

    Args:
        now: the time, ms.

    Raises:
        BundleError: there is no champion, or it cannot be published.
        AlreadyRunningError: a training of this name is at work; it refreshes too.
    """
    with only_one(home, config.name, "refresh"):
        held = {day for day, judged in Quarantine(home, config.name).days().items() if judged.status == "quarantined"}
        return refresh_champion(config, home, [day for day in list_days(home, config.dataset) if day not in held], now)


def refresh_champion(config: Config, home: Home, days: Sequence[date], now: int) -> int | None:
    """The same, with the final days to go by, in order; the caller holds the lock.

    From the bundle that was trained, so that a day held back now leaves no trace of an earlier refresh: features take in
    the final days since, and what was served after them as far as it is settled by the start of today. No gate is asked:
    the weights are the champion's. New ids are counted, yet keep the learnt default, as the network has no rows for them.
    What a rollback goes back to stays.
    """
    registry = Registry(home)
    champion = registry.open(config.name)
    origin = trained(registry, champion)
    bring_tables(config, home)
    learner = Learner.from_bundle(origin, origin.config, read_tables(home, config))
    later_days = [day for day in days if _end(day, config) > learner.state.boundary]
    until = max([learner.state.boundary, *(_end(day, config) for day in later_days)])
    today = day_start(day_of(now, config.timezone), config.timezone)
    later = _settled(registry, config, home, days, until, today)
    if not _is_newer(champion, until, today if len(later) else 0):
        return None
    rows = [(str(day), digest(home, config, day)) for day in later_days]
    content = ["refresh", origin.version, rows, today if len(later) else None]
    key = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
    version = published_by(home, config.name, key)
    if version is None:
        for day in later_days:
            learner.take_in(day, read_day(home, origin.config, day), admit=False)
        if len(later):
            learner.state.roll(later, today)
        version = _publish(registry, origin, learner, key)
    if registry.champion(config.name) != champion.version:
        log.warning("refresh_left_out", reason="another version was promoted meanwhile", version=version)
        return None
    registry.promote(config.name, version, keep_previous=True)
    return version


def _end(day: date, config: Config) -> int:
    return day_start(day + timedelta(days=1), config.timezone)


def _settled(registry: Registry, config: Config, home: Home, days: Sequence[date], since: int, today: int) -> Batch:
    """What was served from ``since`` to the start of today, as known by then, without final days that are held back."""
    rows = provisional(registry.engine, config, since, today) if today > since else Batch({})
    held = [day for day in list_days(home, config.dataset) if day not in days]
    if not len(rows) or not held:
        return rows
    found, place = days_of(rows.numbers("timestamp").astype(np.int64), config.timezone)
    return rows.take(~np.isin(place, [i for i, day in enumerate(found) if day in held]))


def _is_newer(champion: Bundle, until: int, rolled: int) -> bool:
    """Whether the champion's counts are older than these."""
    state = FeatureState.load(champion.state, champion.config)
    known = max([state.boundary, *(totals.boundary for totals in state.knowledge.totals.values())])
    return until > state.boundary or rolled > known


def _publish(registry: Registry, origin: Bundle, learner: Learner, key: str) -> int:
    """Publish the trained bundle with the learner's counts; the version is named after the last day that they know whole."""
    manifest = origin.manifest
    until = day_of(learner.state.boundary - 1, origin.config.timezone)
    return registry.publish(
        origin.name,
        until,
        lambda folder: _write(folder, origin, learner, key),
        config=origin.config,
        first_day=manifest.window.first_day,
        reference_means=manifest.reference_means,
        utilisation=manifest.utilisation,
        window_end=manifest.window.last_day,
        refreshed_from=origin.version,
    )


def _write(folder: Path, origin: Bundle, learner: Learner, key: str) -> None:
    extra = folder / EXTRA
    for name in origin.manifest.files:
        if name != CONFIG and not name.startswith(tuple(f"{EXTRA}/{part}" for part in REPLACED)) and name != MANIFEST:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(origin.folder / name, folder / name)
    learner.state.save(extra / "state")
    learner.indexes.save(extra / "counts")
    write_counts(extra, learner)
    (extra / RUN_FILE).write_text(json.dumps({"key": key}))
