"""Rows of many ids at once.

A dictionary misses the cache four or five times for an id, and each time waits before it goes on: some 0.5 µs an id where
scoring has just been through the cache. Arrays are looked into for all ids together, so that the misses overlap.
"""

from collections.abc import Mapping, Sequence
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from data.features.asof import Ints

FEW = 64
"""So few ids the dictionary finds as fast."""
LONGEST = 63
"""Characters of an id; catalogues with longer ones have the dictionary alone."""
ROOM = 8
"""Slots for each id, at least: so that at most one in sixteen finds its own taken."""
WORD = np.dtype(np.uint64)

Words = NDArray[np.uint64]


class IdRows:
    """Where ids stand in a sequence.

    An id has one slot, by a hash of its characters; in the slot is a row, and the row's own characters are compared with
    the id's. What isn't found so (its slot is another's, or it is unknown) the dictionary is asked for.

    Args:
        ids: different ones, without NUL characters.
    """

    def __init__(self, ids: Sequence[str]) -> None:
        self.of: Mapping[str, int] = {text: row for row, text in enumerate(ids)}
        self._width = -(-(max(map(len, ids), default=0) + 1) // WORD.itemsize)  # in words; each id ends with a NUL
        words = self._words(ids) if ids and self._width * WORD.itemsize <= LONGEST + 1 else None
        if words is None:
            words = np.zeros((0, self._width), np.uint64)
        bits = max(ROOM * len(words) - 1, 1).bit_length()
        self._texts, self._shift = words, np.uint64(64 - bits)
        self._factors = np.random.default_rng(1).integers(0, 2**64, self._width, np.uint64) | np.uint64(1)
        self._slots = np.zeros(1 << bits, np.int32)
        self._slots[self._slot(words)] = np.arange(len(words))

    def rows(self, ids: Sequence[str]) -> Ints:
        """The row of each id [n], -1 where it has none."""
        words = self._words(ids) if len(ids) >= FEW and len(self._texts) else None
        if words is None:
            return np.fromiter(map(self.of.get, ids, repeat(-1)), np.int64, len(ids))
        rows = self._slots[self._slot(words)].astype(np.int64)
        other = np.flatnonzero(self._texts[rows] != words) // self._width
        for place in other.tolist():
            rows[place] = self.of.get(ids[place], -1)
        return rows

    def _words(self, ids: Sequence[str]) -> Words | None:
        """The characters [n, width], one a byte, of longer ids the first; None where some don't fit into a byte."""
        characters = np.array(ids, f"U{self._width * WORD.itemsize}").view(np.uint32)
        return None if characters.max(initial=0) > 255 else characters.astype(np.uint8).view(WORD).reshape(-1, self._width)

    def _slot(self, words: Words) -> Ints:
        return np.asarray((words * self._factors).sum(axis=1) >> self._shift).view(np.int64)
