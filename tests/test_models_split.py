"""The split scorer is the plain network, whatever the configuration: a random one of every trunk, many times over."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from network_samples import (
    CLICK,
    CONTEXT,
    CROSS,
    LIKE,
    TRAINING_ONLY,
    USER,
    VIDEO,
    one_request,
    random_blocks,
    repeated,
    small_config,
    table_sizes,
)
from test_models_heads_watch import THRESHOLDS, watch_grid

from data.config import Config
from data.features.layout import Block, build_layout
from data.features.targets import TargetStats
from models.bfloat16 import Bfloat16Session
from models.encoder import ORDER
from models.export import export_scorer, split_facts
from models.network import Network
from models.scorer import SCORER_FILE, Scorer

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
LENGTH = {"kind": "number", "name": "length", "column": "duration", "scaling": "buckets", "buckets": 2, "dim": 2}
WATCH = {"name": "watch", "family": "engagement", "label": "watch", "kind": "regression"}
WATCHES = [
    WATCH,
    {**WATCH, "transform": "none", "loss": "squared_error"},
    {**WATCH, "transform": "none", "head": "weighted_logistic"},
    {**WATCH, "transform": "none", "head": "duration_quantile", "duration": "length"},
    {**WATCH, "transform": "none", "head": "discretised"},
]
AGAIN = {"kind": "category", "name": "user_again", "column": "user_id", "table": "again", "dim": 3}
HOUR = {"kind": "clock", "name": "hour", "part": "hour", "dim": 2}
GIVEN = {**LIKE, "given": "click"}
TASTE = {"objectives": ["click"], "request": ["user", "watched"], "video": ["video"], "dim": 3}
WIDTHS = st.lists(st.integers(2, 6), min_size=1, max_size=3)
HALF = st.booleans()
DESCRIPTORS = {"click": [1.0, 0.2], "like": [0.0, 1.0], "watch": [0.5, -1.0]}
STATS = {"click": TargetStats(0.3, 0.46, 100), "like": TargetStats(0.05, 0.2, 100)}


def gated(**more: Any) -> dict[str, Any]:
    return {"expert_norm": HALF, "load_balance": st.sampled_from([0.0, 0.1]), **more}


GROUPED = gated(task_experts=st.integers(1, 2), shared_experts=st.integers(1, 3))
TRUNKS: dict[str, dict[str, Any]] = {
    "separate": {"own_embeddings": HALF},
    "shared_bottom": {},
    "conditioned": {
        "by": st.sampled_from(["concatenation", "addition", "gating", "film"]),
        "at": st.sampled_from(["input", "every"]),
        "described": HALF,
    },
    "soft_sharing": {"tie": st.sampled_from([0.0, 0.3, 1.0])},
    "cross_stitch": {"own_weight": st.floats(0.5, 1.0)},
    "mmoe": gated(experts=st.integers(1, 4)),
    "ple": {**GROUPED, "levels": st.integers(1, 3)},
    "stem": GROUPED,
    "home": {**GROUPED, "meta_experts": st.integers(1, 2), "feature_gate_rank": st.sampled_from([0, 2]), "self_gates": HALF},
}


@st.composite
def configurations(draw: st.DrawFn, kind: str) -> Config:
    """Objectives with their heads, some features of each side (of the video or of both at least one), and a network."""
    objectives = [
        CLICK,
        *draw(st.sampled_from([[], [LIKE], [GIVEN]])),
        *draw(st.sampled_from([[], *([w] for w in WATCHES)])),
    ]
    needs_length = any(objective.get("duration") for objective in objectives)
    user, context, video, cross, shown = (
        draw(st.lists(st.sampled_from(side), unique_by=lambda feature: feature["name"], max_size=len(side)))
        for side in ([*USER, AGAIN], [*CONTEXT, HOUR], VIDEO, CROSS, TRAINING_ONLY)
    )
    video = video if video or cross else [VIDEO[0]]
    features = [*user, *context, *video, *([LENGTH] if needs_length else []), *cross, *shown]
    names = {feature["name"] for feature in features}
    chosen = draw(st.fixed_dictionaries(TRUNKS[kind]))
    if chosen.pop("described", False):
        chosen["metadata"] = {objective["name"]: DESCRIPTORS[objective["name"]] for objective in objectives}
    model = {
        "trunk": {"kind": kind, "layers": draw(WIDTHS), **chosen},
        "tower": draw(st.lists(st.integers(1, 4), max_size=2)),
        "bias": draw(st.sampled_from(["shallow_tower", "input", "pal"])) if shown else "none",
        "products": [["watched", "video"]] if {"watched", "video"} <= names and draw(HALF) else [],
        "factors": [TASTE] if {"user", "watched", "video"} <= names and draw(HALF) else [],
    }
    return small_config(features, tuple(objectives), model)


def network_of(config: Config, seed: int) -> Network:
    """With weights off their start, where biases are 0 and scales 1."""
    layout = build_layout(config)
    stats = [STATS.get(objective.name) or watch_stats(objective.head) for objective in config.objectives]
    network = Network(config, layout, table_sizes(layout), stats)
    random = np.random.default_rng(seed)
    for weight in [*network.weights.values(), *network.embeddings.variables.values()]:
        weight.assign_add(random.normal(0, 0.1, weight.shape).astype(np.float32))
    return network


def watch_stats(head: str) -> TargetStats:
    match head:
        case "weighted_logistic":
            return TargetStats(10.0, 1.0, 8, natural_mean=10.0, positive=0.5)
        case "discretised":
            return THRESHOLDS
        case "duration_quantile":
            return watch_grid()
        case _:
            return TargetStats(2.0, 0.8, 100)


def tensors(blocks: dict[str, Block]) -> dict[str, tuple[tf.Tensor, tf.Tensor]]:
    return {side: (tf.constant(block.ints), tf.constant(block.floats)) for side, block in blocks.items()}


def requested(network: Network, n: int, seed: int) -> dict[str, Block]:
    return one_request(random_blocks(network.layout, n, seed=seed, rows=4), np.arange(n))  # 4: the rows of the buckets' grid


def plain(network: Network, request: dict[str, Block]) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and gates of the plain network over the request's rows."""
    rows = tensors(repeated(request))
    outputs = network.forward(rows)
    return network.to_natural(outputs.raw, rows).numpy(), outputs.gates.numpy()


