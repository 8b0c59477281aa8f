"""`watchnext experiment report` and `power`, from files and the database to figures."""

import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from time import time

import numpy as np

from data.config import Config
from data.database import database_url, open_database
from data.days import parse_day
from data.errors import ConfigError, LogError
from data.experiments import Experiment
from data.home import Home
from models.registry import Registry
from training.experiment_analysis import Plan
from training.experiment_figures import Figures, figures, plan_of
from training.experiment_frame import UserDays
from training.experiment_load import DAY, Source, load, user_days
from training.experiment_metrics import metrics_of, outcome
from training.experiment_power import WANTED, Power, announce


def open_source(experiment: Experiment, home: Home, config: Config | None, now: int | None) -> Source:
    """The database and the log; the configuration is the champion's where none is given, the time the clock's.

    Raises:
        BundleError: there is no champion of the name that the experiment serves.
        ConfigError: the configuration is of another name.
    """
    config = Registry(home).open(experiment.serves).config if config is None else config
    if config.name != experiment.serves:
        raise ConfigError(
            f"experiment {experiment.name!r} serves {experiment.serves!r}, the configuration is {config.name!r}"
        )
    return Source(config, home, open_database(database_url(home)), int(time() * 1000) if now is None else now)


def report(experiment: Experiment, source: Source, until: date | None = None, announced: Path | None = None) -> Figures:
    """The figures of an experiment so far, with the power that was ``announced`` for it, if that file is there.

    Raises:
        LogError: no day is final yet, or nobody was served.
    """
    found = figures(experiment, load(experiment, source, until))
    return {"as_of": source.as_of, "announced": _announced(announced, experiment), **found}


def _announced(path: Path | None, experiment: Experiment) -> Figures | None:
    """What :func:`power` said, unless the experiment was another one then."""
    if path is None or not path.is_file():
        return None
    try:
        figures: Figures = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LogError(f"cannot read {path}: {error}") from None
    return figures if figures.get("experiment") == experiment.model_dump(mode="json") else None


LOOK_BACK = 60
"""Days before the start within which the log should end."""


@dataclass(frozen=True)
class Rehearsal:
    """The last days of the log, taken as if they were the experiment's."""

    frame: UserDays
    days: list[date]  # those that stand for the experiment's
    history_days: int


def power(experiment: Experiment, source: Source, effect: float, users: int | None = None) -> Figures:
    """The power announced for a relative ``effect``, and the least effect found with a probability of 80%.

    ``users`` are those expected to come on the planned days, in whatever arm or none; default: as many as came in the
    rehearsal.

    Raises:
        LogError: there are not at least two days before the experiment.
    """
    rehearsal, plan = rehearse(experiment, source), plan_of(experiment)
    everyone = len(rehearsal.frame) if users is None else users
    per_arm = everyone * np.array(plan.shares)
    shorter = Plan(plan.shares, plan.control, len(rehearsal.days))
    metrics = []
    for metric in metrics_of(rehearsal.frame):
        of_users = outcome(rehearsal.frame, metric, adjust=rehearsal.history_days > 0)
        found = {k: announce(metric, of_users, per_arm, shorter, k) for k in plan.treatments}
        names = {k: experiment.arms[k].name for k in plan.treatments}
        metrics.append({"name": metric.name, "treatments": {names[k]: _power(p, effect) for k, p in found.items()}})
    return {
        "experiment": experiment.model_dump(mode="json"),
        "as_of": source.as_of,
        "effect": effect,
        "wanted": WANTED,
        "users": everyone,
        "days": [day.isoformat() for day in rehearsal.days],
        "history_days": rehearsal.history_days,
        "planned_days": plan.planned,
        "metrics": metrics,
    }


def _power(found: Power | None, effect: float) -> Figures | None:
    if found is None:
        return None
    return {
        "level": found.level,
        "error": found.error,
        "daily": found.daily(effect),
        "at_end": found.at_end(effect),
        "least_effect": found.least_effect(),
    }


def rehearse(experiment: Experiment, source: Source) -> Rehearsal:
    """The last final days with rows before the experiment's start: as many as it has, after as many as it looks back.

    Where the log is shorter, history gets at most half of it. Fewer days make users differ more and their past say
    less of them, so the power announced is then rather too low than too high.
    """
    days = _known_days(experiment, source)
    history = max(len(days) - experiment.days, min(experiment.history_days, len(days) // 2))
    acted, first = days[history:], days[history]
    rows = (source.rows(day) for day in acted)
    ids = sorted({name for batch in rows if batch is not None for name in batch.strings("user_id").in_order()})
    user, day, columns, before = user_days(experiment, source, days, first, ids, np.zeros(len(ids), np.int64))
    entry = np.full(len(ids), len(acted), np.int64)
    np.minimum.at(entry, user[day >= 0], day[day >= 0])
    return Rehearsal(UserDays(np.zeros(len(ids), np.int64), entry, len(acted), user, day, columns), acted, before)


def _known_days(experiment: Experiment, source: Source) -> list[date]:
    """At most as many days as the experiment has and looks back to, the last one the log's last before its start."""
    start, span = parse_day(experiment.start), experiment.days + experiment.history_days
    nearest = [start - i * DAY for i in range(1, span + LOOK_BACK + 1)]
    known = [day for day in nearest if (day in source.partitions or source.holds(day)) and source.is_final(experiment, day)]
    if len(known) < 2:
        raise LogError(f"the power needs two or more final days of logs between {nearest[-1]} and {start}, got {len(known)}")
    first = max(min(known), known[0] - (span - 1) * DAY)
    return [first + i * DAY for i in range((known[0] - first).days + 1)]
