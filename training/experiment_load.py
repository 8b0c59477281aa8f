"""Who was in an experiment and what they did, from what was served while the database holds it, and from the log before.

A user is in from the first request that was served in the experiment, seen or not: whether a slate was looked at may
depend on the arm, whether it was asked for the first time can't.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cached_property

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from data.columns import Batch
from data.config import Config
from data.database import reading
from data.days import day_bounds, day_of, parse_day
from data.errors import LogError
from data.experiments import Experiment, assign, logged_arm
from data.feedback.outcomes import log_rows
from data.feedback.requests import as_arrays
from data.feedback.rows import read_requests
from data.feedback.schema import exports, served
from data.feedback.windows import closed_labels, final_at
from data.home import Home
from data.log import list_days, read_day
from training.experiment_frame import Floats, Ints, UserDays

ROLES = ("click", "like", "dismiss")
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Source:
    """Where rows come from. ``as_of`` (ms) is when it is asked: outcomes whose windows close later are not known."""

    config: Config
    home: Home
    engine: sa.Engine
    as_of: int

    def rows(self, day: date) -> Batch | None:
        """The impressions of a day, from the log where that has them all; None where there are none."""
        if self.holds(day) and not self._exported_whole(day):
            with reading(self.engine) as connection:
                requests = read_requests(connection, self._of(day))
            return log_rows(self.config, *as_arrays(self.config, requests), self.as_of)
        return read_day(self.home, self.config, day) if day in self.partitions else None

    def holds(self, day: date) -> bool:
        """Whether what was served that day is (still) in the database."""
        with reading(self.engine) as connection:
            return connection.execute(sa.select(served.c.request_id).where(self._of(day)).limit(1)).first() is not None

    def _exported_whole(self, day: date) -> bool:
        """Whether the day's partition has every label and every request, which what brought its own history is not in."""
        of_day = (exports.c.dataset == self.config.dataset, exports.c.day == day.isoformat())
        unfit = sa.select(served.c.request_id).where(self._of(day), served.c.rebuildable.is_(False)).limit(1)
        with reading(self.engine) as connection:
            closed = connection.execute(sa.select(exports.c.closed).where(*of_day)).scalar()
            whole = closed is not None and self.config.labels.keys() <= set(json.loads(closed))
            return whole and connection.execute(unfit).first() is None

    def is_final(self, experiment: Experiment, day: date) -> bool:
        """Whether all windows of the day that the experiment reads have closed."""
        closed = {*closed_labels(self.config, day, self.as_of)}
        return final_at(self.config, day) <= self.as_of and columns_of(experiment, self.config).keys() <= closed

    def _of(self, day: date) -> sa.ColumnElement[bool]:
        start, end = day_bounds(day, day, self.config.timezone).tolist()
        return sa.and_(served.c.name == self.config.name, served.c.timestamp >= start, served.c.timestamp < end)

    @cached_property
    def partitions(self) -> frozenset[date]:
        return frozenset(list_days(self.home, self.config.dataset))


@dataclass
class Loaded:
    """An experiment's frame, its looks' days and what a reader must know of how they came about."""

    frame: UserDays
    days: Sequence[date]  # [L]
    history_days: int  # that had rows
    moved: int = 0  # users who were served in more than one arm; each counts for the first
    elsewhere: int = 0  # users who were served in another arm than their id and the salt say now
    notes: list[str] = field(default_factory=list)


def load(experiment: Experiment, source: Source, until: date | None = None) -> Loaded:
    """The experiment's users from its first day to its last final one (or ``until``).

    Raises:
        LogError: no day is final yet, or nobody was served.
    """
    days = final_days(experiment, source, until)
    exposed, notes = _exposures(experiment, source, days)
    if not exposed.arms:
        raise LogError(f"nobody was served in experiment {experiment.name!r} from {days[0]} to {days[-1]}")
    frame, before = _frame(experiment, source, days, exposed)
    return Loaded(frame, days, before, exposed.moved, exposed.elsewhere, notes)


def final_days(experiment: Experiment, source: Source, until: date | None) -> list[date]:
    """The days from the start of which nothing will change any more, as of ``source.as_of``."""
    first, last = parse_day(experiment.start), parse_day(experiment.end)
    last = last if until is None else min(last, until)
    days = [first + i * DAY for i in range((last - first).days + 1)]
    final = [day for day in days if source.is_final(experiment, day)]
    if not final:
        raise LogError(
            f"no day of experiment {experiment.name!r} is final yet: it starts on {first}, and windows have to close"
        )
    return final


def columns_of(experiment: Experiment, config: Config) -> dict[str, str]:
    """The labels that are read, and what each is reported as."""
    roles = experiment.labels.model_dump()
    return {label: role for role, label in roles.items() if label in config.labels}


@dataclass
class _Exposed:
    """Users by id: arm and time of the first request (ms)."""

    arms: dict[str, int] = field(default_factory=dict)
    since: dict[str, int] = field(default_factory=dict)
    moved: int = 0
    elsewhere: int = 0


