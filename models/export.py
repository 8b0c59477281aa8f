"""A network as files that other programs run: a TensorFlow SavedModel, and a compiled scorer.

Both are made from a copy of the network whose embedding tables have no spare rows. Wrap the call in
:meth:`models.step.Trainer.averaged` where weights are averaged.
"""

import json
import logging
from pathlib import Path
from typing import Any

import tensorflow as tf

from data.errors import ConfigError
from data.features.layout import Layout
from models.encoder import CANDIDATE_SIDES, ORDER, REQUEST_SIDES, side_width
from models.network import Blocks, Network
from models.scorer import FACTS, FORMAT, input_name

OPSET = 17
LARGE_BYTES = 1 << 20
"""From how many on a constant lies beside the compiled scorer,"""
TABLES_SUFFIX = ".tables"
"""in the file of its name that ends so."""


def export_saved_model(network: Network, folder: Path) -> None:
    """Write ``saved_model.pb`` and ``variables/`` into ``folder``, as TensorFlow Serving loads them.

    Signatures, with inputs ``<side>_ints`` and ``<side>_floats`` for each side that has some, and outputs
    ``predictions`` [n, K] in natural units and ``gates`` [n, K, E]:

    - ``serving_default``: every input has n rows.
    - ``rank``: one request; user and context have one row. Only where candidates have features of their own.
    """
    frozen = network.copy(spare=False)
    module = tf.Module(name="watchnext")
    module.kept = [*frozen.weights.values(), *frozen.embeddings.variables.values()]
    signatures = {"serving_default": rows_function(frozen)}
    if _tells_candidates_apart(network.layout):
        signatures["rank"] = request_function(frozen)
    tf.saved_model.save(module, str(folder), signatures=signatures)


def export_scorer(network: Network, path: Path) -> None:
    """Write the compiled scorer (ONNX) that :class:`models.scorer.Scorer` runs: one request's candidates at a time. Of a
    trunk without experts it gives no gates. Large tables lie in a file beside it, which ONNX Runtime maps into memory:
    processes share them, and none reads them whole.

    Raises:
        ConfigError: no feature tells candidates apart.
    """
    import onnx
    import tf2onnx

    if not _tells_candidates_apart(network.layout):
        raise ConfigError("nothing to rank by: the configuration has no feature of the video or of user and video together")
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    function = request_function(network.copy(spare=False), gates=network.trunk.experts > 0)
    model, _ = tf2onnx.convert.from_function(function, input_signature=function.input_signature, opset=OPSET)
    onnx.helper.set_model_props(model, {FACTS: json.dumps(scorer_facts(network))})
    path.parent.mkdir(parents=True, exist_ok=True)
    apart = path.with_suffix(TABLES_SUFFIX)
    apart.write_bytes(b"")  # with every file's rights: onnx would make it readable by its owner alone
    onnx.save(model, str(path), save_as_external_data=True, location=apart.name, size_threshold=LARGE_BYTES)
    if not apart.stat().st_size:
        apart.unlink()


def scorer_facts(network: Network) -> dict[str, Any]:
    """What the scorer must know besides the graph, JSON-ready."""
    sides = network.layout.sides
    return {
        "format": FORMAT,
        "objectives": list(network.config.objective_names),
        "experts": network.trunk.experts,
        "widths": {side: {"ints": sides[side].int_width, "floats": sides[side].float_width} for side in ORDER},
        "split": split_facts(network),
    }


def split_facts(network: Network) -> dict[str, Any]:
    """What of the network the compiled scorer computes once a request, JSON-ready.

    ``first_layer``: "graph" where the first layer's part of user and context is computed once, in the graph, else "none",
    with the reason in ``why``. ``per_candidate``: what depends on user and video together, and so has a block of its own.
    No table of the videos' part is kept: docs/decisions/0005.
    """
    layout, model = network.layout, network.config.model
    named = {"cross": [field.feature for field in (*layout.sides["cross"].ints, *layout.sides["cross"].floats)]}
    named["products"] = [" x ".join(pair) for pair in model.products]
    named["factors"] = [", ".join(factors.objectives) for factors in model.factors]
    why = network.trunk.unsplit
    return {
        "first_layer": "graph" if why is None else "none",
        "why": why or "the first layer is linear in [user and context, video], the first of which all candidates share",
        "per_candidate": {kind: names for kind, names in named.items() if names},
    }


def rows_function(network: Network) -> tf.types.experimental.PolymorphicFunction:
    """n rows to predictions and gates, one tensor per input of :func:`input_specs`."""
    specs = input_specs(network.layout, request_rows=None)

    def predict(*tensors: tf.Tensor) -> dict[str, tf.Tensor]:
        named = dict(zip(specs, tensors, strict=True))
        blocks = _blocks(named, network.layout)
        outputs = network.forward(blocks)
        return {"predictions": network.to_natural(outputs.raw, blocks), "gates": outputs.gates}

    return tf.function(predict, input_signature=list(specs.values()))


def request_function(network: Network, gates: bool = True) -> tf.types.experimental.PolymorphicFunction:
    """The same for one request: user and context have one row, video and cross n. Without ``gates``: predictions alone."""
    specs = input_specs(network.layout, request_rows=1)

    def rank(*tensors: tf.Tensor) -> dict[str, tf.Tensor]:
        named = dict(zip(specs, tensors, strict=True))
        blocks = _blocks(named, network.layout)
        outputs = network.forward_request(blocks)
        answer = {"predictions": network.to_natural(outputs.raw, blocks)}
        return {**answer, "gates": outputs.gates} if gates else answer

    return tf.function(rank, input_signature=list(specs.values()))


def input_specs(layout: Layout, request_rows: int | None) -> dict[str, tf.TensorSpec]:
    """The inputs by name, those of width 0 left out."""
    specs = {}
    for side in ORDER:
        rows = request_rows if side in REQUEST_SIDES else None
        fields = layout.sides[side]
        for part, width, kind in (("ints", fields.int_width, tf.int32), ("floats", fields.float_width, tf.float32)):
            if width:
                name = input_name(side, part)
                specs[name] = tf.TensorSpec([rows, width], kind, name)
    return specs


def _blocks(named: dict[str, tf.Tensor], layout: Layout) -> Blocks:
    """The sides' blocks; an input left out is None, and never read."""
    return {side: (named.get(input_name(side, "ints")), named.get(input_name(side, "floats"))) for side in ORDER}


def _tells_candidates_apart(layout: Layout) -> bool:
    return any(side_width(layout, side) for side in CANDIDATE_SIDES)
