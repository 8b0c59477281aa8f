"""Multi-gate Mixture-of-Experts."""

from typing import Any

import keras
import tensorflow as tf

from models.encoder import Split, linear
from models.noise import Noise, Stacked, derive


def gate(logits: tf.Tensor, alive: tf.Tensor | None = None) -> tf.Tensor:
    """The softmax over experts, renormalised over the survivors: g_e = a_e exp(l_e) / sum_j a_j exp(l_j).

    Args:
        logits: [n, K, E].
        alive: booleans [n, E], False where the expert is dropped for that example; the same for every objective. An
            example of which no expert survives keeps them all. None: nothing is dropped.

    Returns:
        [n, K, E], non-negative, summing to 1 over E.
    """
    if alive is None:
        return tf.nn.softmax(logits)
    alive = alive | ~tf.reduce_any(alive, axis=1, keepdims=True)
    return tf.nn.softmax(tf.where(alive[:, None, :], logits, -float("inf")))


def combine(gates: tf.Tensor, experts: tf.Tensor) -> tf.Tensor:
    """h_k = sum_e g_ke f_e: gates [n, K, E] and experts [E, n, H] give [K, n, H]."""
    mixed = tf.matmul(gates, tf.transpose(experts, [1, 0, 2]))
    return tf.transpose(mixed, [1, 0, 2])


class MMoE(keras.layers.Layer):  # type: ignore[misc]
    """h_k(x) = sum_e g_k(x)_e f_e(x) with g_k(x) = softmax(W_k x) and experts f_e: ReLU networks of x.

    A trunk: a layer that maps x [n, D] (or a :class:`~models.encoder.Split`) to one representation per objective
    h [K, n, H], and its gates [n, K, E] (None for a trunk without). In training each expert is dropped for the whole
    example with probability ``expert_dropout`` and the gates are renormalised over the survivors.

    Sources: Ma et al., "Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts", KDD
    2018; expert dropout: Zhao et al., "Recommending What Video to Watch Next", RecSys 2019.

    Args:
        objectives: K.
        experts: E.
        layers: the widths of an expert's layers; the last is H.
        expert_dropout: the probability of an expert to be dropped for an example.
        dropout: of the experts' hidden layers (all but the last).
        seed: each expert's initial kernels come from a seed of its own, derived from this one.
    """

    def __init__(
        self,
        objectives: int,
        experts: int,
        layers: tuple[int, ...],
        expert_dropout: float,
        dropout: float,
        seed: int,
        name: str = "trunk",
    ) -> None:
        if not layers:
            raise ValueError("an expert needs at least one layer, got none")
        super().__init__(name=name)
        self.objectives, self.experts, self.layers = objectives, experts, tuple(layers)
        self.expert_dropout, self.dropout, self.seed = expert_dropout, dropout, seed

    @property
    def width(self) -> int:
        """H."""
        return self.layers[-1]

    def build(self, input_shape: tuple[int | None, int]) -> None:
        inputs = [input_shape[-1], *self.layers[:-1]]
        self.kernels, self.biases = [], []
        for i, (before, after) in enumerate(zip(inputs, self.layers, strict=True)):
            initial = Stacked(derive(self.seed, "experts", i))
            shape = (self.experts, before, after)
            self.kernels.append(self.add_weight(shape=shape, initializer=initial, name=f"kernel_{i}"))
            self.biases.append(self.add_weight(shape=(self.experts, 1, after), initializer="zeros", name=f"bias_{i}"))
        gates = (self.objectives, input_shape[-1], self.experts)
        self.gates = self.add_weight(shape=gates, initializer=Stacked(derive(self.seed, "gates")), name="gates")
        self.built = True

    def call(self, x: "tf.Tensor | Split", noise: Noise | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        hidden = tf.nn.relu(linear(x, self.kernels[0].value) + self.biases[0])
        for kernel, bias in zip(self.kernels[1:], self.biases[1:], strict=True):
            hidden = noise.dropout(hidden, self.dropout) if noise else hidden
            hidden = tf.nn.relu(tf.matmul(hidden, kernel.value) + bias)
        logits = tf.transpose(linear(x, self.gates.value), [1, 0, 2])
        alive = None
        if noise and self.expert_dropout > 0:
            alive = noise.survive([tf.shape(logits)[0], self.experts], self.expert_dropout)
        gates = gate(logits, alive)
        return combine(gates, hidden), gates

    def get_config(self) -> dict[str, Any]:
        names = ("objectives", "experts", "layers", "expert_dropout", "dropout", "seed", "name")
        return {name: getattr(self, name) for name in names}
