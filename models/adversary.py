"""The adversary of the network: it guesses how a row was shown, and its gradient is reversed."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import keras
import tensorflow as tf

from data.errors import ConfigError
from data.features.layout import SideLayout
from models.encoder import TensorBlock
from models.noise import derive

CLASSES = 32
"""Of a category that is guessed: all rows of its vocabulary from the last class on are that class."""

LIMIT = 5.0
"""Of a guess, softly: what is unlearnt raises the loss, which must have an end."""


def reverse_gradient(x: tf.Tensor, strength: float) -> tf.Tensor:
    """x itself; the gradient that comes back is multiplied by -strength (Ganin & Lempitsky, ICML 2015)."""

    @tf.custom_gradient
    def reversed_identity(value: tf.Tensor) -> tuple[tf.Tensor, Any]:
        return tf.identity(value), lambda upstream: -strength * upstream

    return reversed_identity(x)


class Adversary(keras.layers.Layer):  # type: ignore[misc]
    """The loss of guessing the training-only inputs from h [n, D]: the mean over its fields of the cross entropy of a
    category (a number in buckets is one) or the squared error of a standardised number.

    h counts up to its length (each row has a mean square of 1), and a guess is g -> 5 tanh(g / 5): else the trunk, which is
    rewarded for a bad guess, could make the loss as large as it likes by its scale alone, and forget its objectives.

    Args:
        side: the training-only side. Categories that are averaged over several places are not guessed.
        layers: the widths of its hidden layers; none makes it linear.
        seed: of its initial kernels.

    Raises:
        ConfigError: nothing is left to guess.
    """

    def __init__(self, side: SideLayout, layers: Sequence[int], seed: int, name: str = "adversary") -> None:
        super().__init__(name=name)
        self.side, self.layers, self.seed = side, tuple(layers), seed
        self.categories = [field.offset for field in side.ints if not field.pooled]
        if not self.categories and not side.float_width:
            raise ConfigError("adversarial bias needs a training-only feature that is a number or a single category")

    def build(self, input_shape: tuple[int | None, int]) -> None:
        widths = [input_shape[-1], *self.layers, CLASSES * len(self.categories) + self.side.float_width]
        self.kernels, self.biases = [], []
        for i, (before, after) in enumerate(pairwise(widths)):
            initial = keras.initializers.GlorotUniform(derive(self.seed, "adversary", i))
            self.kernels.append(self.add_weight(shape=(before, after), initializer=initial, name=f"kernel_{i}"))
            self.biases.append(self.add_weight(shape=(after,), initializer="zeros", name=f"bias_{i}"))
        self.built = True

    def call(self, h: tf.Tensor, block: TensorBlock) -> tf.Tensor:
        h *= tf.math.rsqrt(tf.reduce_mean(tf.square(h), 1, keepdims=True) + 1e-6)
        for kernel, bias in zip(self.kernels[:-1], self.biases[:-1], strict=True):
            h = tf.nn.relu(tf.matmul(h, kernel.value) + bias)
        guesses = tf.matmul(h, self.kernels[-1].value) + self.biases[-1]
        guesses = LIMIT * tf.tanh(guesses / LIMIT)
        ints, floats = block
        losses = []
        for place, offset in enumerate(self.categories):
            logits = guesses[:, place * CLASSES : (place + 1) * CLASSES]
            classes = tf.minimum(ints[:, offset], CLASSES - 1)
            losses.append(tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(classes, logits)))
        numbers = guesses[:, CLASSES * len(self.categories) :]
        losses += tf.unstack(tf.reduce_mean(tf.square(numbers - floats), 0), num=self.side.float_width)
        return tf.reduce_mean(losses)

    def get_config(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("side", "layers", "seed", "name")}
