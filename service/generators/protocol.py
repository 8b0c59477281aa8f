"""What every generator of candidates offers."""

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.indexes import Found

MOST_SKIPPED = 1_000
"""An index is asked for at most so many more than the quota, to make up for unwanted ones."""


@dataclass(frozen=True)
class Taste:
    """What a generator may go by."""

    query_video: int  # row of the catalogue; -1: there is none, or it is unknown
    recent: NDArray[np.int64]  # rows of the known videos that the user watched lately, newest first
    timestamp: int
    unwanted: AbstractSet[int]  # rows that can't be returned; skipping them keeps a quota from being spent on them


class Generator(Protocol):
    """Brings candidates from one point of view."""

    @property
    def name(self) -> str: ...

    def candidates(self, taste: Taste, quota: int) -> Sequence[int]:
        """At most ``quota`` rows of the catalogue, best first."""
        ...


@dataclass(frozen=True)
class Source:
    """A generator with its limits, which the configuration sets."""

    generator: Generator
    quota: int
    deadline_ms: float


def wanted(query: Callable[[int], Found], taste: Taste, quota: int) -> list[int]:
    """The index's first ``quota`` rows that aren't unwanted."""
    found = query(quota + min(len(taste.unwanted), MOST_SKIPPED)).rows.tolist()
    return [row for row in found if row not in taste.unwanted][:quota]
