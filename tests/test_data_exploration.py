"""Slates filled by lot: propensities by hand, as DESIGN.md defines them."""

from itertools import permutations

import numpy as np
import pytest
from numpy.typing import NDArray

from data.exploration import Filled, fill, is_sampled, lots


class Dice:
    """Random numbers that a test has chosen: first whether each slot explores, then where."""

    def __init__(self, *draws: list[float]) -> None:
        self.draws = list(draws)

    def random(self, n: int) -> NDArray[np.float64]:
        drawn = np.array(self.draws.pop(0))
        assert len(drawn) == n
        return drawn


def filled(best_first: list[int], eligible: int, slots: int, share: float, *draws: list[float]) -> Filled:
    return fill(np.array(best_first, np.int64), eligible, slots, share, Dice(*draws))  # type: ignore[arg-type]


def propensity_of(order: tuple[int, ...], best_first: list[int], share: float) -> list[float]:
    """By DESIGN.md: (1 - e)[it is the best remaining] + e / n, slot by slot."""
    left, found = list(best_first), []
    for video in order:
        found.append((1 - share) * (video == left[0]) + share / len(left))
        left.remove(video)
    return found


def test_by_hand() -> None:
    # Slot 0 doesn't explore: the best, 7. Slot 1 draws the last of [3, 5, 9]. Slot 2 draws, and finds the best one.
    slate = filled([7, 3, 5, 9], 4, 3, 0.4, [0.9, 0.1, 0.39], [0.99, 0.99, 0.2])
    assert slate.shown.tolist() == [7, 9, 3]
    assert slate.explored.tolist() == [False, True, True]
    assert slate.propensity.tolist() == pytest.approx([0.6 + 0.4 / 4, 0.4 / 3, 0.6 + 0.4 / 2])


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_all_slates_together_are_certain(share: float) -> None:
    total = 0.0
    for order in permutations([2, 0, 1]):
        total += float(np.prod(propensity_of(order, [2, 0, 1], share)))
    assert total == pytest.approx(1.0)


def test_what_is_reported_is_the_definition_and_how_often_it_comes() -> None:
    best_first, share, count = [2, 0, 1], 0.5, 6000
    seen: dict[tuple[int, ...], int] = {}
    for number in range(count):
        slate = fill(np.array(best_first), 3, 3, share, lots(f"r{number}", "salt"))
        order = tuple(slate.shown.tolist())
        assert slate.propensity.tolist() == pytest.approx(propensity_of(order, best_first, share))
        seen[order] = seen.get(order, 0) + 1
    for order in permutations(best_first):
        expected = float(np.prod(propensity_of(order, best_first, share)))
        assert seen[order] / count == pytest.approx(expected, abs=4 * (expected / count) ** 0.5)


def test_nothing_explores_at_share_0_and_everything_at_1() -> None:
    plain = fill(np.array([4, 2, 8]), 3, 2, 0.0, lots("r", "s"))
    assert (plain.shown.tolist(), plain.propensity.tolist(), plain.explored.tolist()) == ([4, 2], [1, 1], [False, False])
    wild = fill(np.array([4, 2, 8]), 3, 9, 1.0, lots("r", "s"))
    assert wild.explored.all()
    assert sorted(wild.shown.tolist()) == [2, 4, 8]
    assert wild.propensity.tolist() == pytest.approx([1 / 3, 1 / 2, 1])


def test_what_has_no_score_is_never_drawn_and_comes_last_for_certain() -> None:
    slate = filled([1, 0, 5, 6], 2, 4, 1.0, [0.0, 0.0], [0.99, 0.0])
    assert slate.shown.tolist() == [0, 1, 5, 6]
    assert slate.propensity.tolist() == pytest.approx([0.5, 1, 1, 1])
    assert slate.explored.tolist() == [True, True, False, False]


def test_fewer_slots_than_candidates_and_none_at_all() -> None:
    assert len(fill(np.array([1, 2, 3]), 3, 1, 0.5, lots("r", "s")).shown) == 1
    nothing = fill(np.zeros(0, np.int64), 0, 5, 0.5, lots("r", "s"))
    assert (len(nothing.shown), len(nothing.propensity), len(nothing.explored)) == (0, 0, 0)


def test_lots_depend_on_request_and_salt_alone() -> None:
    draws = [lots(*key).random() for key in (("r", "s"), ("r2", "s"), ("r", "s2"))]
    assert len(set(draws)) == 3
    assert lots("r", "s").random() == draws[0]


def test_about_the_wanted_share_of_requests_is_sampled() -> None:
    sampled = sum(is_sampled(f"r{number}", "salt", 0.1) for number in range(5000))
    assert sampled / 5000 == pytest.approx(0.1, abs=0.02)
    assert not any(is_sampled(f"r{number}", "salt", 0.0) for number in range(100))
    assert all(is_sampled(f"r{number}", "salt", 1.0) for number in range(100))


def test_requests_that_are_sampled_explore_as_others_do() -> None:
    draws = [lots(f"r{number}", "salt").random() for number in range(2000) if is_sampled(f"r{number}", "salt", 0.25)]
    assert np.mean(draws) == pytest.approx(0.5, abs=0.05)
