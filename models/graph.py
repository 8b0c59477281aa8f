"""What a network's training computes: a step on a batch, and steps on many batches in one call."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from data.config import Side
from data.config_training import TrainingConfig
from data.features.layout import SIDES
from models.average import Average
from models.balancing.base import Balancing, Losses
from models.balancing.gradients import Gradient, ObjectiveGradients, added, gradients_of
from models.network import Network
from models.noise import Noise
from models.optimizer import Optimizers
from models.ordering import ordering_losses
from models.trunks.gates import row_entropy

Blocks = Mapping[Side, tuple[tf.Tensor, tf.Tensor]]


class Shown(NamedTuple):
    """The number of each row's slate [n], int32; the rows with features as of their slate's first row, where these
    differ."""

    slate: Any
    blocks: Blocks | None


class Graph:
    """The computations over a network's present variables; :class:`Compiled` has them as TensorFlow functions, and what
    takes gradients runs within one only (:func:`~models.balancing.gradients.gradients_of`).

    Args:
        average: of the weights, if one is kept.
        steps: the count of steps so far, which every step raises.
    """

    def __init__(
        self,
        network: Network,
        training: TrainingConfig,
        optimizers: Optimizers,
        balancing: Balancing,
        average: Average | None,
        steps: tf.Variable,
    ) -> None:
        self.network, self.training, self.optimizers = network, training, optimizers
        self.balancing, self.average, self.steps = balancing, average, steps

    def epoch(
        self, blocks: Blocks, targets: tf.Tensor, seed: tf.Tensor, shown: Shown | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """A step on each ``batch_size`` of the rows, in their order; the last batch may be shorter.

        Between two batches nothing returns to Python: with batches of 256 that took as long as their arithmetic.

        Returns:
            The losses and counts of every batch, both [batches, K].
        """
        rows, size = tf.shape(targets)[0], self.training.batch_size
        count = -(-rows // size)
        empty = tf.TensorArray(tf.float32, count, element_shape=[targets.shape[1]])

        def body(i: tf.Tensor, losses: tf.TensorArray, counts: tf.TensorArray) -> tuple[Any, ...]:
            mine, wanted, beside = tf.nest.map_structure(
                lambda values: None if values is None else values[i * size : (i + 1) * size], (dict(blocks), targets, shown)
            )
            found, known = self.step(mine, wanted, seed, beside)
            return i + 1, losses.write(i, found), counts.write(i, known)

        start = (tf.constant(0), empty, tf.TensorArray(tf.float32, count, element_shape=[targets.shape[1]]))
        _, losses, counts = tf.while_loop(lambda i, *_: i < count, body, start, parallel_iterations=1)
        return losses.stack(), counts.stack()

    def step(
        self, blocks: Blocks, targets: tf.Tensor, seed: tf.Tensor, shown: Shown | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """One step on sum_k weight_k loss_k + the penalties, balanced as configured. Returns losses and counts [K]."""
        noise = Noise(seed, self.steps)
        losses, penalty = self.losses(blocks, targets, noise, shown)
        weights = tf.stop_gradient(self.balancing.weights(losses))
        total = tf.reduce_sum(weights * losses.values) + penalty
        if self.balancing.gradients:
            gradients = self._balanced(total, penalty, losses, noise)
        else:
            gradients = gradients_of(total, self.optimizers.variables)
        self.optimizers.apply(gradients)
        self.balancing.learn(losses, lambda: self.losses(blocks, targets, Noise(seed, self.steps), shown)[0].values)
        if self.average is not None:
            self.average.update(self.steps)
        self.steps.assign_add(1)
        return losses.values, losses.counts

    def losses(
        self, blocks: Blocks, targets: tf.Tensor, noise: Noise | None, shown: Shown | None = None
    ) -> tuple[Losses, tf.Tensor]:
        """The objectives' losses on a batch, and the penalties, which are no objective's."""
        outputs = self.network.forward(blocks, noise)
        losses, counts = self.network.heads.losses(outputs.raw, targets, blocks)
        if shown is not None:
            raw = outputs.raw if shown.blocks is None else self.network.forward(shown.blocks, noise).raw
            losses += self._ordering(raw, targets, shown)
        labelled = tf.reduce_any(~tf.math.is_nan(targets), axis=1)
        penalty = outputs.penalty + self.network.embedding_penalty(outputs.x, tf.cast(labelled, tf.float32))
        prior = tf.constant([objective.loss_weight for objective in self.network.config.objectives])
        if self.training.sampling.kind == "tasks":  # each row counts alike, for the one objective that it was drawn for
            prior *= counts * prior.shape[0] / tf.maximum(tf.cast(tf.shape(targets)[0], tf.float32), 1.0)
        return Losses(losses, counts, prior), penalty

    def _ordering(self, raw: tf.Tensor, targets: tf.Tensor, shown: Shown) -> tf.Tensor:
        """The binary objectives' weighted losses of the order within slates [K], 0 for the others."""
        objectives = self.network.config.objectives
        weights = self.training.ordering.weight * np.array([o.ordering_weight * (o.kind == "binary") for o in objectives])
        first = tf.constant(self.network.heads.first)
        known = tf.where(weights > 0, targets, float("nan"))
        losses = ordering_losses(tf.gather(raw, first, axis=1), known, shown.slate, self.training.ordering.neighbours)
        return losses * tf.constant(weights, tf.float32)

    def _balanced(self, total: tf.Tensor, penalty: tf.Tensor, losses: Losses, noise: Noise) -> list[Gradient | None]:
        """The gradients: of what is shared, the method's mix of the objectives' own; of the rest, the weighted sum's."""
        variables, shared = self.optimizers.variables, self.network.shared
        own = [variable for variable in variables if all(variable is not other for other in shared)]
        gradients = ObjectiveGradients.of(losses.values, shared)
        mixed = gradients.mix(self.balancing.mix(gradients.products(), losses, noise))
        found = [*added(mixed, gradients_of(penalty, shared)), *gradients_of(total, own)]
        place = {id(variable): gradient for variable, gradient in zip([*shared, *own], found, strict=True)}
        return [place[id(variable)] for variable in variables]

    def predict(self, blocks: Blocks) -> tuple[tf.Tensor, ...]:
        """Predictions [n, K] in natural units; the sums over rows of the gates [K, E] and of their entropies [K]; which of
        the experts' last units are above 0 for some row [E, H]."""
        outputs = self.network.forward(blocks)
        units = tf.zeros([0, 1, 0]) if outputs.units is None else outputs.units
        sums = tf.reduce_sum(outputs.gates, 0), tf.reduce_sum(row_entropy(outputs.gates), 0)
        return self.network.to_natural(outputs.raw, blocks), *sums, tf.reduce_any(units > 0, 1)

    def products(self, blocks: Blocks, targets: tf.Tensor) -> tf.Tensor:
        """The inner products [K, K] of the objectives' gradients, as one vector each over all that they share."""
        losses, _ = self.losses(blocks, targets, None)
        return ObjectiveGradients.of(losses.values, self.network.shared).products()


