"""Uncertainty weighting."""

from collections.abc import Callable, Sequence

import tensorflow as tf

from data.config import Objective
from models.balancing.adam import AdamVector
from models.balancing.base import Balancing, Losses


class UncertaintyWeighting(Balancing):
    """total = sum_k prior_k (f_k exp(-s_k) L_k + s_k / 2), minimised over the network and the log variances s = log sigma^2.

    f is 1/2 for squared errors (L / (2 sigma^2) + log sigma, a Gaussian's) and 1 for all other losses
    (L / sigma^2 + log sigma, the softmax at a temperature; Huber's loss has the half in it). s starts at 0 and moves by
    Adam; its gradient is prior (1/2 - f exp(-s) L), so it settles where exp(s) = 2 f L.

    Kendall, Gal & Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses", CVPR 2018, equations 5 to 10.
    """

    kind = "uncertainty"

    def __init__(self, objectives: Sequence[Objective], rate: float) -> None:
        super().__init__()
        self._factors = tf.constant([0.5 if is_squared(objective) else 1.0 for objective in objectives])
        self.log_variances = AdamVector([0.0] * len(objectives), rate)
        self.variables = self.log_variances.variables

    def weights(self, losses: Losses) -> tf.Tensor:
        return losses.prior * self._precisions()

    def learn(self, losses: Losses, again: Callable[[], tf.Tensor]) -> None:
        gradient = losses.prior * (0.5 - self._precisions() * losses.values)
        self.log_variances.step(gradient, losses.present)

    def _precisions(self) -> tf.Tensor:
        return self._factors * tf.exp(-self.log_variances.value)


def is_squared(objective: Objective) -> bool:
    """Whether its loss is a squared error (models/heads)."""
    squared = objective.head == "duration_quantile" or (objective.head == "value" and objective.loss != "huber")
    return objective.kind == "regression" and squared
