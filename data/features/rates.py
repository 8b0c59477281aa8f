"""Counts and rates of past impressions that share a key: a video's, an author's, a user's, a user's with a tag."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.config import LabelConfig, RateFeature
from data.features.ledger import Ledger, begun
from data.features.merging import fits, folder_after, look_up_by_blocks, merge_files, merged, summed
from data.features.past import MICRO, Past, Priors
from data.features.sorting import FEW, first_of_each, grouped, places, stable_order
from data.features.storage import load_array, save_arrays
from data.features.view import View

Ints = NDArray[np.int64]


NAMES = ("keys", "counts", "sums")
MANY = 16_384
"""Rows from which on they are some of a day's, not a request's: look-ups touch so much of mapped totals that it is let go
of again, and going over labels costs little."""
SOME = 262_144
"""Entries that wait until those of equal keys are added up, and as many again as there were keys then."""


LEAST, MOST = 1e-5, 1 - 1e-5
"""Of a share on the way to its logit."""


class Entries(NamedTuple):
    """What is to be added to totals: keys [e] sorted, each once; counts and sums (millionths) [e, labels]."""

    keys: Ints
    counts: Ints
    sums: Ints


def together(entries: Sequence[Entries]) -> Entries:
    """One or more, as one."""
    if len(entries) == 1:
        return entries[0]
    keys, *values = (np.concatenate(columns) for columns in zip(*entries, strict=True))
    return Entries(*summed(keys, values))


class Pending:
    """A day's entries, which come some users' at a time. Those of equal keys are added up on the way: a video may have some
    in every part, and a large log has hundreds of parts."""

    def __init__(self) -> None:
        self._parts: list[Entries] = []
        self._rows, self._most = 0, SOME

    def append(self, entries: Entries) -> None:
        self._parts.append(entries)
        self._rows += len(entries.keys)
        if self._rows > self._most:
            self._parts = [together(self._parts)]
            self._rows = len(self._parts[0].keys)
            self._most = 2 * self._rows + SOME

    def take(self) -> Entries:
        """All of them (there must have been some), which are forgotten."""
        parts, self._parts = self._parts, []
        return together(parts)


@dataclass
class Totals:
    """Per key, what counted before ``boundary`` (ms): keys [m] sorted, counts and sums (millionths) [m, labels]."""

    keys: Ints
    counts: Ints
    sums: Ints
    boundary: int = 0
    place: Path | None = None
    """The folder with these arrays' files, where :meth:`add` wrote them."""

    @classmethod
    def empty(cls, labels: int) -> "Totals":
        return cls(np.zeros(0, np.int64), np.zeros((0, labels), np.int64), np.zeros((0, labels), np.int64))

    def look_up(self, keys: Ints) -> tuple[Ints, Ints]:
        """Counts and sums [n, labels], 0 for a key never met."""
        if not len(self.keys) or not len(keys):
            zeros = np.zeros((len(keys), self.counts.shape[1]), np.int64)
            return zeros, zeros.copy()
        if len(keys) > MANY and not fits(len(self.keys)):
            counts, sums = look_up_by_blocks(self.table, keys)
            return counts, sums
        first, behind = self.keys.searchsorted([keys.min(), keys.max() + 1]).tolist()  # of one user: a short stretch
        place = np.minimum(first + places(self.keys[first:behind], keys), len(self.keys) - 1)
        known = (self.keys.take(place) == keys)[:, None]
        return self.counts.take(place, axis=0) * known, self.sums.take(place, axis=0) * known

    def of_keys(self, keys: Sequence[int]) -> tuple[Ints, Ints]:
        """Counts and sums [labels] of all these keys together; not to be written to."""
        places = [(int(self.keys.searchsorted(key)), key) for key in keys]
        found = [place for place, key in places if place < len(self.keys) and self.keys[place] == key]
        if len(found) == 1:
            return self.counts[found[0]], self.sums[found[0]]
        if found:
            return self.counts[found].sum(axis=0), self.sums[found].sum(axis=0)
        return (zeros := np.zeros(self.counts.shape[1], np.int64)), zeros

    @cached_property
    def per_key(self) -> NDArray[np.float64]:
        """The mean count of a key [labels], 0 where there is none."""
        return np.asarray(self.counts.sum(axis=0) / max(len(self.keys), 1))

    @property
    def table(self) -> tuple[Ints, Ints, Ints]:
        return self.keys, self.counts, self.sums

    def add(self, entries: Entries, boundary: int, folder: Path | None = None) -> "Totals":
        """With these entries taken in. Where ``folder`` is given and there are too many keys for memory, they lie in files
        in there, in a new folder of their own."""
        if not len(entries.keys):
            return replace(self, boundary=boundary)
        if folder is None or fits(len(self.keys) + len(entries.keys)):
            keys, counts, sums = merged(self.table, entries)
            return Totals(keys, counts, sums, boundary)
        place = folder_after(self.place, folder)
        keys, counts, sums = merge_files(self.table, entries, NAMES, place)
        return Totals(keys, counts, sums, boundary, place)

    def save(self, folder: Path) -> None:
        """Write the arrays; those that :meth:`add` wrote are given a second name."""
        save_arrays(dict(zip(NAMES, self.table, strict=True)), folder, self.place)
        save_arrays({"boundary": np.array(self.boundary, np.int64)}, folder)

    @classmethod
    def load(cls, folder: Path) -> "Totals":
        keys, counts, sums, boundary = (load_array(folder / f"{name}.npy") for name in (*NAMES, "boundary"))
        return cls(keys, counts, sums, int(boundary))


