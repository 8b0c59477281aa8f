"""The user and context sides of one request: :func:`data.features.spec.encode_sides` of one row, prepared for a bundle.

What depends on a user's row of the users' table alone, or on the user's past alone, is encoded beforehand, all else by short
ways. The results are the same to the bit, which the tests hold it to.
"""

from collections.abc import Mapping

import numpy as np

from data.columns import Batch
from data.config import Side
from data.features.encoded_rows import EncodedRows
from data.features.entries import Labels
from data.features.layout import Block, SideLayout
from data.features.one_request import Moment
from data.features.past import Past
from data.features.rates import Totals
from data.features.settled import SettledUsers, settled_features
from data.features.short_ways import ShortWays
from data.features.spec import Knowledge
from data.features.tables import Tables
from data.features.user_rows import user_rows

ROW: tuple[Side, ...] = ("user", "context")


class SingleRow:
    """Encodes one request at a time; any number of threads may share it.

    Args:
        recent: the rows that users' pasts are taken from.
        nobody: a past without entries.
        settled: what is settled of users, where the bundle has it.
    """

    def __init__(
        self, know: Knowledge, tables: Tables, recent: Batch, nobody: Past, settled: SettledUsers | None = None
    ) -> None:
        self._users = tables.get("users")
        sides = {side: know.layout.sides[side] for side in ROW}
        ints: dict[str, slice] = {}
        floats: dict[str, slice] = {}
        at_int = at_float = 0
        for layout in sides.values():
            ints |= {f.feature: _behind(at_int, f.offset, f.width) for f in layout.ints}
            floats |= {f.feature: _behind(at_float, f.offset, f.width) for f in layout.floats}
            at_int, at_float = at_int + layout.int_width, at_float + layout.float_width
        self._widths = at_int, at_float
        self._cuts = {side: _cut(sides, side) for side in ROW}
        self.labels = Labels(know.config)
        features = [f for f in know.config.features if f.name in ints or f.name in floats]
        self._user_rows = self._settled = None
        if self._users is not None:
            self._user_rows = user_rows(know, self._users, ints, floats, nobody)
            features = [f for f in features if f.name not in self._user_rows.features]
        columns = {**(tables["videos"].batch.columns if "videos" in tables else {}), **recent.columns}
        self._all = self._moving = ShortWays(features, know, ints, floats, columns)
        if settled is not None:
            names = [feature.name for feature in settled_features(know.config)]
            self._settled = EncodedRows(names, settled.ints, settled.floats, ints, floats)
            moving = [feature for feature in features if feature.name not in names]
            self._moving = ShortWays(moving, know, ints, floats, columns)

    def encode(self, moment: Moment, totals: Mapping[str, Totals]) -> dict[Side, Block]:
        """The blocks of one row.

        Args:
            totals: the knowledge's, or others where something is to be forgotten.
        """
        ints, floats = np.zeros(self._widths[0], np.int32), np.zeros(self._widths[1], np.float32)
        if self._users is not None and self._user_rows is not None and self._user_rows.features:
            self._user_rows.put(self._users.row_at(moment.texts("user_id")[0], moment.time), ints, floats)
        settled = moment.entries.settled
        if self._settled is None or settled is None:
            self._all.put(moment, totals, ints, floats)
        else:
            self._settled.put(settled.row, ints, floats)
            self._moving.put(moment, totals, ints, floats)
        return {side: Block(ints[None, at_int], floats[None, at_float]) for side, (at_int, at_float) in self._cuts.items()}


def _cut(sides: Mapping[Side, SideLayout], until: Side) -> tuple[slice, slice]:
    """Where a side's ints and floats lie among those of all sides."""
    before = list(sides)[: list(sides).index(until)]
    ints, floats = sum(sides[side].int_width for side in before), sum(sides[side].float_width for side in before)
    return _behind(ints, 0, sides[until].int_width), _behind(floats, 0, sides[until].float_width)


def _behind(start: int, offset: int, width: int) -> slice:
    return slice(start + offset, start + offset + width)
