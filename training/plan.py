"""Which days a run trains on, and what it starts from."""

import hashlib
import json
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np

from data.config import Config
from data.errors import ConfigError, LogError
from data.home import Home
from data.log import ROWS_FILE, list_days, read_day
from models.bundle import Bundle
from models.registry import Registry


@dataclass(frozen=True)
class Plan:
    """The days of a run in order; the bundle that it warm-starts from, if any; and a key that tells runs apart."""

    days: tuple[date, ...]
    start: Bundle | None
    skipped: tuple[date, ...]  # between the bundle's window and the first new day: seen by features, not trained on
    key: str

    @property
    def first_day(self) -> date:
        return self.start.manifest.window.first_day if self.start else self.days[0]


def plan_run(config: Config, home: Home, since: date | None, until: date | None, fresh: bool) -> Plan:
    """Choose the days in [since, until] and the start.

    The start is the newest bundle of the same name and compatible configuration, if its window ends before the first
    new day (``since``, or without it the first day after that window). Else, or with ``fresh``, there is none.

    Raises:
        LogError: there are no logs, a day of the range has no rows, or there is nothing new to train on.
        ConfigError: a binary objective has one class only over all days of a fresh run.
    """
    there = list_days(home, config.dataset)
    if not there:
        raise LogError(
            f"no logs for dataset {config.dataset!r} in {home.logs(config.dataset)}: run `watchnext ingest` first"
        )
    start = None if fresh else newest_compatible(config, Registry(home))
    last = until or there[-1]
    if start and since and start.manifest.window.last_day >= since:
        start = None
    after = start.manifest.window.last_day + timedelta(days=1) if start else there[0]
    days = days_between(
        there, since or after, last, config.dataset, f"; bundle {start.version} covers {last}" if start else ""
    )
    skipped = [day for day in there if start and after <= day < days[0]]
    if start is None:
        _check_classes(config, home, days)
    return Plan(tuple(days), start, tuple(skipped), _key(config, home, [*skipped, *days], start))


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


def newest_compatible(config: Config, registry: Registry) -> Bundle | None:
    """The bundle last published under the configuration's name, if it can be trained on by this configuration."""
    newest = registry.newest(config.name)
    if newest is None:
        return None
    bundle = registry.open(config.name, newest)
    return bundle if _fitting(bundle.config) == _fitting(config) else None


def _fitting(config: Config) -> str:
    """What must be equal for one network to go on learning from the other's state."""
    keep = {"dataset", "timezone", "log", "labels", "features", "objectives", "model", "users", "videos"}
    return json.dumps(config.model_dump(mode="json", include=keep), sort_keys=True)


def _check_classes(config: Config, home: Home, days: list[date]) -> None:
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


def _key(config: Config, home: Home, days: list[date], start: Bundle | None) -> str:
    """Changes with the configuration, the start and the rows of the days."""
    rows = [(str(day), _digest(home.day(config.dataset, day) / ROWS_FILE)) for day in days]
    content = [config.model_dump(mode="json"), start.version if start else None, rows]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
