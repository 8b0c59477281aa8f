"""A small trunk of every kind, for the tests that all of them must pass."""

from typing import Any

import tensorflow as tf
from network_samples import CLICK, LIKE, WATCH, small_config

from data.config import Objective
from models.learnt import Columns
from models.noise import Noise
from models.trunks import Trunk, build_trunk

GATED = {"expert_dropout": 0.3, "layers": [6, 5]}
METADATA = {"click": [1.0, 0.2], "like": [0.0, 1.0], "watch": [0.5, -1.0]}
SETTINGS: dict[str, dict[str, Any]] = {
    "separate": {"kind": "separate"},
    "separate, shared embeddings": {"kind": "separate", "own_embeddings": False},
    "shared_bottom": {"kind": "shared_bottom"},
    "concatenation": {"kind": "conditioned", "by": "concatenation", "at": "every", "metadata": METADATA},
    "addition": {"kind": "conditioned", "by": "addition", "at": "input"},
    "gating": {"kind": "conditioned", "by": "gating", "at": "every"},
    "film": {"kind": "conditioned", "by": "film", "at": "input"},
    "soft_sharing": {"kind": "soft_sharing", "tie": 0.1},
    "cross_stitch": {"kind": "cross_stitch"},
    "mmoe": {"kind": "mmoe", "experts": 3, **GATED},
    "mmoe, all measures": {"experts": 3, **GATED, "expert_norm": True, "load_balance": 0.1, "gate_entropy": 0.1},
    "cgc": {"kind": "ple", "levels": 1, **GATED},
    "ple": {"kind": "ple", "levels": 2, "task_experts": 2, **GATED, "expert_norm": True, "load_balance": 0.1},
    "stem": {"kind": "stem", **GATED},
    "home": {"kind": "home", "task_experts": 1, **GATED, "feature_gate_rank": 2, "gate_entropy": 0.1},
    "home, bare": {"kind": "home", "task_experts": 2, **GATED, "feature_gate_rank": 0, "self_gates": False},
}
SETTINGS = {name: {"layers": [6, 5], **settings} for name, settings in SETTINGS.items()}
ONE_EACH = ("separate", "shared_bottom", "film", "soft_sharing", "cross_stitch", "mmoe", "ple", "stem", "home")


def objectives(count: int = 3) -> tuple[Objective, ...]:
    """click (engagement), like (satisfaction), watch (engagement)."""
    return small_config(objectives=(CLICK, LIKE, WATCH)[:count]).objectives


def small_trunk(
    inputs: int = 3,
    count: int = 3,
    seed: int = 5,
    dropout: float = 0.0,
    columns: Columns | None = None,
    **settings: Any,
) -> Trunk:
    parsed = small_config(objectives=(CLICK, LIKE, WATCH)[:count], model={"trunk": settings}).model.trunk
    return build_trunk(parsed, objectives(count), inputs, dropout, seed, columns)


def noise(step: int = 0) -> Noise:
    return Noise(tf.constant(1, tf.int64), tf.constant(step, tf.int64))
