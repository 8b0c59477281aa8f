"""Yesterday's counts without training: what is known of videos advanced to the newest final day, the weights as they are."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

import structlog

from data.columns import Batch
from data.config import Config
from data.days import day_of, day_start
from data.feedback.batches import provisional
from data.feedback.catalogue import bring_tables
from data.home import Home
from data.log import list_days, read_day
from models.bundle import CONFIG, EXTRA, MANIFEST, Bundle
from models.registry import Registry
from training.days import read_tables
from training.learner import WAITING, Learner
from training.lock import only_one
from training.plan import digest
from training.publish import RUN_FILE, published_by, write_counts
from training.quarantine import Quarantine

log = structlog.get_logger()

REPLACED = ("state", "counts", "catalogue", "generators", WAITING, RUN_FILE)
"""What of a bundle a refresh makes anew, or leaves out: rows that wait for their labels stay with the trained one."""


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

    Features take in the final days; what was served since then counts as far as it is settled by the start of today. No
    gate is asked: the weights are the champion's. New ids are counted, yet keep the learnt default, as the network has no
    rows for them. What a rollback goes back to stays.
    """
    registry = Registry(home)
    champion = registry.open(config.name)
    bring_tables(config, home)
    learner = Learner.from_bundle(champion, champion.config, read_tables(home, config))
    new = [day for day in days if day_start(day + timedelta(days=1), config.timezone) > learner.state.boundary]
    until = day_start(new[-1] + timedelta(days=1), config.timezone) if new else learner.state.boundary
    today = day_start(day_of(now, config.timezone), config.timezone)
    known = max([learner.state.boundary, *(totals.boundary for totals in learner.state.knowledge.totals.values())])
    later = provisional(registry.engine, config, until, today) if today > known else Batch({})
    if not new and not len(later):
        return None
    rows = [(str(day), digest(home, config, day)) for day in new]
    content = ["refresh", champion.version, rows, today if len(later) else None]
    key = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
    version = published_by(home, config.name, key)
    if version is None:
        for day in new:
            learner.take_in(day, read_day(home, champion.config, day), admit=False)
        if len(later):
            learner.state.roll(later, today)
        version = _publish(registry, champion, learner, key)
    if registry.champion(config.name) != champion.version:
        log.warning("refresh_left_out", reason="another version was promoted meanwhile", version=version)
        return None
    registry.promote(config.name, version, keep_previous=True)
    return version


def _publish(registry: Registry, champion: Bundle, learner: Learner, key: str) -> int:
    """Publish the champion with the learner's counts; the version is named after the last day that they know whole."""
    manifest = champion.manifest
    until = day_of(learner.state.boundary - 1, champion.config.timezone)
    return registry.publish(
        champion.name,
        until,
        lambda folder: _write(folder, champion, learner, key),
        config=champion.config,
        first_day=manifest.window.first_day,
        reference_means=manifest.reference_means,
        utilisation=manifest.utilisation,
        window_end=manifest.window.last_day,
        refreshed_from=manifest.refreshed_from or champion.version,
    )


def _write(folder: Path, champion: Bundle, learner: Learner, key: str) -> None:
    extra = folder / EXTRA
    for name in champion.manifest.files:
        if name != CONFIG and not name.startswith(tuple(f"{EXTRA}/{part}" for part in REPLACED)) and name != MANIFEST:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(champion.folder / name, folder / name)
    learner.state.save(extra / "state")
    learner.indexes.save(extra / "counts")
    write_counts(extra, learner)
    (extra / RUN_FILE).write_text(json.dumps({"key": key}))
