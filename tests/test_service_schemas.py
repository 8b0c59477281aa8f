"""Lists of ids are checked as a whole where that says as much."""

from typing import Any

import pytest
from pydantic import Field, ValidationError, create_model

from service.schemas import MAX_CANDIDATES, Id, Ids

LISTS: list[Any] = [
    [],
    ["a"],
    ["a", "b", "a"],
    ["a" * 256],
    ["a" * 257],
    ["ü", "a"],
    ["", "a"],
    ["a", "nul\0"],
    ["a", 7],
    [7, -7, 2**70],
    ["a", True],
    ["a", 1.5, None],
    ["a", ["b"]],
    ["x\n", " "],
    [f"v{n}" for n in range(MAX_CANDIDATES)],
    [f"v{n}" for n in range(MAX_CANDIDATES + 1)],
    list(range(MAX_CANDIDATES + 1)),
    [""] * (MAX_CANDIDATES + 1),
    ("a", "b"),
    "ab",
    {"a": 1},
    None,
]


def outcome(kind: Any, value: Any) -> Any:
    """The ids, or what is wrong where."""
    model = create_model("Some", ids=(kind, Field(min_length=1, max_length=MAX_CANDIDATES)))
    try:
        return model.model_validate({"ids": value})
    except ValidationError as error:
        return [(detail["type"], detail["loc"], detail["msg"]) for detail in error.errors()]


@pytest.mark.parametrize("value", LISTS, ids=lambda value: repr(value)[:20])
def test_as_one_by_one(value: Any) -> None:
    ours, plain = outcome(Ids, value), outcome(list[Id], value)
    assert getattr(ours, "ids", ours) == getattr(plain, "ids", plain)
