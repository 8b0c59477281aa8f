"""Users' requests and events in memory: a cache of the database that is never behind it.

What is not yet on disk is always here; a user is forgotten only when all of it is on disk, the least recently used first.
"""

from collections import OrderedDict
from dataclasses import dataclass, field

from data.feedback.on_disk import OnDisk
from data.feedback.requests import Request

Key = tuple[str, str]
"""Bundle name and user."""


USER, REQUEST = 5, 20
"""What a user and a request weigh, in items: about 150 bytes each."""
KEPT_MS = 3 * 86_400_000
"""How long before what is asked for a request is kept: a rollback may ask for more than the last bundle did."""
RELIEF = 0.9
"""The share that is kept when there is too much, so that forgetting is rare."""


@dataclass
class User:
    """``since``: all requests at or after it (ms) are here; None: only some are. ``pinned`` counts what keeps the user
    in memory: operations that are not on disk, and reads under way."""

    requests: dict[str, Request] = field(default_factory=dict)
    since: int | None = None
    pinned: int = 0

    def at_hand(self, since: int) -> bool:
        return self.since is not None and self.since <= since


class Memory:
    """Not for several threads at once: the caller holds a lock.

    Args:
        most: what is kept in all, in served items (a user and a request weigh as some), as far as users can be forgotten.
        on_disk: is told of the users of whom anything was forgotten.
    """

    def __init__(self, most: int, on_disk: OnDisk | None = None) -> None:
        self.most = most
        self._on_disk = on_disk or OnDisk()
        self.epoch = 0  # changes when something was forgotten
        self._clear()

    def _clear(self) -> None:
        self.users: OrderedDict[Key, User] = OrderedDict()
        self.requests: dict[str, Request] = {}
        self._weight = 0

    def user(self, key: Key) -> User:
        user = self.users.get(key)
        if user is None:
            user = self.users[key] = User()
            self._weight += USER
        self.users.move_to_end(key)
        return user

    def adopt(self, request: Request) -> Request:
        """Take a request in, or into the one that is there already the events that it lacks; returns the one kept."""
        there = self.requests.get(request.request_id)
        if there is not None:
            for event in request.events.values():
                there.add(event)
            return there
        self.requests[request.request_id] = request
        self.user((request.name, request.user_id)).requests[request.request_id] = request
        self._weight += REQUEST + len(request.items)
        return request

    def knows_nothing(self, key: Key) -> bool:
        """Whether there is nothing of a user, here or on disk."""
        return key not in self.users and not self._on_disk.may_hold(*key)

    def at_hand(self, key: Key, since: int) -> bool:
        """Whether all requests of a user at or after ``since`` (ms) are here."""
        user = self.users.get(key)
        return not self._on_disk.may_hold(*key) if user is None or user.since is None else user.at_hand(since)

    def complete(self, user: User, key: Key) -> None:
        """Note that all of a user is here, where nothing of it is only on disk."""
        if user.since is None and not self._on_disk.may_hold(*key):
            user.since = 0

    def pin(self, key: Key) -> User:
        """The user, not to be forgotten until ``pinned`` is counted down again."""
        user = self.user(key)
        user.pinned += 1
        return user

    def shrink(self) -> None:
        """Where there is too much, forget users until the rest fits well."""
        if self._weight <= self.most:
            return
        for key in [key for key, user in self.users.items() if not user.pinned]:
            if self._weight <= RELIEF * self.most:
                return
            self._forget(key)

    def trim(self, user: User, since: int) -> None:
        """Forget what is so old that no bundle is likely to ask for it again, where nothing of the user waits for the disk;
        ``since`` (ms) is what is asked for now."""
        before = since - KEPT_MS
        if user.since is None or user.since >= before - KEPT_MS or user.pinned > 1:
            return
        for request in [request for request in user.requests.values() if request.timestamp < before]:
            del user.requests[request.request_id]
            self._drop(request)
        user.since = before

    def _forget(self, key: Key) -> None:
        for request in self.users.pop(key).requests.values():
            self._drop(request)
        self._weight -= USER
        self.epoch += 1

    def _drop(self, request: Request) -> None:
        self._on_disk.add(request.name, request.user_id)
        del self.requests[request.request_id]
        self._weight -= REQUEST + len(request.items)
        self.epoch += 1

    def forget_all(self) -> None:
        for name, user_id in self.users:
            self._on_disk.add(name, user_id)
        self._clear()
        self.epoch += 1