@pytest.mark.parametrize("kind", TRUNKS)
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(data=st.data(), n=st.integers(1, 9), seed=st.integers(0, 99))
def test_the_split_network_is_the_plain_one(kind: str, data: st.DataObject, n: int, seed: int) -> None:
    network = network_of(data.draw(configurations(kind)), seed)
    request = requested(network, n, seed)
    expected, gates = plain(network, request)
    given_blocks = tensors(request)
    outputs = network.forward_request(given_blocks)
    np.testing.assert_allclose(network.to_natural(outputs.raw, given_blocks), expected, **CLOSE)
    np.testing.assert_allclose(outputs.gates, gates, **CLOSE)


@pytest.mark.parametrize("kind", TRUNKS)
@settings(max_examples=1, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
@given(data=st.data())
def test_the_compiled_scorer_is_the_plain_network(kind: str, data: st.DataObject, tmp_path: Path) -> None:
    network = network_of(data.draw(configurations(kind)), 1)
    export_scorer(network, tmp_path / SCORER_FILE)
    scorer = Scorer.load(tmp_path)
    assert scorer.split == split_facts(network)
    for n in (1, 23):
        request = requested(network, n, seed=n)
        expected, gates = plain(network, request)
        scores = scorer.score(*(request[side] for side in ORDER))
        np.testing.assert_allclose(scores.predictions, expected, **CLOSE)
        np.testing.assert_allclose(scores.gates, gates, **CLOSE)
        beforehand = scorer.score(*(scorer.encode(request[side]) if side == "video" else request[side] for side in ORDER))
        np.testing.assert_array_equal(beforehand.predictions, scores.predictions)
    request = requested(network, 70, seed=70)  # enough for two threads
    expected, gates = plain(network, request)
    shared, elsewhere = Scorer.load(tmp_path, threads=2), Scorer.load(tmp_path)
    elsewhere._session = Bfloat16Session(tmp_path / SCORER_FILE, precision="f32")  # the runtime that has bfloat16
    for other in (shared, elsewhere):
        scores = other.score(*(request[side] for side in ORDER))
        np.testing.assert_allclose(scores.predictions, expected, **CLOSE)
        np.testing.assert_allclose(scores.gates, gates, **CLOSE)


def test_the_bundle_says_what_is_split() -> None:
    features = [*USER, *VIDEO, *CROSS]
    trunk = {"kind": "home", "layers": [3], "feature_gate_rank": 2}
    model = {"products": [["watched", "video"]], "factors": [TASTE]}
    whole = split_facts(network_of(small_config(features, (CLICK,), {**model, "trunk": trunk}), 1))
    assert whole["first_layer"] == "none"
    assert "feature gates" in whole["why"]
    assert whole["per_candidate"] == {
        "cross": ["device_author", "user_author"],
        "products": ["watched x video"],
        "factors": ["click"],
    }
    split = split_facts(network_of(small_config([*USER, *VIDEO], (CLICK,), {"trunk": {**trunk, "feature_gate_rank": 0}}), 1))
    assert (split["first_layer"], split["per_candidate"]) == ("graph", {})
