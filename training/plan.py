"""Which days a run trains on, and what it starts from."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from operator import attrgetter

import numpy as np
import structlog

from data.config import Config
from data.errors import ConfigError, LogError
from data.home import Home
from data.log import ROWS_FILE, list_days, read_day
from models.bundle import Bundle
from models.registry import Registry
from training.learner import WAITING
from training.waiting import OpenLabels, Waiting, closes_before, open_labels

log = structlog.get_logger()


@dataclass(frozen=True)
class Plan:
    """The days of a run in order; the bundle that it warm-starts from, if any; and a key that tells runs apart."""

    days: tuple[date, ...]
    start: Bundle | None
    skipped: tuple[date, ...]  # between the bundle's window and the first new day: seen by features, not trained on
    key: str
    open_labels: OpenLabels = field(default_factory=dict)  # of the days
    closing: tuple[tuple[date, frozenset[str]], ...] = ()  # earlier days, and what of theirs is now known

    @property
    def first_day(self) -> date:
        return self.start.manifest.window.first_day if self.start else self.days[0]


def plan_run(config: Config, home: Home, since: date | None, until: date | None, fresh: bool) -> Plan:
    """Choose the days in [since, until] and the start.

    The start is what :func:`start_of` says, if its window ends before the first new day (``since``, or without it the
    first day after that window). Else, or with ``fresh``, there is none.

    Raises:
        LogError: there are no logs, a day of the range has no rows, or there is nothing new to train on.
        ConfigError: a binary objective has one class only over all days of a fresh run.
    """
    there = list_days(home, config.dataset)
    if not there:
        raise LogError(
            f"no logs for dataset {config.dataset!r} in {home.logs(config.dataset)}: run `watchnext ingest` first"
        )
    start = None if fresh else start_of(config, Registry(home))
    last = until or there[-1]
    if start and since and start.manifest.window.last_day >= since:
        start = None
    after = start.manifest.window.last_day + timedelta(days=1) if start else there[0]
    days = days_between(
        there, since or after, last, config.dataset, f"; bundle {start.version} covers {last}" if start else ""
    )
    skipped = [day for day in there if start and after <= day < days[0]]
    return plan_days(config, home, days, start, skipped)


def plan_days(
    config: Config,
    home: Home,
    days: Sequence[date],
    start: Bundle | None,
    skipped: Sequence[date] = (),
    judged: date | None = None,
) -> Plan:
    """The plan of training on these days.

    Args:
        judged: the day that the result will be judged on; what became known on it isn't learnt from.

    Raises:
        ConfigError: a binary objective has one class only over all days of a fresh run.
    """
    if start is None:
        _check_classes(config, home, days)
    still_open = open_labels(home, config)
    closing = tuple(_closing(config, home, start, still_open, judged)) if start else ()
    ours = {day: labels for day, labels in still_open.items() if day in days}
    masks = [[str(day), sorted(labels)] for day, labels in [*ours.items(), *closing]]
    read = sorted({*skipped, *days, *(day for day, _ in closing)})
    key = run_key(config, home, read, start.version if start else None, masks)
    return Plan(tuple(days), start, tuple(skipped), key, ours, closing)


def _closing(
    config: Config, home: Home, start: Bundle, still_open: OpenLabels, judged: date | None
) -> Iterator[tuple[date, frozenset[str]]]:
    """The days that the start waits for, each with the labels that are known by now."""
    there = set(list_days(home, config.dataset))
    for folder in sorted((start.extra / WAITING).glob("day=*")):
        kept = Waiting.load(folder)
        known = kept.open_labels - still_open.get(kept.day, frozenset())
        known = frozenset(label for label in known if closes_before(label, kept.day, judged, config))
        if known and kept.day in there:
            yield kept.day, known


def days_between(there: list[date], first: date, last: date, dataset: str, hint: str = "") -> list[date]:
    """All days from ``first`` to ``last``, each of which must have rows."""
    covered = f"dataset {dataset!r} has days {there[0]} to {there[-1]}" if there else f"dataset {dataset!r} has no logs"
    if first > last:
        raise LogError(f"nothing to do from {first} to {last}: {covered}{hint}")
    days = [first + timedelta(days=i) for i in range((last - first).days + 1)]
    empty = [str(day) for day in days if day not in there]
    if empty:
        raise LogError(f"no rows on {', '.join(empty[:5])}{' ...' if len(empty) > 5 else ''}: {covered}")
    return days


def start_of(config: Config, registry: Registry) -> Bundle | None:
    """The bundle to go on from: the champion, else the newest; as it was trained, if this configuration can go on with it.

    Not the newest as such: it may have failed its gate, or have been rolled back from.
    """
    version = registry.champion(config.name) or registry.newest(config.name)
    if version is None:
        return None
    bundle = trained(registry, registry.open(config.name, version))
    return bundle if can_go_on(bundle, config) else None


def trained(registry: Registry, bundle: Bundle) -> Bundle:
    """The bundle that was trained: of a refreshed one that of which it has the weights, else itself.

    Raises:
        BundleError: it is not there any more.
    """
    origin = bundle.manifest.refreshed_from
    return bundle if origin is None else registry.open(bundle.name, origin)


def can_go_on(bundle: Bundle, config: Config) -> bool:
    """Whether a network of this configuration can go on learning from the bundle's state; if not, the log says why."""
    changed = differences(bundle.config, config)
    if changed:
        reason = f"bundle {bundle.version} was made with other {', '.join(changed)}: learning starts anew"
        log.warning("cannot_go_on", bundle=bundle.version, reason=reason)
    return not changed


def differences(one: Config, other: Config) -> list[str]:
    """The keys that must be equal for one network to go on learning from the other's state, and are not."""
    keys = ["dataset", "timezone", "log", "labels", "features", "objectives", "users", "videos", "training.balancing.kind"]
    keys += [f"model.{name}" for name in type(one.model).model_fields]
    return [key for key in keys if attrgetter(key)(one) != attrgetter(key)(other)]


def _check_classes(config: Config, home: Home, days: Sequence[date]) -> None:
    labels = {objective.label: objective.name for objective in config.objectives if objective.kind == "binary"}
    found: dict[str, set[float]] = {label: set() for label in labels}
    for day in days:
        batch = read_day(home, config, day)
        for label, values in found.items():
            if len(values) < 2:
                values.update(np.unique(batch.numbers(label)[~np.isnan(batch.numbers(label))]).tolist())
    for label, values in found.items():
        if len(values) < 2:
            only = f"only the value {values.pop():g}" if values else "no known value"
            raise ConfigError(
                f"objective {labels[label]!r} cannot be learnt: its label {label!r} has {only} from {days[0]} to {days[-1]}"
            )


def run_key(config: Config, home: Home, days: Sequence[date], start: int | None, more: Sequence[object] = ()) -> str:
    """Changes with the configuration, the start and the rows of the days."""
    rows = [(str(day), digest(home, config, day)) for day in days]
    content = [config.model_dump(mode="json"), start, rows, *more]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def digest(home: Home, config: Config, day: date) -> str:
    """The SHA-256 of a day's partition.

    Raises:
        LogError: it cannot be read.
    """
    path = home.day(config.dataset, day) / ROWS_FILE
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise LogError(f"cannot read {path}: {error.strerror}") from None
