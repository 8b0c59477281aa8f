"""The towers above the trunk."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from models.noise import Noise, Stacked, derive


class Towers(keras.layers.Layer):  # type: ignore[misc]
    """raw_k = w_k · tower_k(h_k) + b_k: a ReLU network of its own per objective, and a linear head.

    h [K, n, H] gives raw [n, S], the outputs that each objective's head asks for side by side. Where the trunk gives K of
    [n, H] one by one, the towers follow one by one: each of their layers is then one product with bias and ReLU inside in
    ONNX Runtime, and nothing is put together in between.

    Args:
        layers: the widths of a tower's hidden layers; none leaves the head alone.
        head_biases: b at the start [S], such that an untrained network predicts the training data's mean.
        dropout: of the hidden layers, in training.
        seed: each tower's initial kernels come from a seed of its own, derived from this one.
        outputs: how many raw outputs each objective has [K]; default one each.
    """

    def __init__(
        self,
        layers: Sequence[int],
        head_biases: Sequence[float],
        dropout: float,
        seed: int,
        outputs: Sequence[int] = (),
        name: str = "towers",
    ) -> None:
        super().__init__(name=name)
        self.layers, self.head_biases = tuple(layers), tuple(head_biases)
        self.dropout, self.seed = dropout, seed
        self.outputs = tuple(outputs) or (1,) * len(self.head_biases)

    def build(self, input_shape: tuple[int, int | None, int]) -> None:
        objectives = len(self.outputs)
        inputs = [input_shape[-1], *self.layers]
        self.kernels, self.biases = [], []
        for i, (before, after) in enumerate(zip(inputs, self.layers, strict=False)):
            initial = Stacked(derive(self.seed, "towers", i))
            self.kernels.append(self.add_weight(shape=(objectives, before, after), initializer=initial, name=f"kernel_{i}"))
            self.biases.append(self.add_weight(shape=(objectives, 1, after), initializer="zeros", name=f"bias_{i}"))
        head = Stacked(derive(self.seed, "heads"))
        self.head = self.add_weight(shape=(objectives, inputs[-1], 1), initializer=head, name="head")
        self.more = {k: self._more(k, inputs[-1]) for k, outputs in enumerate(self.outputs) if outputs > 1}
        start = keras.initializers.Constant(tf.constant(self.head_biases))
        self.head_bias = self.add_weight(shape=(len(self.head_biases),), initializer=start, name="head_bias")
        self.built = True

    def _more(self, k: int, inputs: int) -> keras.Variable:
        """The kernel [H, outputs - 1] of an objective's outputs beyond its first."""
        initial = keras.initializers.GlorotUniform(derive(self.seed, "more heads", k))
        return self.add_weight(shape=(inputs, self.outputs[k] - 1), initializer=initial, name=f"more_{k}")

    def call(self, h: "tf.Tensor | list[tf.Tensor]", noise: Noise | None = None) -> tf.Tensor:
        if noise:
            return tf.concat(self._each(h if isinstance(h, list) else tf.unstack(h), noise), 1) + self.head_bias
        if isinstance(h, list):
            biases = tf.split(self.head_bias.value, self.outputs)
            return tf.concat([self._alone(k, own, bias) for k, (own, bias) in enumerate(zip(h, biases, strict=True))], 1)
        for kernel, bias in zip(self.kernels, self.biases, strict=True):
            h = tf.nn.relu(tf.matmul(h, kernel.value) + bias)
        raw = tf.transpose(tf.matmul(h, self.head.value)[:, :, 0])
        if self.more:
            columns = []
            for k in range(len(self.outputs)):
                columns += [raw[:, k : k + 1]] + ([tf.matmul(h[k], self.more[k].value)] if k in self.more else [])
            raw = tf.concat(columns, 1)
        return raw + self.head_bias

    def _each(self, hidden: list[tf.Tensor], noise: Noise) -> list[tf.Tensor]:
        """For training, every objective's raw outputs [n, outputs] from its h [n, H], without the heads' biases: plain
        products with bias and ReLU inside, which are faster than batched ones."""
        for kernel, bias in zip(self.kernels, self.biases, strict=True):
            layer = zip(hidden, tf.unstack(kernel.value), tf.unstack(bias.value[:, 0]), strict=True)
            hidden = [tf.nn.relu(tf.nn.bias_add(tf.matmul(own, mine), shift)) for own, mine, shift in layer]
            hidden = noise.dropout_each(hidden, self.dropout)
        parts = []
        for k, (own, head) in enumerate(zip(hidden, tf.unstack(self.head.value), strict=True)):
            parts += [tf.matmul(own, head)] + ([tf.matmul(own, self.more[k].value)] if k in self.more else [])
        return parts

    def _alone(self, k: int, h: tf.Tensor, head_bias: tf.Tensor) -> tf.Tensor:
        """One objective's raw outputs [n, outputs] from its own h [n, H]."""
        for kernel, bias in zip(self.kernels, self.biases, strict=True):
            h = tf.nn.relu(tf.matmul(h, kernel.value[k]) + bias.value[k])
        head = self.head.value[k]
        head = tf.concat([head, self.more[k].value], 1) if k in self.more else head
        return tf.matmul(h, head) + head_bias

    def get_config(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("layers", "head_biases", "dropout", "seed", "outputs", "name")}
