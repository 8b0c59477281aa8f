"""Memory that a day took and no longer needs, given back to the system."""

import ctypes
from contextlib import suppress

import pyarrow as pa


def give_back() -> None:
    """Freed memory is kept by the C library and by Arrow for the next time: 0.6 GB for a day of 1.7 million rows."""
    pa.default_memory_pool().release_unused()
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL("libc.so.6").malloc_trim(0)
