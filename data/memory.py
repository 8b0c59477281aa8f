"""Freed memory, given back to the system."""

import ctypes
from contextlib import suppress


def give_back() -> None:
    """The C library keeps freed memory for the next time: swaps of bundles, and large days, would seem to leak."""
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL("libc.so.6").malloc_trim(0)
