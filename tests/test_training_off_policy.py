"""Off-policy estimates: weights, SNIPS and DR by hand, what must hold for every policy, and intervals that cover."""

import re
from collections.abc import Sequence
from itertools import permutations

import numpy as np
import pytest

from benchmarks import off_policy_coverage as benchmark
from data.exploration import propensity
from data.simulator.exploration import fill_slots
from models.ranking import Ranking
from training.off_policy import Judge, _clip, target_of
from training.off_policy_intervals import LeftOut, left_out
from training.off_policy_support import squares
from training.off_policy_weights import Given, Slates, Target, best_first, chances, foreseen, weights
from training.slot_chances import slot_chances

LOGGED, WANTED = (3.0, 2.0, 1.0), (1.0, 2.0, 3.0)  # keys of A, B, C: A before B before C, and the reverse
SHOWN = [(0, 1), (0, 2), (2, 0), (1, 0)]
CHANCES = [(2 / 3, 3 / 4), (2 / 3, 1 / 4), (1 / 6, 3 / 4), (1 / 6, 3 / 4)]
OUTCOMES = [(1, 0), (0, 1), (1, 1), (0, 0)]
PREDICTED = (0.5, 0.4, 0.2)


def hand(copies: int = 500, predicted: Sequence[float] = PREDICTED) -> Slates:
    """Three candidates, two slots, e = 1/2: four requests, each of ``copies`` users."""
    n = 4 * copies
    return Slates(
        user=np.arange(n),
        predictions=np.tile(np.array(predicted, np.float32)[None, :, None], (n, 1, 1)),
        keys=np.tile(LOGGED, (n, 1)),
        share=np.full(n, 0.5),
        shown=np.tile(SHOWN, (copies, 1)),
        propensity=np.tile(CHANCES, (copies, 1)),
        outcomes=np.tile(OUTCOMES, (copies, 1)).astype(np.float64)[:, :, None],
    )


def wanted(slates: Slates) -> Target:
    return Target(np.tile(WANTED, (len(slates.user), 1)), slates.share)


def test_weights_by_hand() -> None:
    slates = hand(1)
    assert chances(slates, Target(slates.keys, slates.share)) == pytest.approx(np.array(CHANCES))
    assert weights(slates, wanted(slates)) == pytest.approx(
        np.array([[1 / 4, 1 / 12], [1 / 4, 3 / 4], [4, 4 / 3], [1, 1 / 3]])
    )
    # Whatever stood above: of B in the second slot 13/24 under either order, of A 5/24 against 6/24, of C the reverse.
    of_slot = weights(slates, wanted(slates), "slot")
    assert of_slot == pytest.approx(np.array([[1 / 4, 1], [1 / 4, 6 / 5], [4, 5 / 6], [1, 5 / 6]]))


def test_a_target_without_exploration_asks_for_its_order_alone() -> None:
    slates = hand(1)
    found = weights(slates, Target(np.tile(WANTED, (4, 1)), np.zeros(4)))
    assert found.tolist() == [[0, 0], [0, 0], [6, 0], [0, 0]]  # C first: 1 over 1/6; then B, which nobody was shown


