"""A network per objective, each tied to the mean of all."""

import tensorflow as tf

from models.encoder import Split
from models.noise import Noise
from models.trunks.base import Trunk, TrunkOutput, for_all
from models.trunks.parallel import Parallel


class SoftSharing(Trunk):
    """h_k(x) = f(x; w_k), with the penalty  tie / (1 - tie) * sum_k |w_k - mean_j w_j|^2.

    At tie 0 the networks are separate; at 1 they are one network. Duong et al., "Low Resource Dependency Parsing:
    Cross-lingual Parameter Sharing in a Neural Network Parser", ACL 2015; Evgeniou & Pontil, "Regularized Multi-Task
    Learning", KDD 2004, who tie to the mean.
    """

    @property
    def shared(self) -> list[tf.Variable]:
        return self.networks.weights if self.settings.tie == 1 else []

    def build(self, input_shape: tuple[int | None, int]) -> None:
        parts = 1 if self.settings.tie == 1 else self.count
        self.networks = Parallel(self, parts, input_shape[-1], self.settings.layers, "networks", columns=self.columns)
        self.built = True

    def call(self, x: "tf.Tensor | Split", noise: Noise | None = None) -> TrunkOutput:
        if isinstance(x, Split) and self.settings.tie < 1:
            return self.without_gates(self.networks.alone(x))
        h = self.networks(x, noise, self.dropout)
        if self.settings.tie == 1:
            return self.without_gates(for_all(h, self.count))
        return self.without_gates(h, self.penalty() if noise else None)

    def penalty(self) -> tf.Tensor:
        """The tie's cost."""
        strength = self.settings.tie / (1 - self.settings.tie)
        if strength == 0:
            return tf.constant(0.0)
        return strength * tf.reduce_sum([apart(weight) for weight in self.networks.weights])


def apart(weight: tf.Tensor) -> tf.Tensor:
    """sum_k |w_k - mean_j w_j|^2 over the first axis."""
    return tf.reduce_sum(tf.square(weight - tf.reduce_mean(weight, 0, keepdims=True)))
