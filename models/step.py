"""The trainer, which runs a network's training over arrays."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from data.config import Side
from data.config_training import TrainingConfig
from data.features.layout import SIDES, Block
from data.features.storage import let_go_of_blocks
from data.readers.ahead import ahead
from models.average import Average
from models.balancing import build_balancing
from models.custom_gradients import forget_gradients
from models.embedding import extend, rows_of
from models.graph import Compiled, Graph, Shown
from models.network import Network
from models.optimizer import Optimizers
from models.ordering import Slates
from models.sampling import Draw, draw
from models.shuffle import gather
from models.trainer_state import read_state, under, write_state

PREDICT_ROWS = 4096
BFLOAT16 = "auto_mixed_precision_onednn_bfloat16"
"""TensorFlow's option: products and what lies between them are rewritten; variables, sums and losses stay float32."""
SUMS = ("TF_AUTO_MIXED_PRECISION_GRAPH_REWRITE_INFERLIST_REMOVE", "BiasAddGrad")
"""What it must not rewrite: TensorFlow's sum of a bias's gradients adds up in bfloat16, which loses a twentieth of it over
4,096 rows, and half where most have one sign. (Other sums add up in float32.)"""
ARITHMETIC = "arithmetic_optimization"
"""TensorFlow's option: among other things sums of pairs become one sum of many, in the order in which buffers are free."""
CALL_ROWS = 32_768
"""The rows gathered for one call of the graph, about: enough that calls cost nothing, few enough for memory. The next
call's are gathered, and copied for TensorFlow, while it computes."""


class Predicted(NamedTuple):
    """Predictions [n, K] in natural units; mean gate weights [K, E]; the rows' mean gate entropy [K], in nats (both NaN
    where n is 0); which of the experts' last units were above 0 for some row [E, H] ([0, 0] where they are no ReLUs)."""

    predictions: NDArray[np.float32]
    utilisation: NDArray[np.float64]
    entropy: NDArray[np.float64]
    live: NDArray[np.bool_]


OnBatch = Callable[[int, NDArray[np.float32]], None]


