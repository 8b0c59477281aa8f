"""What a client tells of a served item, and what becomes of it."""

from dataclasses import dataclass
from typing import Literal

Status = Literal["accepted", "duplicate", "late", "orphan", "rejected"]


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
    """What became of an event. All but ``rejected`` and ``duplicate`` are stored; only ``accepted`` ones are joined."""

    event_id: str
    status: Status
    reason: str | None = None
