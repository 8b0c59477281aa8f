"""What an experiment's users did on each day, as plain arrays: where it is stored matters to no statistic."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class UserDays:
    """Users [n] and rows [r], one for each user and day on which there is something to say.

    Days count from the experiment's first, 0; those before it are negative. Rows of a user between the start and the
    entry belong to neither side and should not be there.
    """

    arm: Ints  # [n] the number of the user's arm
    entry: Ints  # [n] the day of the user's first request in the experiment
    looks: int  # L: days of the experiment that are there, from its first
    user: Ints  # [r]
    day: Ints  # [r]
    columns: Mapping[str, Floats]  # each [r], added up over the day

    def __len__(self) -> int:
        return len(self.arm)

    @cached_property
    def entered(self) -> Bools:
        """[n, L] who was in the experiment by the end of each day."""
        return self.entry[:, None] <= np.arange(self.looks)

    def cumulative(self, column: str) -> Floats:
        """[n, L] totals from the user's entry to the end of each day."""
        inside = (self.day >= 0) & (self.day < self.looks)
        cell = self.user[inside] * self.looks + self.day[inside]
        totals = np.bincount(cell, self.columns[column][inside], len(self) * self.looks).astype(np.float64, copy=False)
        return np.asarray(np.cumsum(totals.reshape(len(self), self.looks), axis=1))

    def before(self, column: str) -> Floats:
        """[n] totals over the days before the experiment."""
        early = self.day < 0
        return np.bincount(self.user[early], self.columns[column][early], len(self)).astype(np.float64)
