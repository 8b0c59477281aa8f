"""Token buckets that several processes share: a table in a mapped file, one process at it at a time."""

import fcntl
import mmap
import os
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from struct import Struct
from time import monotonic

SETS, WAYS = 1_024, 16
"""16,384 callers at most: a caller belongs to one set, by a hash, and the one not heard of for longest is forgotten."""
DIGEST = 16
_ENTRY = Struct(f"={DIGEST}sdd")
_SET = Struct("=" + WAYS * f"{DIGEST}sdd")


class SharedBuckets:
    """As :class:`service.rate_limit.Buckets`: ``rate`` tokens a second up to ``burst``, for a caller's requests to all
    processes together. Times are of the machine's monotonic clock, which is the same for all of them.

    An entry is who (a digest), how many tokens, and when they were counted; nobody was ever heard of at 0. The kernel lets
    go of a dead process's lock.
    """

    def __init__(self, path: Path, rate: float, burst: float, clock: Callable[[], float] = monotonic) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(self._file, SETS * _SET.size)
        self._table = mmap.mmap(self._file, SETS * _SET.size)

    def take(self, caller: str) -> float:
        """Take one token. Returns 0, or the seconds until there will be one."""
        who = blake2b(caller.encode(errors="surrogatepass"), digest_size=DIGEST).digest()
        start = int.from_bytes(who[:4]) % SETS * _SET.size
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            now = self._clock()
            entries = _SET.unpack_from(self._table, start)
            callers, heard = entries[::3], entries[2::3]
            if who in callers:
                way = callers.index(who)
                tokens = min(self._burst, entries[3 * way + 1] + max(0.0, now - heard[way]) * self._rate)
            else:
                way, tokens = heard.index(min(heard)), self._burst
            enough = tokens >= 1
            _ENTRY.pack_into(self._table, start + way * _ENTRY.size, who, tokens - enough, now)
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)
        return 0.0 if enough else (1 - tokens) / self._rate
