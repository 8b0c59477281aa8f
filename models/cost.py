"""What a network costs: its parameters, and the floating point operations of one row."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from data.features.layout import SIDES
from models.network import Network
from models.noise import Noise

PRODUCTS = ("MatMul", "BatchMatMul", "BatchMatMulV2")
ROWS = 10_007
"""A prime that no width is a multiple of: a product that it divides is made for each row."""


@dataclass(frozen=True)
class Parameters:
    """``dense``: the trunk, towers and heads; ``bias``: what takes up selection bias (the shallow tower), which serving
    does without; ``embedding``: the admitted rows of all tables."""

    dense: int
    bias: int
    embedding: int

    @property
    def total(self) -> int:
        return self.dense + self.bias + self.embedding


def num_parameters(network: Network) -> Parameters:
    """The numbers that training can change."""
    beside = tuple(f"{layer.name}/" for layer in network.bias.layers)
    sizes = {name: int(weight.shape.num_elements()) for name, weight in network.weights.items()}
    bias = sum(size for name, size in sizes.items() if name.startswith(beside)) if beside else 0
    tables = network.embeddings.variables
    embedding = sum(rows * int(tables[name].shape[1]) for name, rows in network.table_sizes.items())
    return Parameters(sum(sizes.values()) - bias, bias, embedding)


def flops_per_example(network: Network) -> int:
    """The multiplications and additions in the matrix products of one forward row, as trained: 2 for each weight met.

    Counted in the graph. A product that is made once for all rows (an objective's descriptor) costs a row nothing.
    Look-ups, activations and other sums element by element are not counted.
    """
    counts = [_flops(operation) for operation in _operations(network) if operation.type in PRODUCTS]
    return sum(count // ROWS for count in counts if count % ROWS == 0)


def cost_figures(network: Network) -> dict[str, Any]:
    """The cost, JSON-ready."""
    parameters = num_parameters(network)
    counted = {**asdict(parameters), "total": parameters.total}
    return {"parameters": counted, "flops_per_example": flops_per_example(network)}


def _operations(network: Network) -> list[tf.Operation]:
    """Those of the training graph of a batch of ``ROWS``."""
    sides = network.layout.sides
    blocks = {
        side: (
            tf.TensorSpec([ROWS, sides[side].int_width], tf.int32),
            tf.TensorSpec([ROWS, sides[side].float_width], tf.float32),
        )
        for side in SIDES
    }

    def forward(given: Any) -> Any:
        return network.forward(given, Noise(tf.constant(0, tf.int64), tf.constant(0, tf.int64))).raw

    operations: list[tf.Operation] = tf.function(forward).get_concrete_function(blocks).graph.get_operations()
    return operations


def _flops(operation: tf.Operation) -> int:
    """2 b m k n of a product [b, m, k] [b, k, n]."""
    transposed = any(operation.get_attr(name) for name in ("transpose_a", "adj_x") if name in operation.node_def.attr)
    given = operation.inputs[0].shape.as_list()
    inner = given[-2] if transposed else given[-1]
    return 2 * int(np.prod(operation.outputs[0].shape.as_list())) * int(inner)
