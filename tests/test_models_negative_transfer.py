"""On the simulator: sharing hurts where two tastes have nothing in common, and helps where they agree and labels are few."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from data.config import Config, parse_config
from data.features.layout import Block, build_layout
from data.features.targets import TargetStats
from data.simulator.settings import WorldConfig
from data.simulator.world import World
from models.network import Network
from models.step import Trainer
from training.compare_cell import Judged, judge_rows
from training.compare_figures import Outcome, compare
from training.gates import gate_figures

ROWS = 3000
COST = dict.fromkeys(
    ("dense_parameters", "embedding_parameters", "flops_per_example", "train_seconds", "examples_per_second"), 1.0
)
PLE = {"kind": "ple", "levels": 1, "shared_experts": 1, "task_experts": 1, "expert_dropout": 0.0}


def config(inputs: int, trunk: dict[str, Any], seed: int, loss_weight: float = 1.0, objectives: str = "ab") -> Config:
    """Binary objectives on ``inputs`` numbers of the video; b's loss weighs ``loss_weight``."""
    names = [f"x{i}" for i in range(inputs)]
    objective = {"family": "engagement", "kind": "binary"}
    weights = {"a": 1.0, "b": loss_weight}
    return parse_config(
        {
            "name": "transfer",
            "dataset": "transfer",
            "seed": seed,
            "log": {},
            "videos": {"files": ["v*"], "key": "video_id", "columns": {name: {"type": "number"} for name in names}},
            "labels": {"a": {"type": "binary"}, "b": {"type": "binary"}},
            "features": [{"kind": "number", "name": name, "column": name} for name in names],
            "objectives": [{"name": o, "label": o, "loss_weight": weights[o], **objective} for o in objectives],
            "model": {"trunk": trunk, "tower": []},
            "training": {"batch_size": 128, "learning_rate": 0.03, "gradient_clip": None, "deterministic": False},
        },
        "the test's configuration",
    )


def learnt(made: Config, x: NDArray[np.float32], known: NDArray[np.float32], truth: NDArray[np.bool_]) -> Outcome:
    """The objectives on the second half of the rows, after passes over the first half with labels ``known``, as a
    comparison's cell has them: ten rows a user, and one slate a user."""
    layout, count = build_layout(made), len(made.objectives)
    trainer = Trainer(Network(made, layout, {}, [TargetStats(0.5, 0.5, len(x))] * count), made.training)
    floats = np.stack([x, np.zeros_like(x)], 2).reshape(len(x), -1).astype(np.float32)  # each with its null indicator
    blocks = {side: Block(np.zeros((len(x), 0), np.int32), np.zeros((len(x), 0), np.float32)) for side in layout.sides}
    blocks["video"] = Block(np.zeros((len(x), 0), np.int32), floats)
    half = len(x) // 2
    for number in range(8):
        trainer.train_epoch(blocks, known[:, :count], np.random.default_rng(number).permutation(half), number)
    predictions = trainer.predict({side: block.take(np.arange(half, len(x))) for side, block in blocks.items()})[0]
    user = np.arange(len(x) - half) // 10
    rows = Judged(truth[half:, :count].astype(np.float32), user, user)
    figures, samples = judge_rows(dict.fromkeys(made.objective_names, "binary"), rows, predictions, predictions, 100)
    gates = gate_figures(np.zeros((count, 0)), made.objective_names, 0.01, 1.5)
    return Outcome({"objectives": figures, "cost": COST, "gates": gates, "gradient_cosines": {}}, samples)


def auc(outcome: Outcome) -> list[float]:
    return [outcome.value(name, "auc") or 0.0 for name in outcome.figures["objectives"]]


def simulated(agreement: float, dims: int) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """Impressions of a world in which videos are shown by chance: the latent tastes of user and video, for clicks and for
    satisfaction [n, 4 dims]; what was logged, a click (a) and, of those who clicked, a like (b) [n, 2]; and whether the
    world makes each the likelier outcome [n, 2]."""
    drawn = {"taste_dims": dims, "taste": 5.0, "satisfaction": 5.0, "agreement": agreement, "drift": 0.0}
    plain = {"conflict": 0.0, "position_bias": 0.0, "video_effect": 0.1, "user_effect": 0.1, "uniform_requests": 1.0}
    world = World(WorldConfig.of_size(4 * ROWS, days=2, click_base=0.0, like_base=0.0, **drawn, **plain), seed=1)
    rows = [part for day in range(2) for part in world.day(day)]
    user, video, device, time, click, like = (
        np.concatenate([getattr(part, name) for part in rows])
        for name in ("user", "video", "device", "timestamp", "click", "like")
    )
    tastes = world.preferences.day(0)
    logits = world.preferences.logits(tastes, user, video, device, time // 3_600_000 % 24)
    x = np.concatenate([tastes.user_taste[user], world.videos.taste[video]], 1)
    return x, np.stack([click, np.where(click > 0, like, np.nan)], 1).astype(np.float32), np.stack(logits, 1) > 0


def test_objectives_without_a_common_taste_fight_over_a_shared_bottom_and_not_over_experts_of_their_own() -> None:
    """A product of two numbers takes about four ReLU units, and the bottom has four for two products."""
    x, known, truth = simulated(agreement=0.0, dims=1)
    outcomes = {}
    for name, trunk in (("shared", {"kind": "shared_bottom"}), ("separate", {"kind": "separate"}), ("ple", PLE)):
        outcomes[name] = learnt(config(4, {**trunk, "layers": [4]}, seed=3, loss_weight=20.0), x, known, truth)
    found = {name: auc(outcome) for name, outcome in outcomes.items()}
    assert found["separate"][0] > 0.95
    assert found["shared"][0] < found["separate"][0] - 0.15
    assert found["ple"][0] > found["separate"][0] - 0.03
    assert min(values[1] for values in found.values()) > 0.9  # the heavy one is learnt everywhere

    alone = learnt(config(4, {"kind": "shared_bottom", "layers": [4]}, seed=3, objectives="a"), x, known, truth)
    designs = {name: [outcome] for name, outcome in outcomes.items()}
    variants = compare(designs, {"a": [alone]}, "shared", {"a": "binary", "b": "binary"})["variants"]
    flags = {name: variant["against_single_task"]["a"]["negative_transfer"] for name, variant in variants.items()}
    assert flags["shared"]
    assert not flags["separate"] or not flags["ple"]


def test_an_objective_starved_of_labels_gains_from_one_that_agrees() -> None:
    """Likes follow the taste of clicks; b has 60 labels, a all of them."""
    x, known, truth = simulated(agreement=1.0, dims=3)
    known[np.flatnonzero(~np.isnan(known[:, 1]))[60:], 1] = np.nan
    found = {}
    for name, trunk in (("shared", {"kind": "shared_bottom"}), ("separate", {"kind": "separate"})):
        found[name] = auc(learnt(config(12, {**trunk, "layers": [16]}, seed=3), x, known, truth))
    assert found["shared"][1] > found["separate"][1] + 0.05
    assert found["separate"][1] > 0.55  # it does learn something alone
    assert found["shared"][0] == pytest.approx(found["separate"][0], abs=0.02)
