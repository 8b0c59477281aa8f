"""The towers above the trunk, and the shallow tower beside it."""

from collections.abc import Sequence
from itertools import pairwise
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


class ShallowTower(keras.layers.Layer):  # type: ignore[misc]
    """What the training-only inputs (position, device) add to each objective's raw output: s [n, D] gives [n, K].

    Linear, or a small ReLU network. It takes up what a row's place explains, so that the main network need not (Zhao et
    al., RecSys 2019, section 4.3).
    """

    def __init__(self, objectives: int, layers: Sequence[int], seed: int, name: str = "shallow_tower") -> None:
        super().__init__(name=name)
        self.objectives, self.layers, self.seed = objectives, tuple(layers), seed

    def build(self, input_shape: tuple[int | None, int]) -> None:
        widths = [input_shape[-1], *self.layers, self.objectives]
        self.kernels, self.biases = [], []
        for i, (before, after) in enumerate(pairwise(widths)):
            initial = keras.initializers.GlorotUniform(derive(self.seed, "shallow", i))
            self.kernels.append(self.add_weight(shape=(before, after), initializer=initial, name=f"kernel_{i}"))
            if i < len(self.layers):
                self.biases.append(self.add_weight(shape=(after,), initializer="zeros", name=f"bias_{i}"))
        self.built = True

    def call(self, s: tf.Tensor) -> tf.Tensor:
        for kernel, bias in zip(self.kernels, self.biases, strict=False):
            s = tf.nn.relu(tf.matmul(s, kernel.value) + bias)
        return tf.matmul(s, self.kernels[-1].value)

    def get_config(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("objectives", "layers", "seed", "name")}


def missing(block: tuple[tf.Tensor, tf.Tensor], share: float, noise: Noise) -> tuple[tf.Tensor, tf.Tensor]:
    """Feature dropout: with probability ``share`` all of a row's inputs go missing, as they are in serving: ints UNSEEN
    (0) and floats 0."""
    ints, floats = block
    if share == 0:
        return block
    here = noise.survive([tf.shape(ints)[0], 1], share)
    return tf.where(here, ints, 0), tf.where(here, floats, 0.0)
