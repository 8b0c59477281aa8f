"""The recent past and a day's rows as one batch, in the order of their users."""

from collections.abc import Mapping, Sequence

import numpy as np

from data.columns import Batch, Column, StringLists, Strings, concatenate, take
from data.features.asof import Ints
from data.features.past import alike
from data.features.view import numbers_of
from data.vocabulary import Numbering


def by_user(recent: Batch, today: Batch) -> Batch:
    """The rows of both, each sorted by user, in the order of their users; of each user the recent ones come first."""
    recent, today = alike(recent, today)
    if not len(recent):
        return today
    users = np.concatenate([batch.strings("user_id").codes for batch in (recent, today)])
    order = np.argsort(users, kind="stable")  # two runs, which are merged
    return Batch({name: _joined(recent, today, name, order) for name in today.columns})


def _joined(first: Batch, second: Batch, name: str, order: Ints) -> Column:
    """A column of both batches' rows, in this order. One by one: only the result is in memory beside the batches."""
    return take(concatenate(Batch({name: first[name]}), Batch({name: second[name]}))[name], order)


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
