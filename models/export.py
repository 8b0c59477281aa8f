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
from models.scorer import ENCODED_BYTES, FACTS, FORMATS, VIDEOS_FILE, input_name

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
    processes share them, and none reads them whole. Where videos can be encoded beforehand (:func:`encodes`), the scorer
    takes them so, and the graph that does it lies beside it too.

    Raises:
        ConfigError: no feature tells candidates apart.
    """
    if not _tells_candidates_apart(network.layout):
        raise ConfigError("nothing to rank by: the configuration has no feature of the video or of user and video together")
    frozen, facts, encoded = network.copy(spare=False), scorer_facts(network), encodes(network)
    path.parent.mkdir(parents=True, exist_ok=True)
    model = _converted(request_function(frozen, network.trunk.experts > 0, encoded))
    if encoded:
        read = {given.name for given in model.graph.input}
        ints = network.layout.sides["video"].int_width if input_name("video", "ints") in read else 0
        facts["encoded"] = {"ints": ints, "floats": side_width(network.layout, "video")}
        _write(_converted(videos_function(frozen)), {}, path.with_name(VIDEOS_FILE))
    _write(model, facts, path)


def encodes(network: Network) -> bool:
    """Whether the videos' part of x is looked up beforehand: where there is one of them and something to look up, and no
    more videos have embeddings than may be kept encoded."""
    fields = network.layout.sides["video"].ints
    if network.views or not fields:
        return False
    rows = max(network.table_sizes[field.table] for field in fields)
    return 4 * rows * side_width(network.layout, "video") <= ENCODED_BYTES


def _converted(function: tf.types.experimental.PolymorphicFunction) -> Any:
    """The function as an ONNX model, without the inputs that it doesn't read."""
    import tf2onnx

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    model, _ = tf2onnx.convert.from_function(function, input_signature=function.input_signature, opset=OPSET)
    read = {name for node in model.graph.node for name in node.input}
    for given in [given for given in model.graph.input if given.name not in read]:
        model.graph.input.remove(given)
    return model


def _write(model: Any, facts: dict[str, Any], path: Path) -> None:
    """An ONNX model with its facts, its large tables beside it."""
    import onnx

    onnx.helper.set_model_props(model, {FACTS: json.dumps(facts)})
    apart = path.with_suffix(TABLES_SUFFIX)
    apart.write_bytes(b"")  # with every file's rights: onnx would make it readable by its owner alone
    onnx.save(model, str(path), save_as_external_data=True, location=apart.name, size_threshold=LARGE_BYTES)
    if not apart.stat().st_size:
        apart.unlink()


def scorer_facts(network: Network) -> dict[str, Any]:
    """What the scorer must know besides the graph, JSON-ready."""
    sides = network.layout.sides
    return {
        "format": FORMATS[-1],
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


def request_function(
    network: Network, gates: bool = True, encoded: bool = False
) -> tf.types.experimental.PolymorphicFunction:
    """The same for one request: user and context have one row, video and cross n. Without ``gates``: predictions alone.
    ``encoded``: the video's floats are what :func:`videos_function` gives."""
    specs = input_specs(network.layout, request_rows=1)
    if encoded:
        floats = input_name("video", "floats")
        specs[floats] = tf.TensorSpec([None, side_width(network.layout, "video")], tf.float32, floats)

    def rank(*tensors: tf.Tensor) -> dict[str, tf.Tensor]:
        named = dict(zip(specs, tensors, strict=True))
        blocks = _blocks(named, network.layout)
        outputs = network.forward_request(blocks, encoded)
        answer = {"predictions": network.to_natural(outputs.raw, blocks)}
        return {**answer, "gates": outputs.gates} if gates else answer

    return tf.function(rank, input_signature=list(specs.values()))


def videos_function(network: Network) -> tf.types.experimental.PolymorphicFunction:
    """n videos to their part of x [n, side_width]."""
    specs = {name: spec for name, spec in input_specs(network.layout, None).items() if name.startswith("video_")}

    def encode(*tensors: tf.Tensor) -> dict[str, tf.Tensor]:
        blocks = _blocks(dict(zip(specs, tensors, strict=True)), network.layout)
        return {"encoded": network.encoder.side("video", blocks["video"])}

    return tf.function(encode, input_signature=list(specs.values()))


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
