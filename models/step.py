"""The training step, and the trainer that runs it over arrays."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from data.config import Side
from data.config_training import TrainingConfig
from data.errors import BundleError
from data.features.layout import SIDES, Block
from models.arrays import read_arrays, write_arrays
from models.average import Average
from models.balancing import build_balancing
from models.balancing.base import Balancing, Losses
from models.balancing.gradients import Gradient, ObjectiveGradients, added
from models.embedding import extend, rows_of
from models.network import Network
from models.noise import Noise
from models.optimizer import Optimizers
from models.sampling import batches
from models.trunks.gates import row_entropy

FORMAT = 1
PREDICT_ROWS = 4096


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
    determinism is switched on, for the whole process.
    """

    def __init__(self, network: Network, training: TrainingConfig) -> None:
        self.network, self.training = network, training
        self.steps = tf.Variable(0, dtype=tf.int64, name="steps")
        self.balancing = build_balancing(training.balancing, network.config.objectives)
        if training.deterministic:
            tf.config.experimental.enable_op_determinism()
        self._build()

    def _build(self) -> None:
        """Optimizers, averages and graphs over the network's present variables."""
        self.optimizers = Optimizers(self.network, self.training)
        decay = self.training.average
        named = {**self.network.weights, **{f"table/{name}": table for name, table in self.optimizers.small.items()}}
        self.average = Average(named, decay) if decay is not None else None
        blocks, targets, seed = self._signature()
        self._step = tf.function(self._train, input_signature=[blocks, targets, seed], reduce_retracing=True)
        self._score = tf.function(self._predict, input_signature=[blocks], reduce_retracing=True)
        self._compare = tf.function(self._products, input_signature=[blocks, targets], reduce_retracing=True)

    def _signature(self) -> tuple[dict[Side, tuple[tf.TensorSpec, tf.TensorSpec]], tf.TensorSpec, tf.TensorSpec]:
        """Any number of rows fits one signature: a short last batch is not traced again."""
        layout, count = self.network.layout, len(self.network.config.objectives)
        blocks = {
            side: (
                tf.TensorSpec([None, layout.sides[side].int_width], tf.int32),
                tf.TensorSpec([None, layout.sides[side].float_width], tf.float32),
            )
            for side in SIDES
        }
        return blocks, tf.TensorSpec([None, count], tf.float32), tf.TensorSpec([], tf.int64)

    def _train(self, blocks: Any, targets: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """One step on sum_k weight_k loss_k + the penalties, balanced as configured. Returns losses and counts [K]."""
        noise = Noise(seed, self.steps)
        with tf.GradientTape(persistent=self.balancing.gradients) as tape:
            losses, penalty = self._losses(blocks, targets, noise)
            weights = tf.stop_gradient(self.balancing.weights(losses))
            total = tf.reduce_sum(weights * losses.values) + penalty
            each = tf.unstack(losses.values) if self.balancing.gradients else []
        if self.balancing.gradients:
            gradients = self._balanced(tape, each, total, penalty, losses, noise)
        else:
            gradients = tape.gradient(total, self.optimizers.variables)
        self.optimizers.apply(gradients)
        self.balancing.learn(losses, lambda: self._losses(blocks, targets, Noise(seed, self.steps))[0].values)
        if self.average is not None:
            self.average.update(self.steps)
        self.steps.assign_add(1)
        return losses.values, losses.counts

    def _losses(self, blocks: Any, targets: tf.Tensor, noise: Noise | None) -> tuple[Losses, tf.Tensor]:
        """The objectives' losses on a batch, and the penalties, which are no objective's."""
        outputs = self.network.forward(blocks, noise)
        losses, counts = self.network.heads.losses(outputs.raw, targets, blocks)
        labelled = tf.reduce_any(~tf.math.is_nan(targets), axis=1)
        penalty = outputs.penalty + self.network.embedding_penalty(outputs.x, tf.cast(labelled, tf.float32))
        prior = tf.constant([objective.loss_weight for objective in self.network.config.objectives])
        if self.training.sampling.kind == "tasks":  # each row counts alike, for the one objective that it was drawn for
            prior *= counts * len(prior) / tf.maximum(tf.cast(tf.shape(targets)[0], tf.float32), 1.0)
        return Losses(losses, counts, prior), penalty

    def _balanced(
        self,
        tape: tf.GradientTape,
        each: list[tf.Tensor],
        total: tf.Tensor,
        penalty: tf.Tensor,
        losses: Losses,
        noise: Noise,
    ) -> list[Gradient | None]:
        """The gradients: of what is shared, the method's mix of the objectives' own; of the rest, the weighted sum's."""
        variables, shared = self.optimizers.variables, self.network.shared
        own = [variable for variable in variables if all(variable is not other for other in shared)]
        gradients = ObjectiveGradients.of(tape, each, shared)
        mixed = gradients.mix(self.balancing.mix(gradients.products(), losses, noise))
        found = [*added(mixed, tape.gradient(penalty, shared)), *tape.gradient(total, own)]
        place = {id(variable): gradient for variable, gradient in zip([*shared, *own], found, strict=True)}
        return [place[id(variable)] for variable in variables]

    def _predict(self, blocks: Any) -> tuple[tf.Tensor, ...]:
        outputs = self.network.forward(blocks)
        units = tf.zeros([0, 1, 0]) if outputs.units is None else outputs.units
        sums = tf.reduce_sum(outputs.gates, 0), tf.reduce_sum(row_entropy(outputs.gates), 0)
        return self.network.to_natural(outputs.raw, blocks), *sums, tf.reduce_any(units > 0, 1)

    def train_epoch(
        self,
        blocks: Mapping[Side, Block],
        targets: NDArray[np.float32],
        order: NDArray[np.int64],
        seed: int,
        on_batch: OnBatch | None = None,
    ) -> NDArray[np.float64]:
        """Train once on the rows of ``order``, in that order, or (``[training.sampling]``) on as many drawn by objective.

        Args:
            blocks: per side, features of n rows.
            targets: [n, K] in natural units, NaN masked.
            order: which rows, e.g. a permutation of n.
            seed: with the count of steps, the key of all that is random.
            on_batch: called after each batch with its rows and its losses [K].

        Returns:
            The mean loss per objective over its defined rows [K]; NaN where it had none.
        """
        sums, counts = np.zeros(targets.shape[1]), np.zeros(targets.shape[1])
        key = tf.constant(seed, tf.int64)
        weights = [objective.loss_weight for objective in self.network.config.objectives]
        for draw in batches(order, targets, self.training.sampling, weights, self.training.batch_size, seed):
            losses, defined = self._step(_slice(blocks, draw.rows), draw.targets(targets), key)
            sums += losses.numpy().astype(np.float64) * defined.numpy()
            counts += defined.numpy()
            if on_batch is not None:
                on_batch(len(draw.rows), losses.numpy())
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
                predictions, *sums, units = self._score(_slice(blocks, slice(start, start + PREDICT_ROWS)))
                found.append(predictions.numpy())
                gates += sums[0].numpy()
                entropy += sums[1].numpy()
                live = units.numpy() | live if live.size else units.numpy()
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
        products = self._compare(_slice(blocks, slice(None)), targets).numpy().astype(np.float64)
        lengths = np.sqrt(np.where(np.diag(products) > 0, np.diag(products), np.nan))
        return np.clip(products / lengths[:, None] / lengths[None, :], -1.0, 1.0)

    def _products(self, blocks: Any, targets: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape(persistent=True) as tape:
            each = tf.unstack(self._losses(blocks, targets, None)[0].values)
        return ObjectiveGradients.of(tape, each, self.network.shared).products()

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
        averages = self._averages()
        sparse = set(self.optimizers.large)
        replaced = self.network.embeddings.grow(sizes)
        if replaced or sparse != {name for name in before if sizes[name] > self.training.sparse_rows}:
            self._build()
            self.optimizers.restore(slots)
        self._restore_averages(averages, before)

    def save(self, folder: Path) -> None:
        """Write the whole state as ``.npy`` and ``.json`` files."""
        network = self.network
        arrays = {f"weight/{name}": variable.numpy() for name, variable in network.weights.items()}
        arrays |= {f"table/{name}": variable.numpy() for name, variable in network.embeddings.variables.items()}
        arrays |= {f"slot/{name}": values for name, values in self.optimizers.slots().items()}
        arrays |= {f"average/{name}": values for name, values in self._averages().items()}
        arrays |= {f"balancing/{name}": variable.numpy() for name, variable in self.balancing.variables.items()}
        facts = {"format": FORMAT, "steps": int(self.steps), "rows": network.table_sizes, "balancing": self.balancing.kind}
        write_arrays(folder, arrays, facts)

    def load(self, folder: Path) -> None:
        """Take over a saved state. Where this network has admitted more rows, they are grown into it.

        Raises:
            BundleError: a file is damaged, or the state is of another network.
        """
        arrays, facts = read_arrays(folder)
        self._check(folder, arrays, facts)
        wanted = self.network.table_sizes
        for name, variable in self.network.weights.items():
            variable.assign(arrays[f"weight/{name}"])
        for name, rows in facts["rows"].items():
            self.network.embeddings.put(name, arrays[f"table/{name}"], rows)
        self._build()
        self.optimizers.restore(_under(arrays, "slot/"))
        self._restore_averages(_under(arrays, "average/"), facts["rows"])
        for name, variable in self.balancing.variables.items():
            variable.assign(arrays[f"balancing/{name}"])
        self.steps.assign(facts["steps"])
        self.grow({name: max(rows, facts["rows"][name]) for name, rows in wanted.items()})

    def _check(self, folder: Path, arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]) -> None:
        if facts.get("format") != FORMAT:
            raise BundleError(f"{folder}: expected trainer format {FORMAT}, got {facts.get('format')!r}")
        balanced = facts.get("balancing", Balancing.kind)
        if balanced != self.balancing.kind:
            raise BundleError(
                f"{folder}: its losses were balanced by {balanced!r}, the configuration has {self.balancing.kind!r}: "
                "another balance starts with a new network"
            )
        expected = {f"balancing/{name}": tuple(variable.shape) for name, variable in self.balancing.variables.items()}
        expected |= {f"weight/{name}": tuple(variable.shape) for name, variable in self.network.weights.items()}
        tables = self.network.embeddings.variables.items()
        expected |= {f"table/{name}": (None, int(table.shape[1])) for name, table in tables}
        for name, shape in expected.items():
            came = arrays[name].shape if name in arrays else None
            if came is None or len(came) != len(shape) or any(a not in (None, b) for a, b in zip(shape, came, strict=True)):
                raise BundleError(f"{folder}: {name} should have shape {shape}, got {came}: it is of another configuration")

    def _averages(self) -> dict[str, NDArray[np.float32]]:
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


def _slice(blocks: Mapping[Side, Block], rows: Any) -> dict[Side, tuple[NDArray[np.int32], NDArray[np.float32]]]:
    return {side: (blocks[side].ints[rows], blocks[side].floats[rows]) for side in SIDES}


def _under(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): values for name, values in arrays.items() if name.startswith(prefix)}
