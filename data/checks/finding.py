"""What a check found."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Finding:
    """Rows that fail a check.

    Attributes:
        reason: one word; summaries count by it.
        detail: the column and what was expected of it.
        bad: [n] whether each row fails.
    """

    reason: str
    detail: str
    bad: NDArray[np.bool_]


def first_findings(findings: Sequence[Finding], n: int) -> NDArray[np.int64]:
    """For each of n rows the index of the first finding it is in, -1 where it is in none."""
    first = np.full(n, -1, np.int64)
    for i, finding in enumerate(findings):
        first[finding.bad & (first < 0)] = i
    return first
