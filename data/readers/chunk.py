"""A stretch of one source file: the rows that could be read, and the lines that could not."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


@dataclass(frozen=True)
class Damaged:
    """A line that is no row at all: where, why, and its text."""

    row: int
    reason: str
    detail: str
    text: str


@dataclass(frozen=True)
class Chunk:
    """Rows [n] of one file.

    Attributes:
        columns: the columns asked for that the file has, named and typed as it has them; text in text files.
        rows: [n] where each stands: the line in a text file (the header is line 1), the row in a Parquet file (from 1).
        digests: [n] CRC-32 of the whole row as it stands, so that rows that differ in a column nobody reads still differ.
        damaged: lines that could not be read.
        text: the original of row i of this chunk.
        bytes_read: position in the file after this chunk, for the progress bar.
    """

    columns: pa.Table
    rows: NDArray[np.int64]
    digests: NDArray[np.uint32]
    damaged: Sequence[Damaged]
    text: Callable[[int], str]
    bytes_read: int

    def __len__(self) -> int:
        return len(self.rows)
