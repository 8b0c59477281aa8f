"""One user's past impressions, a row per label: what a request's features are computed from.

As small matrices, and as lists of their numbers: up to some 250 entries, and features look back to far fewer, loops in
Python take less than the calls of numpy that they stand for.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from data.columns import Batch, StringLists, Strings
from data.config import Config
from data.features.asof import Ints
from data.features.past import MICRO, SEEN, Past, seen_at, timings
from data.features.settled import NEVER, Settled

Mask = NDArray[np.bool_]
FIRST = itemgetter(0)


class Labels:
    """A configuration's labels [L], with what of their timing is the same for all users: delays and windows [L, 1], ms."""

    def __init__(self, config: Config) -> None:
        delays, windows = timings(config)
        self.names = tuple(config.labels)
        self.own = tuple(f"{name}_visible_at" for name in self.names)
        self.delays, self.windows = (
            np.array([times[name] for name in self.names], np.int64)[:, None] for times in (delays, windows)
        )


class Entries:
    """The m entries of a past, all of one user, under the labels given [L].

    The same values as :class:`Past` has label by label; none is computed before it is asked for.

    Args:
        past: makes the past, where anything is asked for.
        settled: what is settled of the user, where it holds.
    """

    def __init__(self, past: Callable[[], Past], labels: Labels, settled: Settled | None = None) -> None:
        self.labels, self.settled = labels, settled
        self._make = past
        self._last: dict[tuple[str, float, int, int], list[int]] = {}

    @cached_property
    def past(self) -> Past:
        return self._make()

    @property
    def _batch(self) -> Batch:
        return self.past.view.batch

    def __len__(self) -> int:
        return len(self.past)

    @cached_property
    def values(self) -> NDArray[np.float64]:
        """Outcomes [L, m], NaN where unknown."""
        names = self.labels.names
        return np.array([self._batch.numbers(name) for name in names], np.float64).reshape(len(names), len(self))

    @cached_property
    def known(self) -> Mask:
        """[L, m]."""
        return np.asarray(~np.isnan(self.values))

    @cached_property
    def micro(self) -> Ints:
        """Outcomes in millionths [L, m], 0 where unknown."""
        return np.asarray(np.rint(np.where(self.known, self.values, 0.0) * MICRO).astype(np.int64))

    @cached_property
    def visible(self) -> Ints:
        """When each can be known [L, m], ms."""
        own, delays = self.labels.own, self.labels.delays
        if self._batch.columns.keys().isdisjoint(own):
            return self._batch.numbers("visible_at").astype(np.int64) + delays
        common = self._batch.numbers("visible_at").astype(np.float64)
        times = np.array([self._batch.numbers(name) if name in self._batch else common for name in own], np.float64)
        times = times.reshape(len(own), len(self))
        return np.where(np.isnan(times), common, times).astype(np.int64) + delays

    @cached_property
    def counts(self) -> Ints:
        """When each counts [L, m], ms."""
        if SEEN not in self._batch or np.isnan(seen := self._batch.numbers(SEEN)).all():
            return self.visible
        closes = self._batch.numbers("timestamp").astype(np.int64) + self.labels.windows + self.labels.delays
        return np.where(np.isnan(seen), self.visible, np.maximum(self.visible, closes))

    def seen(self, since: int) -> list[int]:
        """When those were seen (ms) that were seen from ``since`` on, the last one, and possibly others."""
        if self.settled is not None and self.settled.seen < since:
            return [] if self.settled.seen == NEVER else [self.settled.seen]
        seen: list[int] = seen_at(self._batch).tolist()
        return seen

    @cached_property
    def newest(self) -> int:
        """When the last outcome counts, whether it is known or not (ms); of a user who is settled, that or later."""
        return int(self.counts.max(initial=NEVER)) if self.settled is None else self.settled.until

    def count_since(self, time: int) -> bool:
        """Whether any outcome counts from ``time`` (ms) on, or later."""
        return self.newest >= time and bool((self.known & (self.counts >= time)).any())

    def equal(self, name: str, texts: Sequence[str]) -> Ints:
        """How many pairs of a text of each entry's column and one of ``texts`` are equal [m]."""
        column = self.past.view.column(name)
        if isinstance(column, StringLists):
            return np.array([sum(texts.count(text) for text in row) for row in column.tolist()], np.int64)
        assert isinstance(column, Strings)
        times = {code: texts.count(column.values[code]) for code in {*column.codes.tolist()} if code >= 0}
        return np.array([times.get(code, 0) for code in column.codes.tolist()], np.int64)

    def counted(self, row: int, time: int, n: int) -> list[int]:
        """The last n known outcomes of a label, in millionths, of those that count before ``time``, newest first."""
        outcomes = zip(self.counts[row].tolist(), self._listed(row), strict=True)
        chosen = [outcome for outcome in outcomes if outcome[0] < time and outcome[1] == outcome[1]]
        chosen.sort(key=FIRST)
        return [round(value * MICRO) for _, value in chosen[: -n - 1 : -1]]

    def last(self, label: str, above: float, time: int, n: int) -> list[int]:
        """Positions of the last n entries with an outcome above ``above`` that was visible before ``time``, newest first."""
        key = label, above, time, n
        found = self._last.get(key)
        if found is None:
            row = self.labels.names.index(label)
            outcomes = enumerate(zip(self.visible[row].tolist(), self._listed(row), strict=True))
            chosen = [(when, place) for place, (when, value) in outcomes if value > above and when < time]
            chosen.sort()
            found = self._last[key] = [place for _, place in chosen[: -n - 1 : -1]]
        return found

    def _listed(self, row: int) -> list[float]:
        """A label's outcomes [m], NaN where unknown."""
        listed: list[float] = self._batch.numbers(self.labels.names[row]).tolist()
        return listed
