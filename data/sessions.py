"""The ordinal of an impression within the user's session: a proxy for the position, where the log has none.

A session ends when a user has had no impression for longer than ``session_gap``. The ordinal looks only backwards, and
says how far into a session an impression came, not where on a screen it stood.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Ints = NDArray[np.int64]


class Sessions:
    """Running state, to be fed rows in order of time: of every user whose session may go on, the last impression (ms)
    and its ordinal."""

    def __init__(self, gap_ms: int, state: pa.Table | None = None) -> None:
        self.gap_ms = gap_ms
        self.users: Any = pa.array([], pa.string()) if state is None else state.column("user_id").combine_chunks()
        self.last: Ints = np.zeros(0, np.int64) if state is None else state.column("last").to_numpy()
        self.ordinal: Ints = np.zeros(0, np.int64) if state is None else state.column("ordinal").to_numpy()

    def table(self) -> pa.Table:
        """The state, sorted by user, for another :class:`Sessions` to go on from."""
        return pa.table({"user_id": self.users, "last": self.last, "ordinal": self.ordinal}).sort_by("user_id")

    def ordinals(self, users: pa.Array, times: Ints) -> NDArray[np.int32]:
        """The ordinals [n], from 0, of rows sorted by time, later than all rows before."""
        if not len(times):
            return np.zeros(0, np.int32)
        encoded = users.dictionary_encode()
        codes = encoded.indices.to_numpy()
        by_user = np.argsort(codes, kind="stable")
        user, time = codes[by_user], times[by_user]
        first = np.append(True, user[1:] != user[:-1])  # of the user's rows here
        known, last, ordinal = self._before(encoded.dictionary)
        waited = time - np.where(first, last[user], np.append(0, time[:-1]))
        goes_on = (waited <= self.gap_ms) & (~first | known[user])
        starts = first | ~goes_on
        counted = _count_from(starts, np.where(first & goes_on, ordinal[user] + 1, 0))
        ends = np.append(first[1:], True)
        self._remember(encoded.dictionary.take(pa.array(user[ends])), time[ends], counted[ends], int(times[-1]))
        result = np.empty(len(times), np.int32)
        result[by_user] = counted
        return result

    def _before(self, users: pa.Array) -> tuple[NDArray[np.bool_], Ints, Ints]:
        """Of each of these users: whether there is a state, its time and its ordinal."""
        place = pc.fill_null(pc.index_in(users, value_set=self.users), -1).to_numpy(zero_copy_only=False)
        known = place >= 0
        last, ordinal = (np.append(values, 0)[place] for values in (self.last, self.ordinal))
        return known, last, ordinal

    def _remember(self, users: pa.Array, last: Ints, ordinal: Ints, now: int) -> None:
        others = pc.invert(pc.is_in(self.users, value_set=users)).to_numpy(zero_copy_only=False).astype(bool)
        self.users = pa.concat_arrays([self.users.filter(pa.array(others)), users])
        self.last = np.concatenate([self.last[others], last])
        self.ordinal = np.concatenate([self.ordinal[others], ordinal])
        self.forget_before(now)

    def forget_before(self, time: int) -> None:
        """Drop the users whose session can't go on at ``time``."""
        alive = time - self.last <= self.gap_ms
        self.users, self.last, self.ordinal = self.users.filter(pa.array(alive)), self.last[alive], self.ordinal[alive]


def _count_from(starts: NDArray[np.bool_], values: Ints) -> Ints:
    """Counting up by one from ``values`` at every start [n]; the first row is one."""
    places = np.flatnonzero(starts)
    run = np.cumsum(starts) - 1
    return np.asarray(np.arange(len(starts)) - places[run] + values[places][run])
