"""The recent past and a day's rows as one batch, in the order of their users."""

from collections.abc import Mapping, Sequence

import numpy as np

from data.columns import Batch, Column, StringLists, Strings, concatenate, take
from data.features.asof import Ints
from data.features.view import numbers_of
from data.vocabulary import Numbering


def joined_order(recent: Batch, batch: Batch, order: Ints) -> Ints:
    """Where the rows of both, the batch's behind the recent ones, stand [m + n] in the order of their users.

    Args:
        recent: [m] sorted by user; of each user they come first.
        order: the order of the batch's rows by user [n].
    """
    if not len(recent):
        return order
    before = recent.strings("user_id").codes
    users = np.concatenate([before, batch.strings("user_id").codes[order]])  # two runs, which are merged
    return np.append(np.arange(len(before)), len(before) + order)[np.argsort(users, kind="stable")]


def joined(first: Batch, second: Batch, name: str, order: Ints) -> Column:
    """A column of both batches' rows, in this order. One by one: only the result is in memory beside the batches."""
    both = concatenate(Batch({name: first[name]}), Batch({name: second[name]})) if len(first) else second
    return take(both[name], order)


def numbered(batches: Sequence[Batch], numberings: Mapping[str, Numbering]) -> list[Batch]:
    """The batches with texts that are coded by their numbers, so that joining them compares no texts."""
    columns = [dict(batch.columns) for batch in batches]
    for name in (name for name in columns[-1] if name in numberings):
        found = [of[name] for of in columns if name in of]
        codes = [numbers_of(c.flat if isinstance(c, StringLists) else c, numberings[name]) for c in found]  # type: ignore[arg-type]
        texts = numberings[name].texts()
        for of, column, numbers in zip([of for of in columns if name in of], found, codes, strict=True):
            flat = Strings(numbers, texts)
            of[name] = StringLists(column.offsets, flat) if isinstance(column, StringLists) else flat
    return [Batch(of) for of in columns]
