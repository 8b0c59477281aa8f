"""Freed memory, kept for the next time or given back to the system; and files mapped into memory, read before they are
wanted."""

import ctypes
import mmap
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

KEPT = 1 << 30
"""Bytes: arrays up to so many are cut from memory that was freed before."""
ARENA_MAX, MMAP_THRESHOLD, TRIM_THRESHOLD = -8, -3, -1
"""Of the C library's ``mallopt``."""


def keep_freed() -> None:
    """Use freed memory again, whichever thread freed it, until :func:`give_back`. For a process that computes with large
    arrays, before its first thread.

    The C library's way is to ask the system for each large array anew, and for each thread apart: a third of the time
    that features of ten million rows took was the system's, which clears every page at its first touch.
    """
    with suppress(OSError, AttributeError):  # another C library
        library = ctypes.CDLL("libc.so.6")
        for option, value in ((ARENA_MAX, 1), (MMAP_THRESHOLD, KEPT), (TRIM_THRESHOLD, KEPT)):
            library.mallopt(option, value)


def give_back() -> None:
    """The C library keeps freed memory for the next time: swaps of bundles, and large days, would seem to leak."""
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def will_read(array: NDArray[Any], starts: NDArray[np.int64], rows: int) -> None:
    """Ask for the ``rows`` rows from each of ``starts`` of an array that is a mapped file (else nothing happens).

    Unasked, the first touch of a page has the system read what lies around it, up to its read-ahead (megabytes), and wait.
    """
    mapped = array.base
    if not isinstance(mapped, np.memmap) or not isinstance(mapped.base, mmap.mmap) or mapped.shape != array.shape:
        return
    if not array.size:  # rows without columns have strides all the same
        return
    row, begin = array.strides[0], mapped.offset % mmap.ALLOCATIONGRANULARITY
    for start in starts.tolist():
        mapped.base.madvise(mmap.MADV_WILLNEED, *stretch(begin + start * row, rows * row, len(mapped.base)))


def stretch(start: int, length: int, end: int) -> tuple[int, int]:
    """The start and the length, in bytes, of what holds ``length`` bytes from ``start`` up to ``end`` at most, from the
    start of a page."""
    page = start // mmap.PAGESIZE * mmap.PAGESIZE
    return page, min(start + length, end) - page
