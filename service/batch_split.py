"""A batch of events told apart by worker, and the fates put together again."""

from collections.abc import Sequence
from typing import Any

import orjson

Part = tuple[int, list[int]]
"""A worker, and the places in the batch that are its."""


def rounds(owners: Sequence[int], event_ids: Sequence[str]) -> list[list[Part]]:
    """Which places go where, round after round. An id that comes twice counts once, so of two workers the second must hear
    of it after the first has it on disk: that takes a round more. Within a part the order is the batch's."""
    first: dict[str, tuple[int, int]] = {}  # by event id: the round and the worker that it came to last
    found: list[dict[int, list[int]]] = []
    for place, (owner, event_id) in enumerate(zip(owners, event_ids, strict=True)):
        number, before = first.get(event_id, (0, owner))
        number += before != owner
        first[event_id] = (number, owner)
        while len(found) <= number:
            found.append({})
        found[number].setdefault(owner, []).append(place)
    return [list(parts.items()) for parts in found]


def part_of(events: Sequence[Any], places: Sequence[int]) -> bytes:
    """The body of the batch that only has these places."""
    return orjson.dumps({"events": [events[place] for place in places]})


def put_in(fates: list[Any], places: Sequence[int], answer: bytes) -> None:
    """Write the fates of a part to their places."""
    for place, fate in zip(places, orjson.loads(answer)["events"], strict=True):
        fates[place] = fate
