"""Differences between designs: paired by user and seed, called noise where they are, flagged where sharing hurts."""

from collections.abc import Sequence

import numpy as np
import pytest

from training.bootstrap import interval, over_seeds
from training.compare_cell import Judged, judge_rows
from training.compare_figures import Outcome, Outcomes, compare, difference, paired, summary, verdict
from training.gates import gate_figures

KINDS = {"click": "binary", "watch": "regression"}
COST = dict.fromkeys(
    ("dense_parameters", "embedding_parameters", "flops_per_example", "train_seconds", "examples_per_second"), 1.0
)
USERS, ROWS = 150, 3000


def world() -> tuple[Judged, np.ndarray]:
    """Rows of 150 users in slates of 4, and the true scores [n, 2] of click (a logit) and watch."""
    rng = np.random.default_rng(3)
    truth = rng.normal(size=(ROWS, 2)) + rng.normal(size=(USERS, 2))[np.arange(ROWS) % USERS]
    click = (rng.random(ROWS) < 1 / (1 + np.exp(-truth[:, 0]))).astype(np.float32)
    watch = np.where(click > 0, np.exp(truth[:, 1] + rng.normal(size=ROWS)), np.nan).astype(np.float32)
    return Judged(np.stack([click, watch], 1), np.arange(ROWS) % USERS, np.arange(ROWS) // 4), truth


def outcome(noise: float, seed: int, objectives: Sequence[str] = tuple(KINDS)) -> Outcome:
    """What a network would have found whose scores are the true ones with so much noise on them."""
    rows, truth = world()
    rng = np.random.default_rng([seed, 17])
    scores = truth + rng.normal(size=truth.shape) * noise
    natural = np.stack([1 / (1 + np.exp(-scores[:, 0])), np.exp(scores[:, 1])], 1).astype(np.float32)
    columns = [list(KINDS).index(name) for name in objectives]
    kinds = {name: KINDS[name] for name in objectives}
    own = Judged(rows.targets[:, columns], rows.user, rows.slate)
    figures, samples = judge_rows(kinds, own, natural[:, columns], natural[:, columns], 100)  # type: ignore[arg-type]
    gates = gate_figures(np.full((len(objectives), 2), 0.5), tuple(objectives), 0.01, 1.5)
    return Outcome({"objectives": figures, "cost": COST, "gates": gates, "gradient_cosines": {}}, samples)


def design(noise: float, seeds: Sequence[int], objectives: Sequence[str] = tuple(KINDS)) -> Outcomes:
    return [outcome(noise, seed, objectives) for seed in seeds]


def test_a_planted_difference_is_found_and_a_null_one_is_called_noise() -> None:
    seeds = (1, 2, 3)
    designs = {"base": design(0.5, seeds), "worse": design(2.0, seeds), "alike": design(0.5, (4, 5, 6))}
    figures = compare(designs, {}, "base", KINDS)
    assert figures["variants"]["base"]["against_baseline"] is None
    worse, alike = (figures["variants"][name]["against_baseline"] for name in ("worse", "alike"))
    for objective, metrics in worse.items():
        assert {metric: found["verdict"] for metric, found in metrics.items()} == dict.fromkeys(metrics, "worse"), objective
    assert {found["verdict"] for metrics in alike.values() for found in metrics.values()} == {"noise"}
    assert worse["click"]["auc"]["mean"] < 0 < worse["click"]["log_loss"]["mean"]
    said = list(summary(figures, KINDS, "base"))
    assert said == [f"{objective}, against base: worse worse; 1 not told apart (noise)." for objective in KINDS]


def test_levels_are_means_and_deviations_over_seeds() -> None:
    outcomes = design(0.5, (1, 2))
    found = compare({"base": outcomes}, {}, "base", KINDS)["variants"]["base"]["objectives"]["click"]["auc"]
    first, second = (o.figures["objectives"]["click"]["auc"] for o in outcomes)
    assert found["by_seed"] == [first, second]
    assert found["mean"] == pytest.approx((first + second) / 2)
    assert found["deviation"] == pytest.approx(abs(first - second) / 2**0.5)


def test_negative_transfer_is_flagged_where_the_interval_lies_below_zero_and_only_there() -> None:
    seeds = (1, 2, 3)
    shared = [  # click as good as alone, watch ruined by the others
        Outcome(
            {**good.figures, "objectives": {**good.figures["objectives"], "watch": bad.figures["objectives"]["watch"]}},
            {key: (bad if key.startswith("watch") else good).samples[key] for key in good.samples},
        )
        for good, bad in zip(design(0.5, seeds), design(2.0, seeds), strict=True)
    ]
    only = {"click": design(0.5, (4, 5, 6), ["click"]), "watch": design(0.5, (4, 5, 6), ["watch"])}
    figures = compare({"shared": shared, "less": design(0.5, (7, 8, 9))}, only, "shared", KINDS)
    flags = {
        name: {o: found["negative_transfer"] for o, found in variant["against_single_task"].items()}
        for name, variant in figures["variants"].items()
    }
    assert flags == {"shared": {"click": False, "watch": True}, "less": {"click": False, "watch": False}}
    assert figures["variants"]["shared"]["against_single_task"]["watch"]["interval"][1] < 0
    assert list(summary(figures, KINDS, "shared"))[-1] == "Negative transfer: shared (watch)."
    single = compare({"shared": shared[:1]}, {}, "shared", KINDS)
    assert next(iter(summary(single, KINDS, "shared"))).startswith("One seed: ")
    helped = compare({"shared": design(0.5, seeds)}, {"click": design(2.0, seeds, ["click"])}, "shared", KINDS)
    found = helped["variants"]["shared"]["against_single_task"]["click"]
    assert (found["verdict"], found["negative_transfer"]) == ("better", False)


def test_what_a_seed_lacks_has_no_verdict() -> None:
    outcomes = design(0.5, (1, 2))
    lacking = [outcomes[0], Outcome({"objectives": {}}, {})]
    assert difference(lacking, outcomes, "click", "auc") == {"mean": None, "interval": None, "verdict": "unknown"}


@pytest.mark.parametrize(
    ("bounds", "smaller", "word"),
    [
        ((0.1, 0.2), False, "better"),
        ((0.1, 0.2), True, "worse"),
        ((-0.2, -0.1), False, "worse"),
        ((0.0, 0.1), False, "noise"),
    ],
)
def test_the_word_for_an_interval(bounds: tuple[float, float], smaller: bool, word: str) -> None:
    assert verdict(bounds, smaller) == word


def test_the_interval_over_five_seeds_covers_where_resampling_alone_does_not() -> None:
    """Differences that are nothing but the seeds' noise: 95% of the intervals should hold 0."""
    rng = np.random.default_rng(0)
    gaps = rng.normal(size=(300, 5, 1)) * np.ones((1, 1, 400))
    held, plain = 0, 0
    for gap in gaps:
        low, high = interval(paired(gap, np.zeros_like(gap)))[0] or (np.nan, np.nan)
        held += low <= 0 <= high
        low, high = interval(over_seeds(gap, 2))[0] or (np.nan, np.nan)
        plain += low <= 0 <= high
    assert 0.92 <= held / 300 <= 0.985
    assert plain / 300 < 0.9


def test_users_alone_are_resampled_where_there_is_one_seed() -> None:
    gap = np.random.default_rng(0).normal(size=(1, 50))
    assert (paired(gap, np.zeros_like(gap)) == gap[0]).all()