class Compiled:
    """A graph's computations as TensorFlow functions. Any number of rows fits one signature: a short last batch is not
    traced again."""

    def __init__(self, graph: Graph) -> None:
        layout, count = graph.network.layout, len(graph.network.config.objectives)
        blocks = {
            side: (
                tf.TensorSpec([None, layout.sides[side].int_width], tf.int32),
                tf.TensorSpec([None, layout.sides[side].float_width], tf.float32),
            )
            for side in SIDES
        }
        targets, seed = tf.TensorSpec([None, count], tf.float32), tf.TensorSpec([], tf.int64)
        rows, slates = [blocks, targets, seed], [tf.TensorSpec([None], tf.int32)]
        self._rows = _function(graph.epoch, *rows)
        self._slates = _function(lambda *given: graph.epoch(*given[:3], Shown(given[3], None)), *rows, *slates)
        self._as_of_slates = _function(lambda *given: graph.epoch(*given[:3], Shown(*given[3:])), *rows, *slates, blocks)
        self.predict = _function(graph.predict, blocks)
        self.products = _function(graph.products, blocks, targets)

    def epoch(
        self, blocks: Blocks, targets: Any, seed: tf.Tensor, shown: Shown | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """:meth:`Graph.epoch`."""
        if shown is None:
            return self._rows(blocks, targets, seed)  # type: ignore[no-any-return]
        if shown.blocks is None:
            return self._slates(blocks, targets, seed, shown.slate)  # type: ignore[no-any-return]
        return self._as_of_slates(blocks, targets, seed, *shown)  # type: ignore[no-any-return]


def _function(compute: Callable[..., Any], *signature: Any) -> Callable[..., Any]:
    """Without autograph, which takes as long as all else of tracing: nothing here is Python's control flow over tensors."""
    return tf.function(compute, input_signature=list(signature), autograph=False)  # type: ignore[no-any-return]