def test_snips_and_dr_by_hand() -> None:
    estimate = Judge.of(hand(), (None,)).estimate(wanted(hand()))
    assert estimate.snips is not None
    assert estimate.dr is not None
    assert estimate.snips.value.tolist() == pytest.approx([17 / 22 + 25 / 30])
    # q is 5/4 of the prediction in both slots: 0.625, 0.5, 0.25. C is first with 2/3; second are B 13/24, A 5/24, C 6/24.
    direct = (4 * 0.25 + 0.5 + 0.625) / 6 + (13 * 0.5 + 5 * 0.625 + 6 * 0.25) / 24
    rest = (0.25 * 0.375 - 0.25 * 0.625 + 4 * 0.75 - 0.5) / 5.5 + (-0.5 + 9 * 0.75 + 16 * 0.375 - 4 * 0.625) / 30
    assert estimate.foreseen.tolist() == pytest.approx([direct])
    assert estimate.dr.value.tolist() == pytest.approx([direct + rest])
    # Met are 500 * 5.5^2 / 17.125 = 883 in the first slot. E[w^2] is E[w] under the target: 4 * 2/3 + 1/6 + 1/4 * 1/6 there,
    # and in the second slot 3 * 3/4 + 1/3 * 1/4 = 7/3 times that, whichever was first.
    assert estimate.evidence.effective.tolist() == pytest.approx([2000 / (69 / 24), 2000 / (69 / 24 * 7 / 3)], rel=0.05)
    assert estimate.evidence.mean_weight.tolist() == pytest.approx([5.5 / 4, 30 / 48])
    assert estimate.evidence.clipped.tolist() == [0, 0]


def test_right_predictions_need_no_correction_and_wrong_ones_do_no_harm() -> None:
    slates = hand(predicted=(0.9, 0.1, 0.1))
    judge = Judge.of(slates, (None,))
    values = judge.values[:, :, 0]
    told = np.take_along_axis(values, slates.shown, axis=1)[:, :, None]  # outcomes exactly as predicted
    exact = Judge.of(Slates(**{**vars_of(slates), "outcomes": told}), (None,)).estimate(wanted(slates))
    assert exact.dr is not None
    assert exact.dr.value.tolist() == pytest.approx(exact.foreseen.tolist())
    assert exact.dr.error.tolist() == pytest.approx([0], abs=1e-9)


def vars_of(slates: Slates) -> dict[str, np.ndarray]:
    return {name: getattr(slates, name) for name in Slates.__dataclass_fields__}


def test_the_policy_that_was_logged_gets_the_plain_mean() -> None:
    slates = hand()
    logged = Target(slates.keys, slates.share)
    for depends in ("above", "slot"):
        estimate = Judge.of(slates, (None,), depends).estimate(logged)
        assert estimate.snips is not None
        assert estimate.snips.value.tolist() == pytest.approx([slates.outcomes.sum(axis=(1, 2)).mean()])
        assert estimate.evidence.effective.tolist() == pytest.approx([2000, 2000])
        totals = slates.outcomes.sum(axis=(1, 2))
        assert estimate.snips.error.tolist() == pytest.approx([totals.std(ddof=1) / 2000**0.5])


