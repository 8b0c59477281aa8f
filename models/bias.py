"""What keeps the place in which a video was shown apart from what it is worth (selection bias)."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import keras
import tensorflow as tf

from models.noise import Noise, derive


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