def _exposures(experiment: Experiment, source: Source, days: Sequence[date]) -> tuple[_Exposed, list[str]]:
    places = {arm.name: place for place, arm in enumerate(experiment.arms)}
    found, moved, notes = _Exposed(), set(), []
    gone = [day for day in days if day in source.partitions and not source.holds(day)]
    requests = [*_from_log(experiment, source, gone), *_from_served(experiment, source, days)]
    for user, arm, since in sorted(requests, key=lambda request: request[2]):
        if arm not in places:
            continue
        if found.arms.setdefault(user, places[arm]) != places[arm]:
            moved.add(user)
        found.since.setdefault(user, since)
    found.moved = len(moved)
    names = [arm.name for arm in experiment.arms]
    now = ((arm, assign(experiment, user)) for user, arm in found.arms.items())
    found.elsewhere = sum(arm is None or arm.name != names[place] for place, arm in now)
    if gone:
        notes.append(
            f"What was served from {gone[0]} to {gone[-1]} is no longer in the database: arms of these days "
            "follow from the salt, and users who saw nothing are missing."
        )
    return found, notes


def _from_served(experiment: Experiment, source: Source, days: Sequence[date]) -> Iterator[tuple[str, str, int]]:
    """(user, arm, first time) from the served requests."""
    start, end = day_bounds(days[0], days[-1], source.config.timezone)[[0, -1]].tolist()
    keys = served.c.user_id, served.c.experiment, served.c.arm
    where = (served.c.name == source.config.name, served.c.timestamp >= start, served.c.timestamp < end)
    query = sa.select(*keys, sa.func.min(served.c.timestamp)).where(*where, served.c.experiment.is_not(None)).group_by(*keys)
    with reading(source.engine) as connection:
        for user, experiments, arms, since in connection.execute(query):
            arm = logged_arm(experiment.name, experiments, arms)
            if arm is not None:
                yield user, arm, since


def _from_log(experiment: Experiment, source: Source, days: Sequence[date]) -> Iterator[tuple[str, str, int]]:
    """The same from day partitions, for days whose served requests are gone."""
    for day in days:
        rows = read_day(source.home, source.config, day)
        users = rows.strings("user_id").tolist()
        for user, timestamp in zip(users, rows.numbers("timestamp").tolist(), strict=True):
            arm = assign(experiment, str(user))
            if arm is not None:
                yield str(user), arm.name, int(timestamp)


def _frame(experiment: Experiment, source: Source, days: Sequence[date], exposed: _Exposed) -> tuple[UserDays, int]:
    """The frame, and how many of the days before had rows."""
    timezone, first = source.config.timezone, parse_day(experiment.start)
    ids = sorted(exposed.arms)
    since = np.array([exposed.since[user] for user in ids], np.int64)
    history = [first - i * DAY for i in range(experiment.history_days, 0, -1)]
    user, day, columns, before = user_days(experiment, source, [*history, *days], first, ids, since)
    entry = np.array([(day_of(int(time), timezone) - first).days for time in since], np.int64)
    arm = np.array([exposed.arms[name] for name in ids], np.int64)
    return UserDays(arm, entry, len(days), user, day, columns), before


def user_days(
    experiment: Experiment, source: Source, days: Sequence[date], first: date, ids: Sequence[str], since: Ints
) -> tuple[Ints, Ints, Mapping[str, Floats], int]:
    """(user, day, columns) of a frame over ``days``, counted from ``first``, and how many days before it had rows.

    Rows of others than ``ids`` are left out, as are those from ``first`` on that came before a user's ``since`` (ms).
    """
    number = {name: place for place, name in enumerate(ids)}
    parts: list[tuple[Ints, Ints, dict[str, Floats]]] = []
    before = 0
    for day in days:
        rows = source.rows(day)
        if rows is None or not len(rows):
            continue
        offset = (day - first).days
        before += offset < 0
        user = rows.strings("user_id").map(lambda name: number.get(name, -1), -1).astype(np.int64)
        kept = user >= 0
        if offset >= 0:
            kept &= rows.numbers("timestamp") >= since[user]
        parts.append(_sums(experiment, source.config, rows, user, kept, offset))
    names = list(parts[0][2]) if parts else []
    columns = {name: np.concatenate([part[2][name] for part in parts]) for name in names}
    user, day_of_row = (np.concatenate([part[i] for part in parts]) if parts else np.zeros(0, np.int64) for i in (0, 1))
    return user, day_of_row, columns, before


def _sums(
    experiment: Experiment, config: Config, rows: Batch, user: Ints, kept: NDArray[np.bool_], offset: int
) -> tuple[Ints, Ints, dict[str, Floats]]:
    """One row a user: what the user did that day."""
    users, inverse = np.unique(user[kept], return_inverse=True)
    inverse = inverse.reshape(-1)

    def total(values: NDArray[np.floating]) -> Floats:
        return np.bincount(inverse, values[kept], len(users)).astype(np.float64)

    columns = {"impressions": total(np.ones(len(user))), "active_days": np.ones(len(users))}
    for label, role in columns_of(experiment, config).items():
        values = rows.numbers(label).astype(np.float64)
        columns[role] = total(np.nan_to_num(values))
        if role in ROLES:  # watch time is unknown where nothing was watched: 0
            columns[f"{role}_seen"] = total((~np.isnan(values)).astype(np.float64))
    return users, np.full(len(users), offset, np.int64), columns
