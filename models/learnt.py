"""The columns of a network's input that are learnt, and a first layer that takes gradients of these alone."""

from collections.abc import Callable, Sequence
from functools import reduce
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

    def rows_of(self, kernels: tf.Tensor) -> tf.Tensor:
        """What these columns meet of kernels [E, D, H]: [E, L, H]."""
        return tf.gather(kernels, self.places, axis=1)

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


def rectified(x: tf.Tensor, own: tf.Tensor, kernels: tf.Tensor, biases: tf.Tensor, columns: Columns) -> list[tf.Tensor]:
    """relu(x W_e + b_e) [n, H] of every network e, whose gradient goes to W, b and ``own``, not to x.

    The gradients of W and b are one product, with x across and a row of ones below it: the transposed x serves all networks,
    and sums of a bias's gradients, which TensorFlow would add up in bfloat16 where products are, cost nothing.

    Args:
        x: [n, D].
        own: ``columns.of(x)``, of whose values nothing is read: one for all that reads the same x.
        kernels: W [E, D, H].
        biases: b [E, H].
    """

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def layer(x: tf.Tensor, own: tf.Tensor, kernels: tf.Tensor, biases: tf.Tensor) -> tuple[list[tf.Tensor], Gradients]:
        pairs = zip(tf.unstack(kernels), tf.unstack(biases), strict=True)
        found = [tf.nn.relu(tf.nn.bias_add(tf.matmul(x, kernel), bias)) for kernel, bias in pairs]

        def gradients(*above: tf.Tensor) -> tuple[tf.Tensor | None, ...]:
            above = [tf.raw_ops.ReluGrad(gradients=g, features=units) for g, units in zip(above, found, strict=True)]
            learnt = tf.unstack(columns.rows_of(kernels))
            of_own = [tf.matmul(g, kernel, transpose_b=True) for g, kernel in zip(above, learnt, strict=True)]
            across = tf.concat([tf.transpose(x), tf.ones([1, tf.shape(x)[0]])], 0)
            of_both = tf.stack([tf.matmul(across, g) for g in above])
            return None, reduce(tf.add, of_own), of_both[:, :-1], of_both[:, -1]

        return found, gradients

    return layer(tf.stop_gradient(x), own, kernels, biases)  # type: ignore[no-any-return]
