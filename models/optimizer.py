"""How gradients change the weights: Adam for what is dense, Adagrad on the rows touched for large embedding tables."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from data.config_training import TrainingConfig
from models.network import Network

MEAN_DECAY, SQUARE_DECAY, EPSILON = 0.9, 0.999, 1e-7
ADAGRAD_EPSILON = 1e-7


class Optimizers:
    """Three groups of variables, three rules.

    - ``weights``: the dense part. Adam (Kingma & Ba, ICLR 2015), with the gradient clipped by its global norm and
      decoupled weight decay on the kernels (Loshchilov & Hutter, ICLR 2019), where configured.
    - ``small``: embedding tables of up to ``sparse_rows`` rows. Adam, densely: every row's moments decay at every step.
    - ``large``: the other tables. Adagrad (Duchi et al., JMLR 2011) on the rows of the batch alone:
      a += g^2; row -= rate g / (sqrt(a) + 1e-7), a from 0. A step costs what the batch costs, whatever the table.

    Keras's optimizers make sparse gradients dense, and run an operation for every term of Adam's formulas; hence
    TensorFlow's own kernels, which read and write each number once.
    """

    def __init__(self, network: Network, training: TrainingConfig) -> None:
        self.weights = list(network.weights.values())
        tables, sizes = network.embeddings.variables, network.table_sizes
        self.small = {name: tables[name] for name in tables if sizes[name] <= training.sparse_rows}
        self.large = {name: tables[name] for name in tables if sizes[name] > training.sparse_rows}
        network.embeddings.sparse = set(self.large)
        self._rate = training.embedding_learning_rate
        decayed = [v for v in self.weights if is_kernel(v)] if training.weight_decay else []
        self._dense = Adam(self.weights, training.learning_rate, training.weight_decay, decayed, training.gradient_clip)
        self._tables = Adam(list(self.small.values()), self._rate)
        self._accumulators = {name: tf.Variable(tf.zeros_like(table)) for name, table in self.large.items()}

    @property
    def variables(self) -> list[tf.Variable]:
        """All that gradients are taken for, in the order in which :meth:`apply` wants them."""
        return [*self.weights, *self.small.values(), *self.large.values()]

    def apply(self, gradients: Iterable[tf.Tensor | tf.IndexedSlices]) -> None:
        """One step. A variable without a gradient (None) stays as it is."""
        given = list(gradients)
        n, m = len(self.weights), len(self.small)
        self._dense.apply(given[:n])
        self._tables.apply([tf.convert_to_tensor(g) if g is not None else None for g in given[n : n + m]])
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
                values = pad_rows(slots[name], tuple(variable.shape))
                variable.assign(values.astype(variable.dtype.as_numpy_dtype))

    def _slots(self) -> dict[str, tf.Variable]:
        found = {f"adagrad/{name}": accumulator for name, accumulator in self._accumulators.items()}
        for part, optimizer, names in (
            ("weights", self._dense, [str(i) for i in range(len(self.weights))]),
            ("tables", self._tables, list(self.small)),
        ):
            found[f"{part}/iterations"] = optimizer.iterations
            for slot, values in (("momentums", optimizer.momentums), ("velocities", optimizer.velocities)):
                found |= {f"{part}/{slot}/{name}": value for name, value in zip(names, values, strict=True)}
        return found


class Adam:
    """Adam with one fused kernel for each variable (Kingma & Ba, ICLR 2015, in the order of section 2's last remark).

    m += 0.1 (g - m);  v += 0.001 (g^2 - v);  w -= rate sqrt(1 - 0.999^t) / (1 - 0.9^t) m / (sqrt(v) + 1e-7)

    Args:
        decayed: those of the variables that decay first: w -= rate decay w.
        clip: the global norm that the gradients are scaled down to, if they are longer.
    """

    def __init__(
        self,
        variables: Sequence[tf.Variable],
        rate: float,
        decay: float = 0.0,
        decayed: Sequence[tf.Variable] = (),
        clip: float | None = None,
    ) -> None:
        self._variables, self._rate, self._clip = list(variables), rate, clip
        self._decay = {id(variable): decay for variable in decayed}
        self.iterations = tf.Variable(0, dtype=tf.int64, name="iterations")
        self.momentums = [tf.Variable(tf.zeros_like(variable)) for variable in variables]
        self.velocities = [tf.Variable(tf.zeros_like(variable)) for variable in variables]

    def apply(self, gradients: Sequence[tf.Tensor | None]) -> None:
        """One step. Without any gradient nothing happens; a variable without one (None) stays as it is."""
        if all(gradient is None for gradient in gradients):
            return
        if self._clip is not None:
            gradients, _ = tf.clip_by_global_norm(gradients, self._clip)
        step = tf.cast(self.iterations.assign_add(1), tf.float32)
        powers = {"beta1_power": MEAN_DECAY**step, "beta2_power": SQUARE_DECAY**step}
        fixed = {"lr": self._rate, "beta1": MEAN_DECAY, "beta2": SQUARE_DECAY, "epsilon": EPSILON}
        fixed = {name: tf.constant(value) for name, value in fixed.items()}  # not one for every variable
        for variable, m, v, gradient in zip(self._variables, self.momentums, self.velocities, gradients, strict=True):
            if gradient is None:
                continue
            if decay := self._decay.get(id(variable)):
                variable.assign_sub(variable * (decay * self._rate))
            handles = {"var": variable.handle, "m": m.handle, "v": v.handle}
            tf.raw_ops.ResourceApplyAdam(**handles, **powers, **fixed, grad=gradient)


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
