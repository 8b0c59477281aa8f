"""The columns of a network's input that are learnt, and a first layer that takes gradients of these alone."""

from collections.abc import Callable, Sequence
from itertools import groupby

import numpy as np
import tensorflow as tf

Gradients = Callable[..., tuple[tf.Tensor | None, ...]]


class Columns:
    """Some of the D columns of x [n, D], in their order: those that come from embeddings.

    Of the others, plain numbers, nobody needs a gradient. A first layer's gradient of x is a sixth of a network's products;
    where half of x are numbers, half of it was made and thrown away.
    """

    def __init__(self, learnt: Sequence[bool]) -> None:
        self.width = len(learnt)
        self.places = np.flatnonzero(learnt).astype(np.int32)
        self._runs = [(is_learnt, len(list(run))) for is_learnt, run in groupby(learnt)]

    def of(self, x: tf.Tensor) -> tf.Tensor:
        """These columns [n, L]; their gradient goes to x, 0 in the other columns."""

        @tf.custom_gradient  # type: ignore[untyped-decorator]
        def taken(x: tf.Tensor) -> tuple[tf.Tensor, Gradients]:
            return self._taken(x), lambda gradient: self._spread(gradient)

        return taken(x)

    def rows_of(self, kernel: tf.Tensor) -> tf.Tensor:
        """What these columns meet of a kernel [D, H]: [L, H]."""
        return tf.gather(kernel, self.places)

    def _taken(self, x: tf.Tensor) -> tf.Tensor:
        """[n, D] to [n, L], run by run: a gather goes number by number."""
        ends = np.cumsum([width for _, width in self._runs])
        taken = [x[:, end - width : end] for (is_learnt, width), end in zip(self._runs, ends, strict=True) if is_learnt]
        return tf.concat(taken, 1) if taken else x[:, :0]

    def _spread(self, columns: tf.Tensor) -> tf.Tensor:
        """[n, L] to [n, D]."""
        parts, start = [], 0
        for is_learnt, width in self._runs:
            parts.append(columns[:, start : start + width] if is_learnt else tf.zeros([tf.shape(columns)[0], width]))
            start += width if is_learnt else 0
        return tf.concat(parts, 1)


def across(x: tf.Tensor) -> tf.Tensor:
    """x [n, D] transposed, with a row of ones below: [D + 1, n]."""
    return tf.concat([tf.transpose(x), tf.ones([1, tf.shape(x)[0]])], 0)


def rectified(x: tf.Tensor, turned: tf.Tensor, own: tf.Tensor, weights: tf.Tensor, columns: Columns) -> tf.Tensor:
    """relu(x W + b) [n, H], whose gradient goes to W, b and ``own``, not to x.

    That of W and b is one product: adding up the gradients of b costs nothing so, and a product with x transposed beforehand
    takes less time than one that transposes it.

    Args:
        x: [n, D].
        turned: ``across(x)``, as ``own`` one for all the layers that read the same x.
        own: ``columns.of(x)``, of whose values nothing is read.
        weights: W above b [D + 1, H].
    """

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def layer(x: tf.Tensor, turned: tf.Tensor, own: tf.Tensor, weights: tf.Tensor) -> tuple[tf.Tensor, Gradients]:
        kernel, bias = weights[:-1], weights[-1]
        found = tf.nn.relu(tf.nn.bias_add(tf.matmul(x, kernel), bias))

        def gradients(above: tf.Tensor) -> tuple[tf.Tensor | None, ...]:
            above = tf.raw_ops.ReluGrad(gradients=above, features=found)
            of_own = tf.matmul(above, columns.rows_of(kernel), transpose_b=True)
            return None, None, of_own, tf.matmul(turned, above)

        return found, gradients

    return layer(tf.stop_gradient(x), tf.stop_gradient(turned), own, weights)
