"""Sharing hurts where objectives want different things of a small trunk, and helps where one of them has few labels."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from data.config import Config, parse_config
from data.features.layout import Block, build_layout
from data.features.targets import TargetStats
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
    trainer = Trainer(Network(made, layout, {}, [TargetStats(0.5, 0.5, ROWS)] * count), made.training)
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


def test_conflicting_objectives_fight_over_a_shared_bottom_and_not_over_experts_of_their_own() -> None:
    """a asks whether |x0| is large, b whether |x1| + |x2| is: two and four ReLU units, of which the bottom has four."""
    x = np.random.default_rng(0).normal(size=(2 * ROWS, 3)).astype(np.float32)
    truth = np.stack([np.abs(x[:, 0]) > 0.67, np.abs(x[:, 1]) + np.abs(x[:, 2]) > 1.5], 1)
    known, outcomes = truth.astype(np.float32), {}
    for name, trunk in (("shared", {"kind": "shared_bottom"}), ("separate", {"kind": "separate"}), ("ple", PLE)):
        outcomes[name] = learnt(config(3, {**trunk, "layers": [4]}, seed=3, loss_weight=20.0), x, known, truth)
    found = {name: auc(outcome) for name, outcome in outcomes.items()}
    assert found["separate"][0] > 0.95
    assert found["shared"][0] < found["separate"][0] - 0.15
    assert found["ple"][0] > found["separate"][0] - 0.03
    assert min(values[1] for values in found.values()) > 0.9  # the heavy one is learnt everywhere

    alone = learnt(config(3, {"kind": "shared_bottom", "layers": [4]}, seed=3, objectives="a"), x, known, truth)
    designs = {name: [outcome] for name, outcome in outcomes.items()}
    variants = compare(designs, {"a": [alone]}, "shared", {"a": "binary", "b": "binary"})["variants"]
    flags = {name: variant["against_single_task"]["a"]["negative_transfer"] for name, variant in variants.items()}
    assert flags["shared"]
    assert not flags["separate"] or not flags["ple"]


def test_an_objective_starved_of_labels_gains_from_one_that_agrees() -> None:
    """Both ask for the sign of the same sum of 30 numbers; a has 60 labels, b 3,000."""
    random = np.random.default_rng(0)
    x = random.normal(size=(2 * ROWS, 30)).astype(np.float32)
    truth = np.repeat((x @ random.normal(size=30) > 0)[:, None], 2, 1)
    known = truth.astype(np.float32)
    known[60:, 0] = np.nan
    found = {}
    for name, trunk in (("shared", {"kind": "shared_bottom"}), ("separate", {"kind": "separate"})):
        found[name] = auc(learnt(config(30, {**trunk, "layers": [8]}, seed=3), x, known, truth))
    assert found["shared"][0] > found["separate"][0] + 0.1
    assert found["separate"][0] > 0.6  # it does learn something alone
    assert found["shared"][1] == pytest.approx(found["separate"][1], abs=0.02)
