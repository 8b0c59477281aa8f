"""A network per objective, whose layers are mixed."""

import keras
import numpy as np
import tensorflow as tf

from models.encoder import Split
from models.noise import Noise
from models.trunks.base import Trunk, TrunkOutput
from models.trunks.parallel import Parallel


class CrossStitch(Trunk):
    """After every layer, h_k <- sum_j a_kj h_j with a learnt matrix a [K, K] per layer, that starts with ``own_weight`` on
    the diagonal and the rest in equal parts.

    Source: Misra et al., "Cross-stitch Networks for Multi-task Learning", CVPR 2016.
    """

    @property
    def shared(self) -> list[tf.Variable]:
        """All but the last mixture, a row of which belongs to each objective."""
        return [*self.networks.weights, *(stitch.value for stitch in self.stitches[:-1])]

    def build(self, input_shape: tuple[int | None, int]) -> None:
        self.networks = Parallel(self, self.count, input_shape[-1], self.settings.layers, "networks")
        start = keras.initializers.Constant(start_weights(self.count, self.settings.own_weight))
        shape = (self.count, self.count)
        self.stitches = [
            self.add_weight(shape=shape, initializer=start, name=f"stitch_bias_{i}") for i in range(self.networks.depth)
        ]
        self.built = True

    def call(self, x: "tf.Tensor | Split", noise: Noise | None = None) -> TrunkOutput:
        hidden = x
        for i, weights in enumerate(self.stitches):
            hidden = noise.dropout(hidden, self.dropout) if noise and i else hidden
            hidden = stitch(weights.value, self.networks.layer(i, hidden))
        return self.without_gates(hidden)


def start_weights(count: int, own: float) -> np.ndarray:
    """[K, K]: rows sum to 1."""
    if count == 1:
        return np.ones((1, 1), np.float32)
    others = np.full((count, count), (1 - own) / (count - 1), np.float32)
    np.fill_diagonal(others, own)
    return others


def stitch(weights: tf.Tensor, h: tf.Tensor) -> tf.Tensor:
    """sum_j a_kj h_j: weights [K, K] and h [K, n, H] give [K, n, H]."""
    return tf.transpose(tf.matmul(weights, tf.transpose(h, [1, 0, 2])), [1, 0, 2])
