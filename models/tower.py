"""The towers above the trunk."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from models.noise import Noise, Stacked, derive


class Towers(keras.layers.Layer):  # type: ignore[misc]
    """raw_k = w_k · tower_k(h_k) + b_k: a ReLU network of its own per objective, and a linear head.

    h [K, n, H] gives raw [n, K]: the logit of a binary objective, the standardised transformed value of a regression.

    Args:
        layers: the widths of a tower's hidden layers; none leaves the head alone.
        head_biases: b_k at the start, such that an untrained network predicts the training data's mean.
        dropout: of the hidden layers, in training.
        seed: each tower's initial kernels come from a seed of its own, derived from this one.
    """

    def __init__(
        self, layers: Sequence[int], head_biases: Sequence[float], dropout: float, seed: int, name: str = "towers"
    ) -> None:
        super().__init__(name=name)
        self.layers, self.head_biases = tuple(layers), tuple(head_biases)
        self.dropout, self.seed = dropout, seed

    def build(self, input_shape: tuple[int, int | None, int]) -> None:
        objectives = len(self.head_biases)
        inputs = [input_shape[-1], *self.layers]
        self.kernels, self.biases = [], []
        for i, (before, after) in enumerate(zip(inputs, self.layers, strict=False)):
            initial = Stacked(derive(self.seed, "towers", i))
            self.kernels.append(self.add_weight(shape=(objectives, before, after), initializer=initial, name=f"kernel_{i}"))
            self.biases.append(self.add_weight(shape=(objectives, 1, after), initializer="zeros", name=f"bias_{i}"))
        head = Stacked(derive(self.seed, "heads"))
        self.head = self.add_weight(shape=(objectives, inputs[-1], 1), initializer=head, name="head")
        start = keras.initializers.Constant(tf.constant(self.head_biases))
        self.head_bias = self.add_weight(shape=(objectives,), initializer=start, name="head_bias")
        self.built = True

    def call(self, h: tf.Tensor, noise: Noise | None = None) -> tf.Tensor:
        for kernel, bias in zip(self.kernels, self.biases, strict=True):
            h = tf.nn.relu(tf.matmul(h, kernel.value) + bias)
            h = noise.dropout(h, self.dropout) if noise else h
        return tf.transpose(tf.matmul(h, self.head.value)[:, :, 0]) + self.head_bias

    def get_config(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("layers", "head_biases", "dropout", "seed", "name")}
