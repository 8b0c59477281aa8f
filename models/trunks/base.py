"""What every trunk is: one representation per objective, made from the shared input."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from data.config import Objective
from models.encoder import Split
from models.learnt import Columns
from models.noise import Noise


class TrunkOutput(NamedTuple):
    """h [K, n, H], or K of [n, H] where they are made one by one; gates [n, K, E], of the last level, 0 where an objective
    cannot use an expert (E is 0 without experts); penalty: a scalar that is added to the loss; units [E, n, H]: the (last
    level's) experts' outputs, None where they are no ReLU units."""

    h: "tf.Tensor | list[tf.Tensor]"
    gates: tf.Tensor
    penalty: tf.Tensor
    units: tf.Tensor | None = None


class Trunk(keras.layers.Layer):  # type: ignore[misc]
    """Maps x to one representation for each of K objectives. Where parameters are shared, or not, is decided here.

    x is [n, D], or a :class:`~models.encoder.Split`; of a trunk with ``roles`` it is [V, n, D] (a Split of [V, 1, D1] and
    [V, n, D2]): the input as each of V sets of embeddings has it. Without ``noise`` nothing is dropped.

    Args:
        settings: its section of the configuration, ``[model.trunk]``.
        objectives: K of them.
        dropout: of the hidden layers (all but the last of a network), in training.
        seed: every network, expert and gate starts from a seed of its own, derived from this one.
        columns: of x, those that training needs a gradient of; None: all.
    """

    experts = 0
    """E."""

    def __init__(
        self, settings: Any, objectives: Sequence[Objective], dropout: float, seed: int, columns: Columns | None = None
    ) -> None:
        super().__init__(name="trunk")
        self.settings, self.dropout, self.seed, self.columns = settings, dropout, seed, columns
        self.names = tuple(objective.name for objective in objectives)
        self.families = tuple(objective.family for objective in objectives)

    @property
    def count(self) -> int:
        """K."""
        return len(self.names)

    @property
    def width(self) -> int:
        """H."""
        return int(self.settings.layers[-1])

    @classmethod
    def roles(cls, settings: Any, names: Sequence[str]) -> tuple[str | None, ...]:
        """The sets of embeddings whose inputs are wanted: an objective's name, or None for the shared set. Empty: the
        shared set alone, as plain x."""
        return ()

    @property
    def unsplit(self) -> str | None:
        """Why the first layer does not split by side, if it does not (:class:`~models.encoder.Split`)."""
        return None

    @property
    def shared(self) -> list[tf.Variable]:
        """The weights that serve more than one objective."""
        raise NotImplementedError

    def without_gates(self, h: "tf.Tensor | list[tf.Tensor]", penalty: tf.Tensor | None = None) -> TrunkOutput:
        """The output of a trunk that has no experts."""
        gates = tf.zeros([tf.shape(h[0])[0], self.count, 0])
        return TrunkOutput(h, gates, tf.constant(0.0) if penalty is None else penalty)

    def call(self, x: "tf.Tensor | Split", noise: Noise | None = None) -> TrunkOutput:
        raise NotImplementedError


def for_all(h: tf.Tensor, count: int) -> tf.Tensor:
    """The representation [1, n, H] of one network, for each of ``count`` objectives [count, n, H]."""
    return tf.tile(h, [count, 1, 1])
