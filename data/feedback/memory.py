"""Users' requests and events in memory: a cache of the database that is never behind it.

What is not yet on disk is always here; a user is forgotten only when all of it is on disk, the least recently used first.
"""

from collections import OrderedDict
from dataclasses import dataclass, field

from data.feedback.requests import Request

Key = tuple[str, str]
"""Bundle name and user."""


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
        most_items: served items that are kept in all, as far as users can be forgotten.
    """

    def __init__(self, most_items: int) -> None:
        self.most_items = most_items
        self.epoch = 0  # changes when something was forgotten
        self._clear()

    def _clear(self) -> None:
        self.users: OrderedDict[Key, User] = OrderedDict()
        self.requests: dict[str, Request] = {}
        self._items = 0

    def user(self, key: Key) -> User:
        user = self.users.setdefault(key, User())
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
        self._items += len(request.items)
        return request

    def pin(self, key: Key) -> User:
        """The user, not to be forgotten until ``pinned`` is counted down again."""
        user = self.user(key)
        user.pinned += 1
        return user

    def shrink(self) -> None:
        """Forget users until the rest fits."""
        for key in list(self.users) if self._items > self.most_items else ():
            if self._items <= self.most_items:
                return
            if not self.users[key].pinned:
                self._forget(key)

    def _forget(self, key: Key) -> None:
        for request in self.users.pop(key).requests.values():
            del self.requests[request.request_id]
            self._items -= len(request.items)
        self.epoch += 1

    def forget_all(self) -> None:
        self._clear()
        self.epoch += 1
