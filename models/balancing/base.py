"""Loss balancing's interface, and its simplest case: fixed weights."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import tensorflow as tf

from models.noise import Noise


class Losses(NamedTuple):
    """A batch's mean losses [K] over their ``counts`` [K] labelled rows, and what each objective counts a priori [K]."""

    values: tf.Tensor
    counts: tf.Tensor
    prior: tf.Tensor

    @property
    def present(self) -> tf.Tensor:
        """Booleans [K]: who takes part in this step. The others have no gradient, and nothing is learnt about them."""
        return (self.counts > 0) & (self.prior > 0)


class Balancing:
    """Fixed weights, and the base of all others.

    A step asks for the ``weights`` of the losses; where ``gradients`` are wanted, for the ``mix`` of the objectives'
    gradients of the shared parameters, which then replaces the weighted sum's; and has the method ``learn`` at its end.
    The prior (``loss_weight``) is multiplied into every method's weights; what a method compares (losses, their rates,
    lengths of gradients) is without it, except where directions conflict (PCGrad, CAGrad). Its ``variables`` are its
    whole state.
    """

    kind = "fixed"
    gradients = False

    def __init__(self) -> None:
        self.variables: Mapping[str, tf.Variable] = {}

    def weights(self, losses: Losses) -> tf.Tensor:
        """Of each loss [K], constants to the gradient: of the objectives' own parameters and, without ``mix``, of all."""
        return losses.prior

    def mix(self, products: tf.Tensor, losses: Losses, noise: Noise) -> tf.Tensor:
        """Coefficients a [K] of the shared parameters' gradient sum_k a_k g_k.

        Args:
            products: g_i . g_j [K, K] of the losses' gradients over all shared parameters as one vector.
        """
        raise NotImplementedError(f"{self.kind} takes no gradient of each objective")

    def learn(self, losses: Losses, again: Callable[[], tf.Tensor]) -> None:
        """Take a step in, which has been taken; ``again()`` is the same batch's losses [K] after it."""
        del losses, again


def scaled(weights: tf.Tensor, present: tf.Tensor) -> tf.Tensor:
    """``weights`` [K] times what makes their mean over the objectives present 1, as fixed weights have it."""
    there = tf.cast(present, weights.dtype)
    return weights * tf.math.divide_no_nan(tf.reduce_sum(there), tf.reduce_sum(weights * there))


def shares(logits: tf.Tensor, present: tf.Tensor) -> tf.Tensor:
    """The softmax [K] over the objectives present; 0 of the others, and where none is."""
    masked = tf.where(present, logits, tf.reduce_min(logits))
    raised = tf.where(present, tf.exp(masked - tf.reduce_max(tf.where(present, logits, -float("inf")))), 0.0)
    raised = tf.where(tf.reduce_any(present), raised, tf.zeros_like(raised))
    return tf.math.divide_no_nan(raised, tf.reduce_sum(raised))
