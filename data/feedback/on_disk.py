"""Which users may have requests on disk that aren't in memory; of all others nothing needs to be read."""

import threading

import sqlalchemy as sa
import structlog

from data.database import reading
from data.errors import WatchNextError
from data.feedback.schema import served

BITS = 1 << 23
HASHES = 3
ROWS = 10_000
"""That are read at a time, so that the reading holds up nobody."""

log = structlog.get_logger()


class OnDisk:
    """A Bloom filter (1 MB): of a user that was added it says yes for certain, of a few others too.

    It says yes of everybody until :meth:`read` has gone through the users that were on disk at the beginning.
    """

    def __init__(self) -> None:
        self._bits = bytearray(BITS // 8)
        self._complete, self._lock = threading.Event(), threading.Lock()
        self._closed = False
        self._thread: threading.Thread | None = None

    def add(self, name: str, user_id: str) -> None:
        with self._lock:
            for bit in _bits_of(name, user_id):
                self._bits[bit >> 3] |= 1 << (bit & 7)

    def may_hold(self, name: str, user_id: str) -> bool:
        if not self._complete.is_set():
            return True
        return all(self._bits[bit >> 3] >> (bit & 7) & 1 for bit in _bits_of(name, user_id))

    def start(self, engine: sa.Engine) -> None:
        """Begin to read, in a thread of its own."""
        self._thread = threading.Thread(target=self.read, args=(engine,), name="users on disk", daemon=True)
        self._thread.start()

    def read(self, engine: sa.Engine) -> None:
        """Take in all users on disk. Where they can't be read, everybody may be there, as before."""
        last: tuple[str, str] = ("", "")
        users = sa.select(served.c.name, served.c.user_id).distinct().order_by(served.c.name, served.c.user_id).limit(ROWS)
        try:
            while not self._closed:
                later = sa.or_(served.c.name > last[0], sa.and_(served.c.name == last[0], served.c.user_id > last[1]))
                with reading(engine) as connection:
                    found = connection.execute(users.where(served.c.name >= last[0], later)).all()
                for name, user_id in found:
                    self.add(name, user_id)
                if len(found) < ROWS:
                    return self._complete.set()
                last = (found[-1].name, found[-1].user_id)
        except WatchNextError as error:
            log.warning("the users on disk can't be read: every profile will be asked for", reason=str(error))

    def wait(self) -> bool:
        """Until the reading is done, for a while."""
        return self._complete.wait(60)

    def close(self) -> None:
        self._closed = True
        if self._thread is not None:
            self._thread.join()


def _bits_of(name: str, user_id: str) -> list[int]:
    first, step = divmod(hash((name, user_id)), 1 << 32)
    return [(first + n * (step | 1)) % BITS for n in range(HASHES)]
