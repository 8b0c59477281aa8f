"""Gates over experts: the softmax over those that survive, the mixture, and the losses that keep gates open."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from models.encoder import Split, linear
from models.noise import Noise

LEAST_WEIGHT = 1e-9


def logits(x: "tf.Tensor | Split", kernel: tf.Tensor) -> tf.Tensor:
    """x W_k of every gate k: x [n, D] (or [K, n, D], each gate's own) and W [K, D, E] give [n, K, E]: where all
    gates read the same, as one product."""
    if (x.moving if isinstance(x, Split) else x).shape.rank == 2:
        gates, inputs, choices = kernel.shape
        wide = tf.reshape(tf.transpose(kernel, [1, 0, 2]), [inputs, gates * choices])
        return tf.reshape(linear(x, wide), [-1, gates, choices])
    return tf.transpose(linear(x, kernel), [1, 0, 2])


def gate(logits: tf.Tensor, alive: tf.Tensor | None = None) -> tf.Tensor:
    """The softmax over experts, renormalised over the survivors: g_e = a_e exp(l_e) / sum_j a_j exp(l_j).

    Args:
        logits: [n, K, E].
        alive: booleans [n, E] or [n, K, E], False where the expert is dropped for that example. A gate of which no expert
            survives keeps them all. None: nothing is dropped.

    Returns:
        [n, K, E], non-negative, summing to 1 over E.
    """
    if alive is None:
        return tf.nn.softmax(logits)
    alive = alive[:, None, :] if alive.shape.rank == 2 else alive
    alive = alive | ~tf.reduce_any(alive, axis=-1, keepdims=True)
    return tf.nn.softmax(logits + tf.where(alive, 0.0, -float("inf")))


def combine(gates: tf.Tensor, experts: tf.Tensor) -> tf.Tensor:
    """h_k = sum_e g_ke f_e: gates [n, K, E] and experts [E, n, H] give [K, n, H]."""
    return tf.transpose(tf.matmul(gates, tf.transpose(experts, [1, 0, 2])), [1, 0, 2])


def combine_each(gates: tf.Tensor, experts: list[tf.Tensor]) -> list[tf.Tensor]:
    """The same of experts one by one, E of [n, H], as training has them: K of [n, H]."""
    return tf.unstack(tf.matmul(gates, tf.stack(experts, 1)), axis=1)  # type: ignore[no-any-return]


def survivors(noise: Noise | None, n: tf.Tensor, experts: int, dropped: float) -> tf.Tensor | None:
    """Which experts are not dropped, for whole examples: booleans [n, E]; None without noise."""
    return noise.survive([n, experts], dropped) if noise and dropped > 0 else None


class Choice:
    """Gates that can each choose from some of the E experts: ``places`` [K, C], the experts' numbers.

    Their weights over their own choices [n, K, C] become weights over all experts [n, K, E], 0 elsewhere.
    """

    def __init__(self, places: Sequence[Sequence[int]], experts: int) -> None:
        self.places = np.array(places, np.int32)
        self.experts = experts
        self._spread: NDArray[np.float32] = np.eye(experts, dtype=np.float32)[self.places]  # [K, C, E]

    @property
    def choices(self) -> int:
        """C."""
        return int(self.places.shape[1])

    def of(self, alive: tf.Tensor | None) -> tf.Tensor | None:
        """Each gate's part of the survivors [n, E]: [n, K, C]."""
        return None if alive is None else tf.gather(alive, self.places, axis=1)

    def spread(self, gates: tf.Tensor) -> tf.Tensor:
        """[n, K, C] to [n, K, E]."""
        return tf.transpose(tf.matmul(tf.transpose(gates, [1, 0, 2]), self._spread), [1, 0, 2])


def gate_penalty(gates: tf.Tensor, load_balance: float, entropy: float) -> tf.Tensor:
    """load_balance * mean_k (C sum_c u_kc^2 - 1)  +  entropy * mean_ik (log C - H(g_ik)).

    The first is the squared coefficient of variation of the batch's mean weights u_k, 0 where a gate uses all its experts
    alike (Shazeer et al., "Outrageously Large Neural Networks", ICLR 2017, here gate by gate, since it is gates that
    collapse); it leaves a row free to decide. The second asks every row's weights to be alike.

    Args:
        gates: [n, K, C], only what a gate can choose from.
    """
    penalty = tf.constant(0.0)
    choices = float(gates.shape[-1])
    if load_balance > 0:
        use = tf.reduce_mean(gates, 0)
        penalty += load_balance * tf.reduce_mean(choices * tf.reduce_sum(tf.square(use), -1) - 1.0)
    if entropy > 0:
        penalty += entropy * tf.reduce_mean(np.float32(np.log(choices)) - row_entropy(gates))
    return penalty


def row_entropy(gates: tf.Tensor) -> tf.Tensor:
    """-sum_e g_e log g_e of every row's gate, in nats: [n, K, E] to [n, K]."""
    return -tf.reduce_sum(gates * tf.math.log(tf.maximum(gates, LEAST_WEIGHT)), -1)
