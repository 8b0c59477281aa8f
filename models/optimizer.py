"""How gradients change the weights: Adam for what is dense, Adagrad on the rows touched for large embedding tables."""

from collections.abc import Iterable, Mapping

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from data.config_training import TrainingConfig
from models.network import Network

ADAGRAD_EPSILON = 1e-7


class Optimizers:
    """Three groups of variables, three rules.

    - ``weights``: the dense part. Adam (Kingma & Ba, ICLR 2015), with the gradient clipped by its global norm and
      decoupled weight decay on the kernels (Loshchilov & Hutter, ICLR 2019), where configured.
    - ``small``: embedding tables of up to ``sparse_rows`` rows. Adam, densely: every row's moments decay at every step.
    - ``large``: the other tables. Adagrad (Duchi et al., JMLR 2011) on the rows of the batch alone:
      a += g^2; row -= rate g / (sqrt(a) + 1e-7), a from 0. A step costs what the batch costs, whatever the table.

    Keras's optimizers make sparse gradients dense, hence TensorFlow's own kernel for the last.
    """

    def __init__(self, network: Network, training: TrainingConfig) -> None:
        self.weights = list(network.weights.values())
        tables, sizes = network.embeddings.variables, network.table_sizes
        self.small = {name: tables[name] for name in tables if sizes[name] <= training.sparse_rows}
        self.large = {name: tables[name] for name in tables if sizes[name] > training.sparse_rows}
        network.embeddings.sparse = set(self.large)
        self._rate = training.embedding_learning_rate
        self._dense = keras.optimizers.Adam(
            training.learning_rate, weight_decay=training.weight_decay or None, global_clipnorm=training.gradient_clip
        )
        if training.weight_decay:
            self._dense.exclude_from_weight_decay(var_list=[v for v in self.weights if not is_kernel(v)])
        self._dense.build(self.weights)
        self._tables = keras.optimizers.Adam(self._rate)
        self._tables.build(list(self.small.values()))
        self._accumulators = {name: tf.Variable(tf.zeros_like(table)) for name, table in self.large.items()}

    @property
    def variables(self) -> list[tf.Variable]:
        """All that gradients are taken for, in the order in which :meth:`apply` wants them."""
        return [*self.weights, *self.small.values(), *self.large.values()]

    def apply(self, gradients: Iterable[tf.Tensor | tf.IndexedSlices]) -> None:
        """One step. A variable without a gradient (None) stays as it is."""
        given = list(gradients)
        n, m = len(self.weights), len(self.small)
        self._dense.apply(given[:n], self.weights)
        if any(gradient is not None for gradient in given[n : n + m]):
            dense = [tf.convert_to_tensor(g) if g is not None else None for g in given[n : n + m]]
            self._tables.apply(dense, list(self.small.values()))
        for (name, table), gradient in zip(self.large.items(), given[n + m :], strict=True):
            if gradient is not None:
                adagrad_rows(table, self._accumulators[name], gradient, self._rate)

    def slots(self) -> dict[str, NDArray[np.generic]]:
        """The optimizers' state by name: Adam's moments and step counters, Adagrad's accumulators."""
        return {name: variable.numpy() for name, variable in self._slots().items()}

    def restore(self, slots: Mapping[str, NDArray[np.generic]]) -> None:
        """Set the state. A table that has grown gets zeros for the new rows; one whose rule changed starts afresh."""
        for name, variable in self._slots().items():
            if name in slots:
                variable.assign(pad_rows(slots[name], tuple(variable.shape)))

    def _slots(self) -> dict[str, tf.Variable]:
        found = {f"adagrad/{name}": accumulator for name, accumulator in self._accumulators.items()}
        for part, optimizer, names in (
            ("weights", self._dense, [str(i) for i in range(len(self.weights))]),
            ("tables", self._tables, list(self.small)),
        ):
            found[f"{part}/iterations"] = optimizer.iterations.value
            for slot in ("momentums", "velocities"):
                for name, variable in zip(names, getattr(optimizer, f"_{slot}"), strict=True):
                    found[f"{part}/{slot}/{name}"] = variable.value
        return found


def is_kernel(variable: tf.Variable) -> bool:
    """Whether weight decay applies: to matrices, not to biases."""
    return "bias" not in variable.name


def adagrad_rows(
    table: tf.Variable, accumulator: tf.Variable, gradient: "tf.IndexedSlices | tf.Tensor", rate: float
) -> None:
    """Adagrad on the rows that ``gradient`` names, its repeated rows summed first; all others keep their bits."""
    rows, position = tf.unique(gradient.indices)
    summed = tf.math.unsorted_segment_sum(gradient.values, position, tf.size(rows))
    tf.raw_ops.ResourceSparseApplyAdagradV2(
        var=table.handle,
        accum=accumulator.handle,
        lr=rate,
        epsilon=ADAGRAD_EPSILON,
        grad=summed,
        indices=rows,
    )


def pad_rows(values: NDArray[np.generic], shape: tuple[int, ...]) -> NDArray[np.generic]:
    """``values`` with zero rows appended up to ``shape``."""
    if values.shape == shape:
        return values
    padded = np.zeros(shape, values.dtype)
    padded[: len(values)] = values
    return padded
