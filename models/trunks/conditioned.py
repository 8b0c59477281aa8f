"""One network for all objectives that is told which one it serves."""

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from models.encoder import Split, linear
from models.noise import Noise, derive
from models.trunks.base import Trunk, TrunkOutput, for_all

EXTRA = {"concatenation": (), "addition": ("added",), "gating": ("gate",), "film": ("film_scale", "film_shift")}
"""The matrices [Z, H] that a conditioned layer has besides its kernel."""


class Conditioned(Trunk):
    """h_k(x) = f(x, z_k), z_k the objective's descriptor: one-hot, or its metadata. A layer a = W h + b becomes

    - concatenation: W' [z, h] + b
    - addition: W h + V z + b, the same function: W' = [V, W]
    - gating: (W h + b) * 2 sigmoid(G z)
    - film: (W h + b) * (1 + S z) + T z (Perez et al., "FiLM: Visual Reasoning with a General Conditioning Layer", AAAI 2018)

    in the first layer, or in every one. All act on what a layer gives, so that the first still splits by side.
    """

    @property
    def shared(self) -> list[tf.Variable]:
        """Its layers; and what z is multiplied by, unless that is a row for each objective."""
        extra = [matrix for matrices in self.extra for matrix in matrices] if self.settings.metadata else []
        return [weight.value for weight in (*self.kernels, *self.biases, *extra)]

    def build(self, input_shape: tuple[int | None, int]) -> None:
        layers, self.z = self.settings.layers, descriptors(self.settings.metadata, self.names)
        self.kernels, self.biases, self.extra = [], [], []
        for i, (before, after) in enumerate(zip([input_shape[-1], *layers[:-1]], layers, strict=True)):
            wide = before + self.z.shape[-1] if self._joined(i) else before
            self.kernels.append(self._matrix((wide, after), f"kernel_{i}"))
            self.biases.append(self.add_weight(shape=(after,), initializer="zeros", name=f"bias_{i}"))
            names = EXTRA[self.settings.by] if self._here(i) else ()
            self.extra.append([self._matrix((self.z.shape[-1], after), f"{name}_{i}") for name in names])
        self.built = True

    def call(self, x: "tf.Tensor | Split", noise: Noise | None = None) -> TrunkOutput:
        hidden = x
        for i, (kernel, bias) in enumerate(zip(self.kernels, self.biases, strict=True)):
            hidden = noise.dropout(hidden, self.dropout) if noise and i else hidden
            given = beside(self.z, hidden) if self._joined(i) else hidden
            level = linear(given, kernel.value, bias.value)
            hidden = tf.nn.relu(self._conditioned(i, level))
        return self.without_gates(hidden)

    def _conditioned(self, i: int, level: tf.Tensor) -> tf.Tensor:
        """A layer's values [n, H] or [K, n, H] before the activation, made each objective's [K, n, H]."""
        told = [tf.matmul(self.z, matrix.value) for matrix in self.extra[i]]
        if not told:
            return level
        match self.settings.by:
            case "addition":
                return level + told[0]
            case "gating":
                return level * (2.0 * tf.sigmoid(told[0]))
            case _:
                return level * (1.0 + told[0]) + told[1]

    def _here(self, i: int) -> bool:
        return i == 0 or self.settings.at == "every"

    def _joined(self, i: int) -> bool:
        return self.settings.by == "concatenation" and self._here(i)

    def _matrix(self, shape: tuple[int, int], name: str) -> keras.Variable:
        return self.add_weight(shape=shape, initializer=keras.initializers.GlorotUniform(derive(self.seed, name)), name=name)


def descriptors(metadata: dict[str, tuple[float, ...]], names: tuple[str, ...]) -> NDArray[np.float32]:
    """z [K, 1, Z]."""
    rows = [metadata[name] for name in names] if metadata else np.eye(len(names))
    return np.asarray(rows, np.float32)[:, None, :]


def beside(z: NDArray[np.float32], x: "tf.Tensor | Split") -> Split:
    """[z_k, x] for every objective. z is the same for all rows, so it is the fixed part of a split input."""
    if not isinstance(x, Split):
        return Split(tf.constant(z), x)
    return Split(tf.concat([tf.constant(z), for_all(x.fixed[None], len(z))], -1), x.moving)
