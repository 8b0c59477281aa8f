"""Fast adaptive multi-task optimisation."""

from collections.abc import Callable

import tensorflow as tf

from models.balancing.adam import AdamVector
from models.balancing.base import Balancing, Losses, scaled, shares

LEAST = 1e-8
"""Under which a loss counts as this: its logarithm is taken."""


class FastAdaptive(Balancing):
    """weight_k ~ z_k / L_k with z = softmax(xi): a step along sum_k z_k grad log L_k, so that relative falls count.

    After the step the fall of each log loss, on the same batch under the same dropout, moves the logits:
    xi -= Adam(J^T (log L - log L') + decay xi), J = diag(z) - z z^T: less for those that fell most. As in the authors'
    code, the weights are scaled to a constant sum and Adam takes the logits' step. Costs a forward pass, whatever K.

    Liu et al., "FAMO: Fast Adaptive Multitask Optimization", NeurIPS 2023, algorithm 1.
    """

    kind = "famo"

    def __init__(self, objectives: int, rate: float, decay: float) -> None:
        super().__init__()
        self._decay = decay
        self.logits = AdamVector([0.0] * objectives, rate)
        self.variables = self.logits.variables

    def weights(self, losses: Losses) -> tf.Tensor:
        z = shares(self.logits.value, losses.present)
        return losses.prior * scaled(z / tf.maximum(losses.values, LEAST), losses.present)

    def learn(self, losses: Losses, again: Callable[[], tf.Tensor]) -> None:
        z = shares(self.logits.value, losses.present)
        fall = tf.math.log(tf.maximum(losses.values, LEAST)) - tf.math.log(tf.maximum(again(), LEAST))
        gradient = z * (fall - tf.reduce_sum(z * fall)) + self._decay * self.logits.value
        self.logits.step(gradient, losses.present)
