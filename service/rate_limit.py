"""Token buckets: each caller gets so many requests a second, and may save some up for a burst. Memory is bounded."""

from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from time import monotonic

MOST_CALLERS = 10_000


class Buckets:
    """One bucket a caller, ``rate`` tokens a second up to ``burst``. Used by the event loop alone, so it has no lock.

    Of more than ``most`` callers the one not heard of for longest is forgotten; its bucket has had the longest to fill.
    """

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = monotonic, most: int = MOST_CALLERS) -> None:
        self._rate, self._burst, self._clock, self._most = rate, burst, clock, most
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, and when they were counted

    def take(self, caller: str) -> float:
        """Take one token. Returns 0, or the seconds until there will be one."""
        now = self._clock()
        tokens, since = self._levels.pop(caller, (self._burst, now))
        tokens = min(self._burst, tokens + max(0.0, now - since) * self._rate)
        enough = tokens >= 1
        self._levels[caller] = (tokens - enough, now)
        if len(self._levels) > self._most:
            self._levels.popitem(last=False)
        return 0.0 if enough else (1 - tokens) / self._rate

    def __len__(self) -> int:
        return len(self._levels)


@lru_cache(1024)
def caller_of(address: str) -> str:
    """Whose bucket an address is: its own, or of IPv6 that of its /64, which one subscriber has whole."""
    try:
        ip = ip_address(address)
    except ValueError:
        return address
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return f"{IPv6Address(int(ip) >> 64 << 64)}/64" if isinstance(ip, IPv6Address) else str(ip)
