"""Small configurations and random encoded rows, for the tests of the networks."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.config import Config, Side, parse_config
from data.features.layout import SIDES, Block, Layout, build_layout
from data.features.targets import TargetStats
from models.network import Network
from models.step import Trainer

USER = [
    {"kind": "category", "name": "user", "column": "user_id", "dim": 4, "dropout": 0.3, "l2": 0.01},
    {"kind": "history", "name": "watched", "label": "click", "length": 5, "dim": 6},
    {"kind": "recent", "name": "recent", "labels": ["click", "watch"], "last": [1, 3]},
]
CONTEXT = [{"kind": "category", "name": "device", "column": "device", "dim": 3}]
VIDEO = [
    {"kind": "category", "name": "video", "column": "video_id", "dim": 6},
    {"kind": "categories", "name": "tags", "column": "tags", "dim": 3, "max_values": 4},
    {"kind": "number", "name": "duration", "column": "duration"},
]
CROSS = [
    {"kind": "crossed", "name": "device_author", "columns": ["device", "author"], "dim": 2},
    {"kind": "rate", "name": "user_author", "keys": ["user_id", "author"], "labels": ["click"]},
]
TRAINING_ONLY = [
    {"kind": "number", "name": "position", "column": "position"},
    {"kind": "category", "name": "device_shown", "column": "device", "dim": 3, "side": "training_only"},
]
EVERYTHING = [*USER, *CONTEXT, *VIDEO, *CROSS, *TRAINING_ONLY]

CLICK = {"name": "click", "family": "engagement", "label": "click", "kind": "binary"}
LIKE = {"name": "like", "family": "satisfaction", "label": "like", "kind": "binary", "loss_weight": 2.0}
WATCH = {"name": "watch", "family": "engagement", "label": "watch", "kind": "regression", "loss": "huber"}
STATS = {"click": TargetStats(0.3, 0.46, 100), "like": TargetStats(0.05, 0.2, 100), "watch": TargetStats(2.0, 0.8, 100)}

TRUNK = {"experts": 3, "layers": [8, 5], "expert_dropout": 0.2}
MODEL = {"trunk": TRUNK, "tower": [4]}


def small_config(
    features: list[dict[str, Any]] = EVERYTHING,
    objectives: tuple[dict[str, Any], ...] = (CLICK, LIKE, WATCH),
    model: Mapping[str, Any] = MODEL,
    training: Mapping[str, Any] | None = None,
    seed: int = 7,
) -> Config:
    return parse_config(
        {
            "name": "small",
            "dataset": "small",
            "seed": seed,
            "log": {"context": {"device": {"type": "category"}}},
            "videos": {
                "files": ["videos*"],
                "key": "video_id",
                "columns": {
                    "author": {"type": "category"},
                    "tags": {"type": "categories"},
                    "duration": {"type": "number"},
                },
            },
            "labels": {"click": {"type": "binary"}, "like": {"type": "binary"}, "watch": {"type": "number"}},
            "features": features,
            "objectives": list(objectives),
            "model": dict(model),
            "training": {"batch_size": 16, "learning_rate": 0.01, "embedding_learning_rate": 0.01, **(training or {})},
        },
        "the test's configuration",
    )


def table_sizes(layout: Layout, rows: int = 10) -> dict[str, int]:
    """``rows`` in every table, twice as many of users."""
    return {table: 2 * rows if table == "user_id" else rows for table in layout.tables}


def small_network(config: Config, rows: int = 10) -> Network:
    layout = build_layout(config)
    return Network(config, layout, table_sizes(layout, rows), [STATS[name] for name in config.objective_names])


def small_trainer(config: Config, rows: int = 10) -> Trainer:
    return Trainer(small_network(config, rows), config.training)


def random_blocks(layout: Layout, n: int, seed: int = 0, rows: int = 10) -> dict[Side, Block]:
    """Ids over all rows of the tables, padding among the pooled ones."""
    random = np.random.default_rng(seed)
    blocks = {}
    for side in SIDES:
        fields = layout.sides[side]
        ints = np.zeros((n, fields.int_width), np.int32)
        for field in fields.ints:
            lowest = -1 if field.pooled else 0
            ints[:, field.offset : field.offset + field.width] = random.integers(lowest, rows, (n, field.width))
        blocks[side] = Block(ints, random.normal(size=(n, fields.float_width)).astype(np.float32))
    return blocks


def random_targets(config: Config, n: int, seed: int = 0, masked: float = 0.2) -> NDArray[np.float32]:
    random = np.random.default_rng(seed)
    columns = [
        random.random(n) < 0.4 if objective.kind == "binary" else random.exponential(8.0, n)
        for objective in config.objectives
    ]
    targets = np.stack(columns, 1).astype(np.float32)
    targets[random.random(targets.shape) < masked] = np.nan
    return targets


def one_request(blocks: Mapping[Side, Block], rows: NDArray[np.int64]) -> dict[Side, Block]:
    """The candidates ``rows`` of a request whose user and context are those of row 0."""
    first = np.zeros(1, np.int64)
    return {side: block.take(first if side in ("user", "context") else rows) for side, block in blocks.items()}


def repeated(blocks: Mapping[Side, Block]) -> dict[Side, Block]:
    """The same request with user and context written out for every candidate."""
    n = len(blocks["video"])
    zeros = np.zeros(n, np.int64)
    return {side: block.take(zeros) if len(block) == 1 else block for side, block in blocks.items()}
