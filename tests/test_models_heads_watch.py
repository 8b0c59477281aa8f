"""Watch time by other heads than the default: values worked out by hand, and the exported graphs."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from network_samples import (
    CLICK,
    MODEL,
    TRAINING_ONLY,
    USER,
    VIDEO,
    one_request,
    random_blocks,
    random_targets,
    repeated,
    small_config,
    table_sizes,
)

from data.config import Config, Objective
from data.errors import BundleError
from data.features.layout import build_layout
from data.features.targets import LEVELS, TargetStats
from models.encoder import ORDER
from models.export import export_saved_model, export_scorer
from models.heads.columns import head_of
from models.heads.discretised import Discretised, falling
from models.heads.duration_quantile import DurationQuantile
from models.heads.head import Head
from models.network import Network
from models.scorer import SCORER_FILE, Scorer
from models.step import Trainer

WATCH: dict[str, Any] = {"family": "engagement", "label": "watch", "kind": "regression", "transform": "none"}
ODDS, QUANTILE, BINS = (
    Objective(name="watch", **WATCH, head=head, duration="length" if head == "duration_quantile" else None)
    for head in ("weighted_logistic", "duration_quantile", "discretised")
)
OTHERS = ODDS.model_copy(update={"negatives": "others"})
HALF_WATCHED = TargetStats(10.0, 1.0, 8, natural_mean=10.0, positive=0.5)
THRESHOLDS = TargetStats(8.0, 1.0, 8, thresholds=(0.0, 10.0), above=(0.6, 0.2), means=(0.0, 5.0, 30.0))


def watch_grid() -> TargetStats:
    """Rows 0 (unseen) and 1 (null): 0 to 200 evenly; bucket row 2: 0 to 100; row 3: a fifth not watched, then as row 2."""
    pooled, short = np.linspace(0, 200, LEVELS), np.linspace(0, 100, LEVELS)
    rows = (pooled, pooled, short, np.where(short <= 20, 0, short))
    return TargetStats(50.0, 1.0, 8, grid=tuple(tuple(row.tolist()) for row in rows))


def column(*values: float) -> tf.Tensor:
    return tf.constant(values)[:, None]


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def slope(head: Head, raw: float, targets: list[float]) -> float:
    """The derivative of the summed loss by a raw output that all rows share."""
    shared = tf.Variable(raw)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(head.row_losses(tf.fill([len(targets), 1], 1.0) * shared, tf.constant(targets), None))
    return float(tape.gradient(total, shared))


def test_weighted_logistic_by_hand() -> None:
    raw, target = column(math.log(3.0), math.log(3.0)), tf.constant([20.0, 0.0])  # weights 2 and 0; p = 3/4
    head = head_of(ODDS, HALF_WATCHED)
    np.testing.assert_allclose(head.row_losses(raw, target, None), [2 * math.log(4 / 3) + math.log(4), math.log(4)], 1e-6)
    np.testing.assert_allclose(head.to_natural(raw, None), [30.0, 30.0], rtol=1e-6)
    paper = head_of(OTHERS, HALF_WATCHED)
    np.testing.assert_allclose(paper.row_losses(raw, target, None), [2 * math.log(4 / 3), math.log(4)], rtol=1e-6)


def test_odds_are_the_mean_and_the_papers_are_that_over_the_share_not_watched() -> None:
    targets = [0.0, 0.0, 30.0, 10.0]  # mean 10, half of them watched
    assert slope(head_of(ODDS, HALF_WATCHED), 0.0, targets) == pytest.approx(0, abs=1e-6)  # at 10
    assert slope(head_of(OTHERS, HALF_WATCHED), math.log(2), targets) == pytest.approx(0, abs=1e-6)  # at 20
    assert head_of(ODDS, HALF_WATCHED).start == (0.0,)
    assert head_of(OTHERS, HALF_WATCHED).start == pytest.approx((math.log(2),))


def test_where_all_are_watched_the_papers_odds_have_no_limit() -> None:
    targets, all_watched = [10.0, 30.0], TargetStats(20.0, 1.0, 2, natural_mean=20.0, positive=1.0)
    assert slope(head_of(ODDS, all_watched), 0.0, targets) == pytest.approx(0, abs=1e-6)  # at 20
    assert slope(head_of(OTHERS, all_watched), 9.0, targets) < 0
    assert math.isfinite(head_of(OTHERS, all_watched).start[0])
    assert np.isfinite(head_of(OTHERS, all_watched).to_natural(column(1e6), None)).all()


def test_quantile_of_the_group_by_hand() -> None:
    head = head_of(QUANTILE, watch_grid())
    assert isinstance(head, DurationQuantile)
    group = tf.constant([2, 0, 1, 2, 2, 3, 3, 2])
    watched = tf.constant([25.0, 25.0, 25.0, 33.5, 500.0, 0.0, 30.0, -1.0])
    expected = [0.25, 0.125, 0.125, 0.335, 1.0, 0.10, 0.30, 0.0]  # 21 points at 0: the middle one is the tenth
    np.testing.assert_allclose(head.quantile(watched, group), expected, rtol=1e-6)
    losses = head.row_losses(column(0.0, logit(0.25)), tf.constant([25.0, 25.0]), tf.constant([2, 2]))
    np.testing.assert_allclose(losses, [12 * 0.25**2, 0], atol=1e-6)


def test_the_prediction_goes_back_through_the_group() -> None:
    head = head_of(QUANTILE, watch_grid())
    raw, group = column(logit(0.335), logit(0.335), logit(0.1), 50.0, -50.0), tf.constant([2, 1, 3, 2, 2])
    np.testing.assert_allclose(head.to_natural(raw, group), [33.5, 67.0, 0.0, 100.0, 0.0], rtol=1e-5, atol=1e-5)
    unknown = head.to_natural(column(0.0, 0.0, 0.0), tf.constant([0, 4, 2]))  # a bucket that the grid has not: pooled
    np.testing.assert_allclose(unknown, [100.0, 100.0, 50.0], rtol=1e-6)
    np.testing.assert_allclose(head.to_natural(column(head.start[0]), tf.constant([0])), [100.0], rtol=1e-4)  # the mean


def test_thresholds_by_hand() -> None:
    head = head_of(BINS, THRESHOLDS)
    raw = tf.constant([[logit(0.75), logit(0.25)]] * 3)
    losses = head.row_losses(raw, tf.constant([4.0, 10.0, 11.0]), None)  # above: (1, 0), (1, 0), (1, 1)
    np.testing.assert_allclose(losses, [math.log(4 / 3), math.log(4 / 3), (math.log(4 / 3) + math.log(4)) / 2], rtol=1e-6)
    np.testing.assert_allclose(head.to_natural(raw, None), [0.75 * 5 + 0.25 * 25] * 3, rtol=1e-6)
    np.testing.assert_allclose(head.to_natural(tf.constant([head.start]), None), [0.6 * 5 + 0.2 * 25], rtol=1e-5)


def test_restoration_by_hand() -> None:
    restored = BINS.model_copy(update={"restoration": 2.0})
    raw = tf.constant([[logit(0.75), logit(0.25)]] * 2)  # predicts 10; shares 0.4, 0.4, 0.2: mean 8, variance 126
    losses = head_of(restored, THRESHOLDS).row_losses(raw, tf.constant([4.0, 10.0 + 3 * 126**0.5]), None)
    expected = [math.log(4 / 3) + 2 * 0.5 * 36 / 126, (math.log(4 / 3) + math.log(4)) / 2 + 2 * 2.5]
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


def test_probabilities_are_made_to_fall() -> None:
    falls = falling(tf.constant([[0.9, 0.2, 0.4], [0.8, 0.5, 0.1]]), 3)
    np.testing.assert_allclose(falls, [[0.9, 0.3, 0.3], [0.8, 0.5, 0.1]], rtol=1e-6)
    five = falling(tf.constant([[0.1, 0.9, 0.3, 0.5, 0.4]]), 5)  # least: 0.1; greatest: 0.9, 0.9, 0.5, 0.5, 0.4
    np.testing.assert_allclose(five, [[0.5, 0.5, 0.3, 0.3, 0.25]], rtol=1e-6)
    natural = head_of(BINS, THRESHOLDS).to_natural(tf.constant([[logit(0.25), logit(0.75)]]), None)
    np.testing.assert_allclose(natural, [0.5 * 5 + 0.5 * 25], rtol=1e-6)


@pytest.mark.parametrize("objective", [ODDS, OTHERS, QUANTILE, BINS], ids=lambda o: f"{o.head} {o.negatives}")
@pytest.mark.parametrize("targets", [[], [0.0] * 60, [7.0] * 60], ids=["none", "all 0", "all 7"])
def test_targets_that_tell_nothing_are_no_trouble(objective: Objective, targets: list[float]) -> None:
    values = np.array(targets, np.float32)
    groups = (np.full(len(values), 2, np.int32), 3) if objective.head == "duration_quantile" else ()
    head = head_of(objective, TargetStats.fit(objective, values, *groups))
    raw, group = tf.constant([head.start] * 3), tf.constant([2, 2, 0])
    losses = head.row_losses(raw, tf.constant([0.0, 7.0, 9.0]), group)
    assert np.isfinite(losses).all()
    natural = head.to_natural(raw, group)
    if targets and not (objective.head == "weighted_logistic" and not any(targets)):  # whose scale is then 1 second
        below = 1e-3 if objective.negatives == "others" else 1.0  # of those not watched, at least a thousandth
        np.testing.assert_allclose(natural * below, [targets[0]] * 3, rtol=1e-5)
    assert np.isfinite(natural).all()


EVERY_HEAD = (
    CLICK,
    {**WATCH, "name": "odds", "head": "weighted_logistic"},
    {**WATCH, "name": "quantile", "head": "duration_quantile", "duration": "length"},
    {**WATCH, "name": "bins", "head": "discretised", "restoration": 0.5},
    {**WATCH, "name": "seconds"},
)
LENGTH = {"kind": "number", "name": "length", "column": "duration", "scaling": "buckets", "buckets": 4, "dim": 2}
TASTE = {"objectives": ["bins"], "request": ["user"], "video": ["video"], "dim": 2}


def every_head() -> Config:
    features = [*USER, *VIDEO, LENGTH, *TRAINING_ONLY]
    return small_config(features, EVERY_HEAD, {**MODEL, "factors": [TASTE]}, {"average": 0.5})


def new_trainer(config: Config, rows: int = 10) -> Trainer:
    watched = np.random.default_rng(3).exponential(8.0, 600).astype(np.float32)
    groups = np.random.default_rng(4).integers(2, 6, 600).astype(np.int32)
    stats = [
        TargetStats.fit(o, (watched > 8).astype(np.float32))
        if o.kind == "binary"
        else TargetStats.fit(o, watched, *((groups, 6) if o.head == "duration_quantile" else ()))
        for o in config.objectives
    ]
    layout = build_layout(config)
    return Trainer(Network(config, layout, table_sizes(layout, rows), stats), config.training)


def train(trainer: Trainer, passes: int, seed: int = 1) -> None:
    blocks = random_blocks(trainer.network.layout, 96)
    for _ in range(passes):
        trainer.train_epoch(blocks, random_targets(trainer.network.config, 96), np.arange(96), seed)


def test_what_adds_to_an_objective_adds_to_all_its_outputs() -> None:
    network = new_trainer(every_head()).network
    outputs = network.heads.outputs
    assert outputs[:3] == (1, 1, 1)
    assert outputs[3] == 31
    spread = network.heads.spread(tf.constant([[1.0, 2.0, 3.0, 4.0, 5.0]])).numpy()[0].tolist()
    assert spread == [1.0, 2.0, 3.0, *[4.0] * 31, 5.0]


def test_every_heads_graphs_agree(tmp_path: Path) -> None:
    trainer = new_trainer(every_head())
    train(trainer, 2)
    with trainer.averaged() as network:
        export_saved_model(network, tmp_path)
        export_scorer(network, tmp_path / "assets.extra" / SCORER_FILE)
    request = one_request(random_blocks(trainer.network.layout, 37, seed=4), np.arange(37))
    rows = repeated(request)
    expected, _ = trainer.predict(rows)
    assert expected.shape == (37, 5)
    assert (expected.std(0) > 1e-4).all()
    scores = Scorer.load(tmp_path / "assets.extra").score(*(request[side] for side in ORDER))
    np.testing.assert_allclose(scores.predictions, expected, rtol=1e-5, atol=1e-6)
    loaded = tf.saved_model.load(str(tmp_path))
    for signature, blocks in (("serving_default", rows), ("rank", request)):
        inputs = {
            f"{side}_{part}": tf.constant(getattr(blocks[side], part))
            for side in ORDER
            for part in ("ints", "floats")
            if getattr(blocks[side], part).shape[1]
        }
        found = loaded.signatures[signature](**inputs)["predictions"]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_they_grow_and_go_on_to_the_bit(tmp_path: Path) -> None:
    config = small_config([VIDEO[0], LENGTH], EVERY_HEAD)
    whole, second = new_trainer(config), new_trainer(config)
    train(whole, 1)
    whole.grow({name: rows + 7 for name, rows in whole.network.table_sizes.items()})
    whole.save(tmp_path)
    second.load(tmp_path)
    for trainer in (whole, second):
        train(trainer, 1, seed=2)
    blocks = random_blocks(whole.network.layout, 20, rows=17)
    np.testing.assert_array_equal(whole.predict(blocks)[0], second.predict(blocks)[0])


def test_another_head_does_not_go_on(tmp_path: Path) -> None:
    new_trainer(every_head()).save(tmp_path)
    plain = small_config(every_head().model_dump()["features"], (*EVERY_HEAD[:3], {**WATCH, "name": "bins"}, EVERY_HEAD[4]))
    with pytest.raises(BundleError, match="of another configuration"):
        new_trainer(plain).load(tmp_path)


def test_a_head_learns_what_it_predicts() -> None:
    """Two kinds of rows, of 4 and 20 seconds on average: each head ends near both."""
    long = np.tile([False, True], 150)
    watched = np.where(long, 20.0, 4.0).astype(np.float32) * np.repeat([0.5, 1.0, 1.5], 100).astype(np.float32)
    for objective, rate in ((ODDS, 1.0), (BINS, 10.0), (QUANTILE, 0.3)):
        groups = (np.where(long, 3, 2).astype(np.int32), 4) if objective is QUANTILE else ()
        head = head_of(objective, TargetStats.fit(objective, watched, *groups))
        raw = tf.Variable([head.start, head.start])
        _descend(head, raw, long, watched, groups[0] if groups else None, rate)
        natural = head.to_natural(raw, tf.constant([2, 3]) if groups else None)
        np.testing.assert_allclose(natural, [4.0, 20.0], rtol=0.1, err_msg=objective.head)


@tf.function(autograph=False)
def _descend(
    head: Head, raw: tf.Variable, kind: tf.Tensor, watched: tf.Tensor, group: tf.Tensor | None, rate: float
) -> None:
    def step(i: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            rows = tf.gather(raw, tf.cast(kind, tf.int32))
            loss = tf.reduce_mean(head.row_losses(rows, watched, group))
        raw.assign_sub(rate * tf.convert_to_tensor(tape.gradient(loss, raw)))
        return i + 1

    tf.while_loop(lambda i: i < 3000, step, [tf.constant(0)])


def test_fewer_thresholds_are_fewer_outputs() -> None:
    few = TargetStats.fit(BINS, np.array([0, 0, 0, 1, 2], np.float32))
    head = head_of(BINS, few)
    assert isinstance(head, Discretised)
    assert len(head.start) == len(few.thresholds) == 2  # above 0 and above 1: nothing is above 2
