"""What a client tells of a served item, and what becomes of it."""

import math
from dataclasses import dataclass
from typing import Literal

from data.config import Config, LabelConfig
from data.feedback.requests import Request, Sight
from data.feedback.windows import VIEW

Status = Literal["accepted", "duplicate", "late", "orphan", "rejected"]

LARGEST = 1e12
"""No value is further from 0."""


@dataclass(frozen=True)
class Event:
    """``type`` is ``view`` or that of a label (``config.event_types``). ``value`` of a number in natural units; a binary
    label's is left out, or 1. ``timestamp`` is the client's: it is kept and counted, and decides nothing."""

    event_id: str
    request_id: str
    video_id: str
    type: str
    value: float | None = None
    timestamp: int | None = None
    user_id: str | None = None


@dataclass(frozen=True)
class Fate:
    """What became of an event. All but ``rejected`` and ``duplicate`` are stored; only ``accepted`` ones are joined.

    ``reason`` says of a rejected one what is wrong with it (``type``, ``value``, ``negative``, ``range``), of an orphan what
    is not known (``request``, ``video``) or not the request's (``user``), of an accepted one that the client's clock is off
    (``early``: before the request, ``future``).
    """

    event_id: str
    status: Status
    reason: str | None = None


class Rules:
    """What of a configuration decides an event's fate, looked up once."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.sight = Sight.of(config)
        self.labels: dict[str, LabelConfig | None] = {VIEW: None}
        self.windows = {VIEW: self.sight.window}
        for kind, label in config.event_types.items():
            self.labels[kind], self.windows[kind] = config.labels[label], config.window(label)
        self._allowance = round(1000 * config.events.future_allowance)

    def judge(self, event: Event, request: Request | None, received_at: int) -> Fate:
        """The fate of an event that was never met before; ``request`` is the one it names, where there is one."""
        if (wrong := self._wrong(event)) is not None:
            return Fate(event.event_id, "rejected", wrong)
        if request is None or (unknown := _unknown(event, request)) is not None:
            return Fate(event.event_id, "orphan", "request" if request is None else unknown)
        if received_at > request.timestamp + self.windows[event.type] or self._never_seen(event, request, received_at):
            return Fate(event.event_id, "late")
        return Fate(event.event_id, "accepted", self.clock_of(event, request, received_at))

    def _wrong(self, event: Event) -> str | None:
        if event.type not in self.labels:
            return "type"
        label = self.labels[event.type]
        if label is None:
            return None
        if label.type == "binary":
            return None if event.value is None or event.value == 1 else "value"
        if event.value is None or not math.isfinite(event.value):
            return "value"
        if event.value < (0 if label.minimum is None else label.minimum):
            return "negative" if event.value < 0 else "range"
        return "range" if event.value > (LARGEST if label.maximum is None else label.maximum) else None

    def _never_seen(self, event: Event, request: Request, received_at: int) -> bool:
        """Whether the item can't become an impression any more, so that nothing can be joined to it."""
        until = request.timestamp + self.sight.window
        return received_at > until and not request.is_seen(self.sight, event.video_id)

    def clock_of(self, event: Event, request: Request, received_at: int) -> str | None:
        """``early`` or ``future`` where the client's time can't be right."""
        if event.timestamp is None:
            return None
        if event.timestamp > received_at + self._allowance:
            return "future"
        return "early" if event.timestamp < request.timestamp else None


def _unknown(event: Event, request: Request) -> str | None:
    if event.video_id not in request.place:
        return "video"
    return None if event.user_id is None or event.user_id == request.user_id else "user"
