"""A day's users, some at a time: their rows and their recent past are such as the processor's caches hold."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from threading import Lock

import numpy as np

from data.columns import Batch, arrays_of
from data.features.asof import Ints
from data.features.joined import by_user
from data.features.past import Past, join
from data.features.sorting import first_of_each, places, stable_order
from data.features.storage import let_go
from data.features.threads import THREADS

GROUP_ENTRIES = 1 << 17
"""Rows of the day and recent ones of the same users, looked at at once, at most, and the rest of a user's. A quarter of it
is not worth a second thread."""


@dataclass(frozen=True)
class Group:
    """Some users. ``today`` [n] are the places of their rows in the day, in the users' order and each user's in the log's;
    of each user ``lengths`` [u] recent rows begin at ``starts`` [u]."""

    today: Ints
    starts: Ints
    lengths: Ints

    def recent(self, rows: Batch) -> Batch:
        """Their recent rows among all, in the users' order."""
        total = int(self.lengths.sum())
        first, behind = (int(self.starts[0]), int(self.starts[-1] + self.lengths[-1])) if total else (0, 0)
        if behind - first == total:  # nobody between them was away
            return rows.between(first, behind)
        before = np.cumsum(self.lengths) - self.lengths
        return rows.take(np.repeat(self.starts - before, self.lengths) + np.arange(total))


def groups_of(user: Ints, recent_user: Ints) -> list[Group]:
    """The users of a day's rows in their order, some at a time: one group at least.

    Args:
        user: of each of the day's rows [n].
        recent_user: of all recent rows, sorted.
    """
    order = stable_order(user)
    ordered = user[order]
    first = np.flatnonzero(first_of_each(ordered))
    users, behind = ordered[first], np.append(first[1:], len(order))[: len(first)]
    starts = places(recent_user, users)
    lengths = places(recent_user, users, "right") - starts
    let_go(recent_user)
    entries = np.cumsum(lengths) + behind
    total = int(entries[-1]) if len(entries) else 0
    threads = THREADS if total > GROUP_ENTRIES // 4 else 1
    parts = threads * max(-(-total // (threads * GROUP_ENTRIES)), 1)
    cuts = np.unique(entries.searchsorted(total * np.arange(1, parts) // parts))
    edges = [0, *cuts.tolist(), len(users)]
    rows = np.append(first, len(order))[edges]
    return [
        Group(order[rows[i] : rows[i + 1]], starts[edges[i] : edges[i + 1]], lengths[edges[i] : edges[i + 1]])
        for i in range(len(edges) - 1)
    ]


class Pasts:
    """The past of each group of a day's users.

    Args:
        recent: rows sorted by user. ``today``: the day's. Their texts are coded alike.
        span: what features that are not kept by user may ask for counts from the first of these times (ms) on, before
            the second.
        past_of: makes the past of entries that are sorted by user.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        recent: Batch,
        today: Batch,
        span: tuple[int, int],
        past_of: Callable[[Batch], Past],
    ) -> None:
        self.groups = groups
        self._recent, self._today, self._span, self._past_of = recent, today, span, past_of
        self._all: Past | None = None
        self._lock = Lock()

    def of(self, group: Group) -> Past:
        """Of these users' entries, each user's together: the recent ones, and behind them the day's."""
        past = self._past_of(by_user(group.recent(self._recent), self._today.take(group.today)))
        let_go(*arrays_of(self._recent))
        past.all = self._of_all
        return past

    def _of_all(self) -> Past:
        """Of all groups' entries those that count within the span, made when they are first asked for."""
        with self._lock:
            if self._all is None:
                self._all = self._past_of(reduce(join, (self._counting(self.of(group)) for group in self.groups)))
            return self._all

    def _counting(self, past: Past) -> Batch:
        since, until = self._span
        some = np.zeros(len(past), bool)
        for label in past.delays:
            counts = past.counts(label)
            some |= (counts >= since) & (counts < until)
        return past.view.batch.take(some)
