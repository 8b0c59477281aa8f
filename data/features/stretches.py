"""A day is taken in some users at a time: their rows, their recent ones, and what of both is kept."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.columns import Batch, concatenate
from data.config import Config
from data.features.asof import Ints
from data.features.past import after_window, join, seen_at, timings, visible_at, with_times
from data.features.sorting import distinct, stable_order

STRETCH_ROWS = 1 << 17
"""Recent rows, and as many of the day, looked at at once, and the rest of a user's."""


class Stretch(NamedTuple):
    """Some users: where their recent rows lie, and the places of the day's [n], in the users' order, each user's in the
    log's."""

    recent: slice
    today: Ints


def stretches(user: Ints, today: Ints) -> list[Stretch]:
    """The recent rows and the day's, some users at a time.

    Args:
        user: the users [m] of the recent rows, sorted.
        today: the users [n] of the day's rows.
    """
    order = stable_order(today)
    ordered = today[order]
    inner = distinct(np.concatenate([each[STRETCH_ROWS::STRETCH_ROWS] for each in (user, ordered)]))  # who begin one
    ends = [0, *user.searchsorted(inner).tolist(), len(user)]
    days = [0, *ordered.searchsorted(inner).tolist(), len(order)]
    return [Stretch(slice(*ends[i : i + 2]), order[days[i] : days[i + 1]]) for i in range(len(inner) + 1)]


def asleep(recent: Batch, user: Ints, today: Ints, config: Config, since: int) -> NDArray[np.bool_]:
    """The recent rows [m] of users of whom nothing can change; nobody's, where these are the lesser part of the rows, and to
    look at all costs less than to part them.

    Args:
        user: the users [m] of the recent rows, sorted.
        today: the users [n] of the day's rows of a stretch.
        since: ms; a user who has no row in the day, and of whom nothing was seen or became known from then on, sleeps.
    """
    sleeps = ~np.isin(user, today)
    absent = np.flatnonzero(sleeps)
    if len(absent):
        pending = user[absent[latest(recent.take(absent), config) >= since]]
        sleeps[absent] = ~np.isin(user[absent], pending)
    return sleeps if 2 * int(sleeps.sum()) > len(sleeps) else np.zeros(len(user), bool)


def latest(batch: Batch, config: Config) -> Ints:
    """The last time [n] (ms) at which a row was seen, or an outcome of it becomes visible or begins to count."""
    delays, windows = timings(config)
    last = seen_at(batch)
    for label in config.labels:
        visible = visible_at(batch, label) + delays[label]
        counts = after_window(batch, visible, windows[label] + delays[label])
        last = np.maximum(last, np.maximum(visible, counts))
    return last


def side_by_side(one: Batch, its_user: Ints, other: Batch, other_user: Ints) -> tuple[Batch, Ints]:
    """The rows of both, each in the order of users of whom neither has one of the other's; and their users."""
    if not len(its_user):
        return other, other_user
    users = np.concatenate([its_user, other_user])
    order = np.argsort(users, kind="stable")  # two runs, which are merged
    return join(one, other).take(order), users[order]


class RecentRows:
    """Recent rows in memory, some users' at a time.

    Args:
        like: batches with the columns that are to come. Times that some rows lack are null there.
    """

    def __init__(self, like: list[Batch]) -> None:
        self._names: dict[str, object] = {name: None for batch in reversed(like) for name in batch.columns}
        self._rows: list[tuple[Batch, Ints]] = []

    def append(self, rows: Batch, user: Ints) -> None:
        """Rows in the order of users, who come behind those of before."""
        self._rows.append((with_times(rows, self._names), user))

    def close(self) -> tuple[Batch, Ints]:
        """All rows, and their users."""
        rows, users = zip(*self._rows, strict=True)
        return concatenate(*rows), np.concatenate(users)