def entries_of(feature: RateFeature, since: int, past: Past, until: int) -> Entries:
    """The entries that began to count in [since, until)."""
    new = {
        label: past.once(("new", past.timing(label), since, until), partial(_new, past, label, since, until))
        for label in feature.labels
    }
    some = np.logical_or.reduce(list({id(mask): mask for mask in new.values()}.values()))
    rows, keys = past.view.keys(feature.keys, np.flatnonzero(some))  # few of the recent past
    order = stable_order(keys)
    rows, keys = rows[order], keys[order]
    starts = np.flatnonzero(first_of_each(keys))
    counts, sums = np.zeros((2, len(starts), len(new)), np.int64)
    for i, (label, mask) in enumerate(new.items() if len(starts) else ()):
        chosen, micro = mask[rows], past.micro(label, rows)
        if chosen.all():
            counts[:, i] = np.diff(starts, append=len(rows))
        else:
            counts[:, i] = np.add.reduceat(chosen, starts, dtype=np.int64)
            micro[~chosen] = 0
        sums[:, i] = np.add.reduceat(micro, starts)
    return Entries(keys[starts], counts, sums)


def take_in(feature: RateFeature, totals: Totals, past: Past, until: int) -> Totals:
    """Totals at the boundary ``until``: with the entries that began to count since the boundary before. Totals that are
    further on stay as they are."""
    until = max(until, totals.boundary)
    return totals.add(entries_of(feature, totals.boundary, past, until), until)


def _new(past: Past, label: str, since: int, until: int) -> NDArray[np.bool_]:
    """Which entries begin to count in [since, until) [m]."""
    when = past.counts(label)
    return past.known(label) & (when >= since) & (when < until)


def rate_columns(
    feature: RateFeature,
    totals: Totals,
    past: Past,
    queries: View,
    cutoff: Ints,
    priors: Priors,
    labels: Mapping[str, LabelConfig],
) -> NDArray[np.float32]:
    """The feature's floats [n, 2 * labels]: per label log10(1 + count) and the smoothed mean against the prior.

    The count of a video, an author or a tag stands against the mean count of all of them in the totals: counts grow with
    the log, and a network does not go on from those that it was trained on to larger ones. The mean outcome stands as
    logit(mean) - logit(prior) for binary labels, as signed log(1 + mean) less that of the prior for numbers.

    Args:
        past: entries among which are all that began to count at or after the totals' boundary.
        cutoff: [n] ms; an entry is taken in if it counts before it.
    """
    rows, keys = queries.keys(feature.keys)
    finish = Finish.of(feature, totals, priors, labels)
    one_each = len(rows) == len(queries) and bool((rows == np.arange(len(rows))).all())
    until = int(cutoff.max(initial=totals.boundary))
    if until > totals.boundary and "user_id" not in feature.keys:
        past = past.of_all()
    later = begun(feature.labels, past, totals.boundary, until) if len(past) and until > totals.boundary else []
    distinct, place = (grouped(keys) if len(keys) > FEW else None) or (keys, None)
    counts, sums = totals.look_up(distinct)
    if one_each and place is not None and not later:  # rows of one key have the same features
        return finish(counts, sums).take(place, axis=0)
    if place is not None:
        counts, sums = counts.take(place, axis=0), sums.take(place, axis=0)
    moments = one_each and feature.until == "moment"
    for ledger in (Ledger.of(past, feature.keys, together, totals.boundary) for together in later):
        end = queries.span(ledger.timeline)[1] if moments and ledger.of_users else None
        ledger.add(keys, cutoff if one_each else cutoff[rows], feature.labels, counts, sums, end)
    if not one_each:
        counts, sums = (_by_row(values, rows, len(queries)) for values in (counts, sums))
    return finish(counts, sums)


