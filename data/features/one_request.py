"""One request, as its own features see it."""

from collections.abc import Callable
from functools import cached_property

from data.columns import StringLists, Strings
from data.config import RateFeature
from data.features.entries import Entries
from data.features.view import View
from data.vocabulary import Numbering


class Moment:
    """One request: what it says, its times and its user's entries.

    Args:
        texts: of its columns of single texts, by name; empty where null.
        numberings: by vocabulary, of texts that it lacks too.
        queries: makes its view, where more is asked for.
        cutoff: the start of its day, ms.
    """

    def __init__(
        self,
        texts: dict[str, list[str]],
        numberings: dict[str, Numbering],
        queries: Callable[[], View],
        time: int,
        cutoff: int,
        entries: Entries,
    ) -> None:
        self.numberings, self.time, self.cutoff, self.entries = numberings, time, cutoff, entries
        self._texts, self._make = texts, queries

    @cached_property
    def queries(self) -> View:
        return self._make()

    def until(self, feature: RateFeature) -> int:
        """Before when an entry must have begun to count for a rate, ms."""
        return self.time if feature.until == "moment" else self.cutoff

    def texts(self, name: str) -> list[str]:
        """The texts of the row's column."""
        found = self._texts.get(name)
        if found is None:
            found = self._texts[name] = _texts(self.queries, name)
        return found


def _texts(queries: View, name: str) -> list[str]:
    """The texts of the row's column."""
    column = queries.column(name)
    if isinstance(column, StringLists):
        return column.tolist()[0]
    assert isinstance(column, Strings)
    code = int(column.codes[0])
    return [] if code < 0 else [column.values[code]]
