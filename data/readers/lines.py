"""Text files in blocks of whole lines, plain or gzipped."""

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from data.errors import LogError

BLOCK_BYTES = 16 << 20
LONGEST_LINE = 64 << 20


@dataclass(frozen=True)
class Block:
    """Whole lines of a file, their breaks normalised to one newline each.

    Attributes:
        text: the lines; ends with a newline unless the file ends without one.
        first: number of the first line in the file, from 1.
        bytes_read: position in the (compressed) file.
    """

    text: bytes
    first: int
    bytes_read: int

    @property
    def complete(self) -> bool:
        return self.text.endswith(b"\n")

    def lines(self) -> list[bytes]:
        lines = self.text.split(b"\n")
        return lines[:-1] if self.complete else lines

    def starts(self) -> NDArray[np.int64]:
        """Where each line starts, and where one after the last would [lines + 1]."""
        breaks = np.flatnonzero(np.frombuffer(self.text, np.uint8) == 10) + 1
        ends = breaks if self.complete else np.append(breaks, len(self.text) + 1)
        return np.concatenate([[0], ends]).astype(np.int64)


def read_blocks(path: Path, block_bytes: int = BLOCK_BYTES) -> Iterator[Block]:
    """The file's lines, in blocks of about ``block_bytes``. A gzip stream that is cut ends where it is cut.

    Raises:
        LogError: the file cannot be read, or a line is longer than any row.
    """
    first, rest = 1, b""
    try:
        with path.open("rb") as raw:
            stream = cast(IO[bytes], gzip.GzipFile(fileobj=raw)) if path.suffix == ".gz" else raw
            while piece := _read(stream, block_bytes):
                text = rest + piece
                cut = text.rfind(b"\n") + 1
                text, rest = text[:cut], text[cut:]
                if len(rest) > LONGEST_LINE:
                    raise LogError(f"{path}: line {first} is longer than {LONGEST_LINE >> 20} MB: not a text file of rows?")
                if text:
                    block = Block(text.replace(b"\r\n", b"\n"), first, raw.tell())
                    yield block
                    first += block.text.count(b"\n")
            if rest:
                yield Block(rest, first, raw.tell())
    except OSError as error:
        raise LogError(f"cannot read {path}: {error.strerror or error}") from None


def _read(stream: IO[bytes], size: int) -> bytes:
    """Up to ``size`` bytes; of a cut gzip stream, what could be unpacked."""
    pieces: list[bytes] = []
    wanted = size
    try:
        while wanted and (piece := cast(BufferedReader, stream).read1(wanted)):
            pieces.append(piece)
            wanted -= len(piece)
    except (EOFError, zlib.error):
        pass
    return b"".join(pieces)
