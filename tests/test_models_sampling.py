"""Which rows a pass trains on: jointly, or by the lecture's procedure."""

import numpy as np
import pytest
from network_samples import random_blocks, random_targets, small_config, small_trainer
from numpy.typing import NDArray

from data.config_balancing import Joint, Sampling, Tasks
from models.sampling import Draw, draw, probabilities

ROWS = 4000
RARE = 40


def targets(n: int = ROWS, rare: int = RARE) -> NDArray[np.float32]:
    """All labelled for the first objective, every second row for the second, ``rare`` of them for the third."""
    values = np.arange(3 * n, dtype=np.float32).reshape(n, 3)
    values[::2, 1] = np.nan
    values[rare:, 2] = np.nan
    return values


def drawn(sampling: Sampling, batch: int = 300, seed: int = 1, weights: tuple[float, ...] = (1, 1, 1)) -> list[Draw]:
    order = np.random.default_rng(0).permutation(ROWS)
    return batches(draw(order, targets(), sampling, weights, batch, seed), batch)


def batches(drawn: Draw, batch: int) -> list[Draw]:
    return [drawn.part(start, start + batch) for start in range(0, len(drawn.rows), batch)]


def tasks(**settings: object) -> Tasks:
    return Tasks.model_validate({"kind": "tasks", **settings})


def test_jointly_the_rows_come_in_order_with_all_their_labels() -> None:
    order = np.array([2, 0, 1])
    one, other = batches(draw(order, targets(), Joint(), (1, 1, 1), 2, 1), 2)
    assert [one.rows.tolist(), other.rows.tolist()] == [[2, 0], [1]]
    np.testing.assert_array_equal(one.targets(targets()), targets()[[2, 0]])


def test_a_label_on_one_row_in_a_hundred_gets_its_share() -> None:
    found = drawn(tasks())
    assert [len(part.rows) for part in found] == [300] * 13 + [100]
    for part in found[:-1]:
        assert part.objective is not None
        assert np.bincount(part.objective).tolist() == [100, 100, 100]
    rows = np.concatenate([part.rows for part in found])
    objective = np.concatenate([part.objective for part in found if part.objective is not None])
    assert np.abs(np.bincount(objective) - ROWS / 3).max() <= 34
    often = np.bincount(rows[objective == 2], minlength=RARE)
    assert often[RARE:].tolist() == []
    assert often.max() - often.min() <= 1  # none again before all have come
    assert np.bincount(rows[objective == 0]).max() == 1


def test_a_row_counts_for_the_objective_that_it_was_drawn_for() -> None:
    for part in drawn(tasks()):
        mine = part.targets(targets())
        assert part.objective is not None
        assert (~np.isnan(mine)).sum(1).tolist() == [1] * len(mine)
        places = np.arange(len(mine)), part.objective
        np.testing.assert_array_equal(mine[places], targets()[part.rows, part.objective])


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [1 / 3, 1 / 3, 1 / 3, 0]),
        ({"probabilities": "proportional"}, [0.64, 0.32, 0.04, 0]),
        ({"probabilities": "tempered"}, [8 / (10 + 32**0.5), 32**0.5 / (10 + 32**0.5), 2 / (10 + 32**0.5), 0]),
        ({"probabilities": "tempered", "temperature": 1}, [0.64, 0.32, 0.04, 0]),
    ],
)
def test_probabilities_by_hand(settings: dict[str, object], expected: list[float]) -> None:
    np.testing.assert_allclose(probabilities(np.array([64, 32, 4, 0]), tasks(**settings)), expected)


@pytest.mark.parametrize(("probability", "draws"), [("proportional", None), ("tempered", 1), ("uniform", 2)])
def test_the_shares_are_the_probabilities(probability: str, draws: int | None) -> None:
    sampling = tasks(probabilities=probability, draws=draws)
    found = [part for seed in range(40) for part in drawn(sampling, 100, seed)]
    shares = np.bincount(np.concatenate([part.objective for part in found if part.objective is not None])) / (40 * ROWS)
    labelled = np.array([ROWS, ROWS // 2, RARE])
    np.testing.assert_allclose(shares, probabilities(labelled, sampling), atol=0.02)
    assert shares[2] > 0


def test_a_mini_batch_of_objectives_may_leave_some_out() -> None:
    """Two draws for three objectives: half a batch each, no objective twice."""
    for part in drawn(tasks(draws=2)):
        assert part.objective is not None
        assert np.bincount(part.objective)[np.unique(part.objective)].tolist() == [len(part.rows) / 2] * 2


def test_a_pass_is_a_function_of_its_seed() -> None:
    one, other, third = drawn(tasks()), drawn(tasks()), drawn(tasks(), seed=2)
    for mine, again in zip(one, other, strict=True):
        np.testing.assert_array_equal(mine.rows, again.rows)
        np.testing.assert_array_equal(mine.objective, again.objective)
    assert not np.array_equal(one[0].rows, third[0].rows)


def test_objectives_without_rows_or_weight_are_not_drawn() -> None:
    for part in drawn(tasks(), weights=(1, 0, 1)):
        assert part.objective is not None
        assert set(part.objective) == {0, 2}
    nothing = np.full((5, 3), np.nan, np.float32)
    assert len(draw(np.arange(5), nothing, tasks(), (1, 1, 1), 2, 1).rows) == 0


def test_the_trainer_counts_as_many_rows_and_averages_over_those_drawn() -> None:
    """Three draws in batches of 16: 6, 5 and 5 rows, of weights 3 * 6 / 16, ... times the loss weights 1, 2, 1."""
    config = small_config(training={"sampling": {"kind": "tasks"}, "deterministic": False})
    trainer = small_trainer(config)
    blocks, values = random_blocks(trainer.network.layout, 32), random_targets(config, 32)
    seen: list[tuple[int, NDArray[np.float32]]] = []
    mean = trainer.train_epoch(blocks, values, np.arange(32), 1, lambda rows, losses: seen.append((rows, losses)))
    assert [rows for rows, _ in seen] == [16, 16]
    np.testing.assert_allclose(mean, (seen[0][1] + seen[1][1]) / 2, rtol=1e-6)
    weights = [objective.loss_weight for objective in config.objectives]
    for part in batches(draw(np.arange(32), values, config.training.sampling, weights, 16, 1), 16):
        given = {side: (blocks[side].ints[part.rows], blocks[side].floats[part.rows]) for side in blocks}
        losses, _ = trainer.graph.losses(given, part.targets(values), None)
        assert losses.prior.numpy().tolist() == [18 / 16, 2 * 15 / 16, 15 / 16]