class Trainer:
    """Trains a network on encoded rows, and predicts with it.

    The state (weights, slots, averages, balancing's variables, the count of steps) is all that the next step depends on,
    besides its batch and seed: a trainer saved and loaded goes on to the bit. With ``deterministic`` TensorFlow's op
    determinism is switched on and its arithmetic optimizer off (docs/decisions/0015), with ``bfloat16`` oneDNN's matrix
    products in bfloat16, for the whole process: what it predicts goes through them too, what it exports doesn't.
    """

    def __init__(self, network: Network, training: TrainingConfig) -> None:
        self.network, self.training = network, training
        self.steps = tf.Variable(0, dtype=tf.int64, name="steps")
        self.balancing = build_balancing(training.balancing, network.config.objectives)
        if training.deterministic:
            tf.config.experimental.enable_op_determinism()
        os.environ.setdefault(*SUMS)
        tf.config.optimizer.set_experimental_options({BFLOAT16: training.bfloat16, ARITHMETIC: not training.deterministic})
        self._build()

    def _build(self) -> None:
        """Optimizers, averages and graphs over the network's present variables."""
        forget_gradients()  # of the graphs before
        self.optimizers = Optimizers(self.network, self.training)
        decay = self.training.average
        named = {**self.network.weights, **{f"table/{name}": table for name, table in self.optimizers.small.items()}}
        self.average = Average(named, decay, self.training.average_ramp) if decay is not None else None
        self.graph = Graph(self.network, self.training, self.optimizers, self.balancing, self.average, self.steps)
        self._compiled = Compiled(self.graph)

    def train_epoch(
        self,
        blocks: Mapping[Side, Block],
        targets: NDArray[np.float32],
        order: NDArray[np.int64],
        seed: int,
        on_batch: OnBatch | None = None,
        slates: Slates | None = None,
    ) -> NDArray[np.float64]:
        """Train once on the rows of ``order``, in that order, or (``[training.sampling]``) on as many drawn by objective.

        Args:
            blocks: per side, features of n rows.
            targets: [n, K] in natural units, NaN masked.
            order: which rows, e.g. a permutation of n.
            seed: with the count of steps, the key of all that is random.
            on_batch: called after each batch with its rows and its losses [K].
            slates: of the n rows, those of one together in ``order``: whose order is trained on too, where
                ``[training.ordering]`` has it.

        Returns:
            The mean loss per objective over its defined rows [K]; NaN where it had none.
        """
        sums, counts = np.zeros(targets.shape[1]), np.zeros(targets.shape[1])
        weights = [objective.loss_weight for objective in self.network.config.objectives]
        size, key = self.training.batch_size, tf.constant(seed, tf.int64)
        drawn = draw(order, targets, self.training.sampling, weights, size, seed)
        stride = size * max(1, CALL_ROWS // size)
        parts = (drawn.part(start, start + stride) for start in range(0, len(drawn.rows), stride))
        ordered = slates if self.training.ordering.weight else None
        for rows, given in ahead(_gathered(part, blocks, targets, ordered) for part in parts):
            called = self._compiled.epoch(*given[:2], key, given[2])
            for i, (losses, defined) in enumerate(zip(*(values.numpy() for values in called), strict=True)):
                sums += losses.astype(np.float64) * defined
                counts += defined
                if on_batch is not None:
                    on_batch(min(size, rows - i * size), losses)
        return np.asarray(np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0))

    def predict(self, blocks: Mapping[Side, Block]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Predictions [n, K] in natural units and the mean gate weight of each expert [K, E] (NaN where n is 0).

        The training-only side is missing, whatever it holds; where weights are averaged, the averages predict.
        """
        return self.predict_with_gates(blocks)[:2]

    def predict_with_gates(self, blocks: Mapping[Side, Block]) -> Predicted:
        """The same, with what else the rows say of the gates."""
        n, count = len(next(iter(blocks.values()))), len(self.network.config.objectives)
        found, live = [np.zeros((0, count), np.float32)], np.zeros((0, 0), bool)
        gates, entropy = np.zeros((count, self.network.trunk.experts)), np.zeros(count)
        with self.averaged():
            for start in range(0, n, PREDICT_ROWS):
                predictions, *sums, units = self._compiled.predict(_take(blocks, slice(start, start + PREDICT_ROWS)))
                found.append(predictions.numpy())
                gates += sums[0].numpy()
                entropy += sums[1].numpy()
                live = units.numpy() | live if live.size else units.numpy()
                let_go_of_blocks(blocks)
        if not n:
            return Predicted(found[0], np.full(gates.shape, np.nan), np.full(count, np.nan), live)
        return Predicted(np.concatenate(found), gates / n, entropy / n, live)

    def gradient_cosines(self, blocks: Mapping[Side, Block], targets: NDArray[np.float32]) -> NDArray[np.float64]:
        """Cosines [K, K] between the gradients of the objectives' mean losses on these rows, over all that they share as
        one vector, without dropout and with the training-only side missing. NaN where an objective has no labelled row
        or no gradient.

        Args:
            blocks: per side, features of n rows, which are taken at once.
            targets: [n, K] in natural units, NaN masked.
        """
        products = self._compiled.products(_take(blocks, slice(None)), targets).numpy().astype(np.float64)
        lengths = np.sqrt(np.where(np.diag(products) > 0, np.diag(products), np.nan))
        return np.clip(products / lengths[:, None] / lengths[None, :], -1.0, 1.0)

    @contextmanager
    def averaged(self) -> Iterator[Network]:
        """The network with its averaged weights (its own where none are kept): to predict with, or to export."""
        if self.average is None:
            yield self.network
            return
        self.average.swap()
        try:
            yield self.network
        finally:
            self.average.swap()

    def grow(self, sizes: Mapping[str, int]) -> None:
        """Admit rows into the embedding tables; each starts as a copy of its table's row 0, also in the averages."""
        before = self.network.table_sizes
        sizes = {name: rows_of(sizes, name) for name in before}
        if before == sizes:
            return
        slots = self.optimizers.slots()
        averages = self.averages()
        sparse = set(self.optimizers.large)
        replaced = self.network.embeddings.grow(sizes)
        if replaced or sparse != {name for name in before if sizes[name] > self.training.sparse_rows}:
            self._build()
            self.optimizers.restore(slots)
        self._restore_averages(averages, before)

    def save(self, folder: Path) -> None:
        """Write the whole state as ``.npy`` and ``.json`` files."""
        write_state(self, folder)

    def load(self, folder: Path) -> None:
        """Take over a saved state. Where this network has admitted more rows, they are grown into it.

        Raises:
            BundleError: a file is damaged, or the state is of another network.
        """
        arrays, facts = read_state(self, folder)
        wanted = self.network.table_sizes
        for name, variable in self.network.weights.items():
            variable.assign(arrays[f"weight/{name}"])
        for name, rows in facts["rows"].items():
            self.network.embeddings.put(name, arrays[f"table/{name}"], rows)
        self._build()
        self.optimizers.restore(under(arrays, "slot/"))
        self._restore_averages(under(arrays, "average/"), facts["rows"])
        for name, variable in self.balancing.variables.items():
            variable.assign(arrays[f"balancing/{name}"])
        self.steps.assign(facts["steps"])
        self.grow({name: max(rows, facts["rows"][name]) for name, rows in wanted.items()})

    def averages(self) -> dict[str, NDArray[np.float32]]:
        """The averaged weights by name; empty where none are kept."""
        return {name: value.numpy() for name, value in self.average.values.items()} if self.average else {}

    def _restore_averages(self, averages: Mapping[str, NDArray[np.float32]], rows: Mapping[str, int]) -> None:
        """Set the averages, tables that have grown from ``rows`` extended by copies of row 0; an average not given (of a
        state saved without) starts from its weights."""
        for name, variable in (self.average.values if self.average else {}).items():
            values = averages.get(name)
            if values is None:
                continue
            table = name.removeprefix("table/")
            if table in rows and rows[table] < self.network.table_sizes[table]:
                values = extend(values, rows[table], int(variable.shape[0]))
            variable.assign(values)


def _take(blocks: Mapping[Side, Block], rows: slice) -> dict[Side, tuple[NDArray[np.int32], NDArray[np.float32]]]:
    return {side: (blocks[side].ints[rows], blocks[side].floats[rows]) for side in SIDES}


def _gathered(
    part: Draw, blocks: Mapping[Side, Block], targets: NDArray[np.float32], slates: Slates | None
) -> tuple[int, tuple[Any, Any, Any]]:
    """How many rows a call trains on, and its arguments, as tensors: blocks, targets, and slates if they are wanted."""
    shown = None if slates is None else _take_slates(slates, part.rows)
    given = gather(blocks, part.rows), part.targets(targets), shown
    return len(part.rows), tf.nest.map_structure(lambda values: None if values is None else tf.constant(values), given)


def _take_slates(slates: Slates, rows: NDArray[np.int64]) -> Shown:
    """Numbered anew, in 32 bits."""
    _, number = np.unique(slates.number[rows], return_inverse=True)
    return Shown(number.astype(np.int32), None if slates.blocks is None else gather(slates.blocks, rows))
