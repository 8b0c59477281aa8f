"""Numbers of texts, looked up one by one and many at once."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from data.columns import Strings
from data.features.view import numbers_of
from data.vocabulary import ASKED, FEW, Numbering, Vocabulary

MANY = [f"t{i}" for i in range(2 * FEW)]


def test_numbers_of_many_texts_are_those_of_each() -> None:
    vocabulary = Vocabulary(["a", "b"])
    assert vocabulary.known(["b", "x", "a"]).tolist() == [1, -1, 0, -1]
    assert vocabulary.known(vocabulary.texts).tolist() == [0, 1, -1]
    assert vocabulary.known([]).tolist() == [-1]


def test_a_list_asked_for_again_is_answered_with_what_was_added_since() -> None:
    vocabulary, texts = Vocabulary(MANY[:10]), list(MANY)
    first = vocabulary.known(texts)
    assert first.tolist() == [*range(10), *[-1] * (len(MANY) - 10), -1]
    vocabulary.add(reversed(MANY))
    again = vocabulary.known(texts)
    assert again.tolist() == [*map(vocabulary.get, MANY), -1]
    assert first[10] == -1  # an answer given is not changed
    vocabulary.forget()
    assert vocabulary.known(texts).tolist() == again.tolist()


def test_of_many_lists_those_asked_for_last_are_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    vocabulary, lists = Vocabulary(MANY), [[*MANY, f"of {i}"] for i in range(ASKED + 1)]
    expected = [*range(len(MANY)), -1, -1]
    assert all(vocabulary.known(texts).tolist() == expected for texts in lists)
    monkeypatch.setattr(vocabulary, "_look_up", lambda texts: pytest.fail("looked up again"))
    assert all(vocabulary.known(texts).tolist() == expected for texts in lists[1:])
    with pytest.raises(pytest.fail.Exception):
        vocabulary.known(lists[0])


def test_a_list_that_has_grown_is_answered_whole() -> None:
    """As that of another vocabulary, from day to day."""
    vocabulary, texts = Vocabulary(MANY), MANY[:-5]
    vocabulary.known(texts)
    texts += ["new", *MANY[-5:]]
    vocabulary.add(["new"])
    assert vocabulary.known(texts).tolist() == [*map(vocabulary.get, texts), -1]


def test_numbers_of_a_column_are_those_of_its_texts() -> None:
    vocabulary, rows = Vocabulary(MANY), np.array([3, -1, 0, 3], np.int32)
    many = [*reversed(MANY), "other"]
    asked = [Strings(rows, vocabulary.texts), Strings(rows, ["a", *MANY[:2], "b"]), Strings(rows, many)]
    expected = [[None if text is None else vocabulary.get(text) for text in column.tolist()] for column in asked]
    for _ in range(2):  # of the last one, without its whole list at hand, and with it
        for column, numbers in zip(asked, expected, strict=True):
            assert vocabulary.number(column).tolist() == [-1 if number is None else number for number in numbers]
        vocabulary.known(many)


def test_a_numbering_goes_on_behind_its_vocabulary_and_leaves_it_alone() -> None:
    vocabulary = Vocabulary(["a", "b"])
    numbering = Numbering(vocabulary)
    assert numbering.numbers(["x", "b", "y"]).tolist() == [2, 1, 3, -1]
    assert numbering("x") == 2
    assert numbering.known(["y", "z"]).tolist() == [3, -1, -1]
    assert numbering.texts() == ["a", "b", "x", "y"]
    assert Numbering(numbering).numbers(["z", "x"]).tolist() == [4, 2, -1]
    assert vocabulary.texts == ["a", "b"]
    assert numbering.numbers(["z"]).tolist() == [4, -1]


def test_texts_that_are_the_vocabularys_own_are_numbered_already() -> None:
    vocabulary = Vocabulary(MANY)
    column = Strings(Strings.of(["a", None, "c"]).codes, vocabulary.texts)
    assert numbers_of(column, Numbering(vocabulary)) is column.codes
    numbering = Numbering(vocabulary)
    numbering("new")
    coded = Strings(column.codes, numbering.texts())
    assert numbers_of(coded, numbering).tolist() == column.codes.tolist()


def test_threads_give_no_number_twice() -> None:
    numbering = Numbering(Vocabulary(["a"]))
    parts = [[f"{part}-{i}" for i in range(500)] + ["both"] for part in range(8)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(numbering.numbers, parts))
    numbers = {number for part in found for number in part[:-2].tolist()}
    assert len(numbers) == 4000
    assert len({int(part[-2]) for part in found}) == 1
    assert numbering.texts()[int(found[3][7])] == "3-7"
