"""What goes on beside the answers."""

from types import SimpleNamespace
from typing import Any

from service.operations import EVERY, RECENT, Operations


def test_the_first_requests_are_remembered_and_then_some_of_all() -> None:
    operations = Operations(runtime_with_nothing_on_trial())
    for number in range(RECENT + 100 * EVERY):
        operations.answered(slate(number), serving=None, seconds=0.0)  # type: ignore[arg-type]
        if number == RECENT - 1:
            assert numbers(operations) == list(range(RECENT))
    assert numbers(operations) == [RECENT + EVERY * turn for turn in range(100 - RECENT, 100)]


def numbers(operations: Operations) -> list[int]:
    return [query.number for query in operations._recent]  # type: ignore[attr-defined]


def slate(number: int) -> Any:
    query = SimpleNamespace(number=number, history_videos=frozenset(), exclude=frozenset())
    return SimpleNamespace(query=query, version=1)


def runtime_with_nothing_on_trial() -> Any:
    return SimpleNamespace(slot=SimpleNamespace(canary=None, shadow=None))
