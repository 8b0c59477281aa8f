"""Which worker has a user: told by a hash of the user's id, and by the first digits of every request id that we make."""

import re
from zlib import crc32

_STAMPED = re.compile(r"([0-9a-f]{4})[0-9a-f]{8}8[0-9a-f]{3}a[0-9a-f]{15}")


def shard_of(text: str) -> int:
    """16 bits, the same in every process and version: the worker is this modulo their number."""
    return crc32(text.encode(errors="surrogatepass")) & 0xFFFF


def stamped(request_id: str, user_id: str) -> str:
    """A random id of 32 hexadecimal digits that begins with the user's shard. It is a UUID of version 8, the custom one, so
    that it can't be taken for one of version 4, such as ids were before they had shards."""
    return f"{shard_of(user_id):04x}{request_id[4:12]}8{request_id[13:16]}a{request_id[17:]}"


def shard_in(request_id: str) -> int | None:
    """The shard of the user whose request it was; None where the id doesn't say."""
    found = _STAMPED.fullmatch(request_id)
    return None if found is None else int(found[1], 16)