class Finish:
    """From counts and sums to what the network sees, slot by slot: a slot [s] is a label with its strength.

    Args:
        usual: the mean count of a key [s].
    """

    def __init__(
        self,
        slots: Sequence[tuple[str, float]],
        usual: NDArray[np.float64],
        priors: Priors,
        labels: Mapping[str, LabelConfig],
    ) -> None:
        self._usual = 1.0 + usual
        self._strength = np.array([strength for _, strength in slots])
        prior = np.array([priors[label] for label, _ in slots])
        self._weight = prior * self._strength
        self._number = np.array([labels[label].type == "number" for label, _ in slots], bool)
        self._against = np.where(self._number, _signed_log(prior), _logit(prior))

    @classmethod
    def of(cls, feature: RateFeature, totals: Totals, priors: Priors, labels: Mapping[str, LabelConfig]) -> "Finish":
        """Of one feature, a slot a label."""
        usual = np.zeros(len(feature.labels)) if "user_id" in feature.keys else totals.per_key
        return cls([(label, feature.strength) for label in feature.labels], usual, priors, labels)

    def __call__(self, counts: Ints, sums: Ints) -> NDArray[np.float32]:
        """Count and mean by turns [n, 2 s], from counts and sums [n, s]."""
        columns = np.empty((*counts.shape, 2), np.float32)
        if len(counts) <= MANY:
            self._fill(columns, counts, sums, slice(None))
        else:  # one expression for all slots goes along short rows, which takes twice as long
            for slot in range(counts.shape[1]):
                self._fill(columns[:, slot], counts[:, slot], sums[:, slot], slot)
        return columns.reshape(len(counts), 2 * counts.shape[1])

    def _fill(self, columns: NDArray[np.float32], counts: Ints, sums: Ints, slot: int | slice) -> None:
        number = self._number[slot]
        mean = (sums / MICRO + self._weight[slot]) / (counts + self._strength[slot])
        scaled = _logit(mean)
        if number.any():
            scaled = np.where(number, _signed_log(mean), scaled)
        columns[..., 0] = np.log10((1.0 + counts) / self._usual[slot])
        columns[..., 1] = scaled - self._against[slot]


def _by_row(values: Ints, rows: Ints, n: int) -> Ints:
    """The sums of each row's values, which stand together [n, ...]."""
    total = np.zeros((n, values.shape[1]), np.int64)
    if len(rows):
        starts = np.flatnonzero(first_of_each(rows))
        total[rows[starts]] = np.add.reduceat(values, starts)
    return total


def against_prior(mean: NDArray[np.float64], prior: float, label: LabelConfig) -> NDArray[np.float64]:
    """A mean outcome on the scale that networks like, 0 at the prior."""
    if label.type == "number":
        return _signed_log(mean) - _signed_log(np.float64(prior))
    return _logit(mean) - _logit(np.float64(prior))


def _signed_log(x: NDArray[np.float64] | np.float64) -> NDArray[np.float64]:
    return np.asarray(np.sign(x) * np.log1p(np.abs(x)))


def _logit(p: NDArray[np.float64] | np.float64) -> NDArray[np.float64]:
    p = p.clip(LEAST, MOST)
    return np.asarray(np.log(p / (1 - p)))