def test_no_estimate_without_enough_effective_samples_or_users() -> None:
    few = Judge.of(hand(300), (None,)).estimate(wanted(hand(300)))
    assert (few.dr, few.snips) == (None, None)
    assert re.fullmatch(r"1[678]\d effective samples, fewer than 200", few.reason or "")  # 1,200 / 6.71
    assert few.foreseen.shape == (1,)
    slates = Slates(**{**vars_of(hand()), "user": np.arange(2000) // 50})
    assert Judge.of(slates, (None,)).estimate(wanted(slates)).reason == "40 effective users, fewer than 50"


def test_great_weights_are_clipped_and_counted() -> None:
    slates = hand()
    raw = np.ones((2000, 2))
    raw[:4] = 100.0, 300.0
    clipped, evidence = _clip(raw, slates, np.ones((2000, 2)))
    most = 2000**0.5 * (1996 + 4 * np.array([100, 300])) / 2000  # 53.5 and 71.4
    assert clipped[:4] == pytest.approx(np.tile(most, (4, 1)))
    assert (clipped[4:] == 1).all()
    assert evidence.clipped.tolist() == [0.002, 0.002]
    assert evidence.cut == pytest.approx(4 * (raw[0] - most) / raw.sum(axis=0))
    assert evidence.effective == pytest.approx((1996 + 4 * raw[0]) ** 2 / (1996 + 4 * raw[0] ** 2))  # before clipping


def test_a_log_that_met_none_of_the_great_weights_knows_nothing() -> None:
    """e = 1/100: C was first in no request, where 99 of 100 would have it; all weights are alike, and small."""
    n = 2000
    slates = Slates(
        user=np.arange(n),
        predictions=np.full((n, 3, 1), 0.1, np.float32),
        keys=np.tile(LOGGED, (n, 1)),
        share=np.full(n, 0.01),
        shown=np.zeros((n, 1), np.int64),
        propensity=np.full((n, 1), 0.99 + 0.01 / 3),
        outcomes=np.ones((n, 1, 1)),
    )
    estimate = Judge.of(slates, (None,)).estimate(wanted(slates))
    assert estimate.dr is None
    assert estimate.evidence.effective[0] == pytest.approx(n / (0.99333**2 / (0.01 / 3)), rel=0.05)  # 6.8


@pytest.mark.parametrize("given", ["above", "slot"])
@pytest.mark.parametrize(("e0", "e", "count"), [(0.3, 0.3, 5), (0.5, 0.0, 4), (0.2, 0.7, 3), (1.0, 0.1, 6)])
def test_squares_are_to_be_expected_as_they_come(given: Given, e0: float, e: float, count: int) -> None:
    rng, n, slots = np.random.default_rng(8), 20_000, min(3, count - 1)
    keys, other = (np.tile(rng.standard_normal(count), (n, 1)) for _ in range(2))
    shown = fill_slots(np.tile(np.arange(count), (n, 1)), keys, np.full(n, e0), slots, rng)
    nothing = np.zeros((n, count, 1), np.float32), np.zeros((n, slots, 1))
    slates = Slates(np.arange(n), nothing[0], keys, np.full(n, e0), shown.video, shown.propensity, nothing[1])
    target = Target(other, np.full(n, e))
    come = (weights(slates, target, given) ** 2).mean(axis=0)
    assert squares(slates, target, given).mean(axis=0) == pytest.approx(come, rel=0.15)
    assert weights(slates, target, given).mean(axis=0) == pytest.approx(np.ones(slots), abs=0.15)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_slots_chances_add_up_to_one_over_the_candidates(share: float) -> None:
    rng = np.random.default_rng(3)
    keys = np.tile(rng.standard_normal(5), (5, 1))
    above = rng.permutation(5)[:2]  # the slots above; then each candidate in the third slot
    shown = np.column_stack([np.tile(above, (5, 1)), np.arange(5)])
    plain = Slates(
        np.arange(5), np.zeros((5, 5, 1), np.float32), keys, np.full(5, share), shown, np.ones((5, 3)), np.zeros((5, 3, 1))
    )
    free = ~np.isin(np.arange(5), above)
    assert chances(plain, Target(keys, plain.share))[free, 2].sum() == pytest.approx(1)


@pytest.mark.parametrize(("count", "slots", "share"), [(3, 2, 0.4), (4, 4, 0.0), (5, 3, 1.0), (2, 4, 0.5), (5, 5, 0.3)])
def test_chances_of_ranks_are_those_of_all_slates_together(count: int, slots: int, share: float) -> None:
    found = slot_chances(np.array([count]), np.array([share]), slots)[0]
    whole = np.zeros((slots, count))
    for order in permutations(range(count), min(slots, count)):
        left, chance = list(range(count)), 1.0
        for video in order:
            chance *= propensity(video == left[0], share, len(left))
            left.remove(video)
        for slot, video in enumerate(order):
            whole[slot, video] += chance
    for rank in range(count):
        assert found[:, min(rank, slots)] == pytest.approx(whole[:, rank])
    rng = np.random.default_rng(1)
    values, keys = rng.random((1, count, 2)), rng.standard_normal((1, count))
    shown = np.where(np.arange(slots) < count, np.minimum(np.arange(slots), count - 1), -1)[None]
    one = Slates(
        np.zeros(1, np.int64),
        np.zeros((1, count, 2), np.float32),
        keys,
        np.array([share]),
        shown,
        np.ones((1, slots)),
        np.zeros((1, slots, 2)),
    )
    brought = foreseen(one, Target(keys, one.share), values, values.sum(axis=1))
    assert brought[0] == pytest.approx(whole @ values[0, best_first(keys, count)[0]])


def test_equal_keys_go_by_id_as_ranking_does() -> None:
    assert best_first(np.array([[1.0, 2.0, 2.0, 1.0]]), 4).tolist() == [[1, 2, 0, 3]]


def test_targets_order_by_the_ranking_score() -> None:
    slates = hand(1)
    ranking = Ranking("weighted_sum", ("click",), (None,), np.array([-1.0]), np.ones(1))
    assert best_first(target_of(slates, ranking).keys, 3)[0].tolist() == [2, 1, 0]
    assert target_of(slates, ranking, 0.0).share.tolist() == [0] * 4


def test_the_error_leaves_users_out() -> None:
    rng = np.random.default_rng(0)
    user, y = np.repeat(np.arange(50), 4), rng.random((200, 1)) + np.repeat(rng.standard_normal((50, 1)), 4, axis=0)
    w = rng.random((200, 1))
    found = left_out(user, np.ones((200, 1), bool), w, y[:, None, :], y)
    for one in (0, 17):
        rest = user != one
        ratio = (w[rest, 0] @ y[rest, 0]) / w[rest].sum() + y[rest].mean()
        assert found.without[one].tolist() == pytest.approx([ratio])
    low, high = found.interval[:, 0]
    assert low < found.value[0] < high
    assert (high - low) / 2 > 1.96 * found.error[0]


def test_differences_are_of_the_same_requests() -> None:
    one = LeftOut(np.array([2.0, 1.0]), np.array([[2.1, 1.0], [1.9, 1.0]]))
    other = LeftOut(np.array([1.0, 0.0]), np.array([[1.1, 0.1], [0.9, -0.1]]))
    assert one.over(other).value[0] == 1
    assert np.isnan(one.over(other).value[1])  # no share of nothing
    assert one.over(one).interval[:, 0].tolist() == [0, 0]


def test_intervals_cover_the_truth() -> None:
    """Acceptance: 200 logs, five settings and more, some far from what was logged; at least 92%."""
    world = benchmark.World(users=260, candidates=5, slots=2, explore=0.6)
    found = benchmark.run(world, logs=200, seed=5, factor=60)
    judged = {name: one for name, one in found.items() if one["estimated"] > 0.5}
    assert len(judged) >= 5
    assert {"like alone", "like, against clicks"} <= judged.keys()
    for name, one in judged.items():
        for method in ("dr", "snips"):
            assert np.mean(one[method]["covered"]) >= 0.92, (name, method)
            assert np.mean(one[method]["covered"]) <= 0.99, (name, method)  # nor by being wider than needed


def test_the_ratio_of_a_slot_alone_would_not_cover() -> None:
    """What is seen below depends on what stands above: the estimator must follow the whole way down."""
    world = benchmark.World(users=2_000, candidates=6, slots=3, explore=0.5, repeats=2.0, leaves=0.6)
    true = benchmark.truth(world, (0.0, 0.0, 1.0), None, 60_000, 3)
    rng = np.random.default_rng(4)
    requests = benchmark.draw_requests(world, 20_000, rng)
    logged = target_of(benchmark.unshown(world, requests), benchmark.ranking(benchmark.LOGGED))
    slates, _ = benchmark.serve(world, requests, logged, rng)
    target = target_of(slates, benchmark.ranking((0.0, 0.0, 1.0)))
    right = Judge.of(slates, benchmark.GIVEN).estimate(target).dr
    alone = chances(slates, target) / slates.propensity
    wrong = left_out(slates.user, slates.filled, alone, slates.outcomes, np.zeros((len(slates.user), 3)))
    assert right is not None
    assert right.interval[0, 0] <= true[0] <= right.interval[1, 0]
    assert not wrong.interval[0, 0] <= true[0] <= wrong.interval[1, 0]
