"""What every head has: the number of its raw outputs, their start, the rows' loss, natural units."""

from typing import Protocol

import tensorflow as tf


class Head(Protocol):
    """The head of one objective.

    Attributes:
        start: the raw outputs of an untrained network; as many as the head has. They predict the fit days' mean.
    """

    @property
    def start(self) -> tuple[float, ...]: ...

    def row_losses(self, raw: tf.Tensor, target: tf.Tensor, group: tf.Tensor | None) -> tf.Tensor:
        """The loss of each row [n].

        Args:
            raw: [n, outputs].
            target: [n] in natural units, none masked.
            group: [n], the bucket row of the objective's duration feature, where it has one in buckets.
        """
        ...

    def to_natural(self, raw: tf.Tensor, group: tf.Tensor | None) -> tf.Tensor:
        """Predictions [n] in natural units from raw [n, outputs]."""
        ...
