"""Each objective's gradient of the shared parameters, all of them taken as one vector."""

from collections.abc import Sequence
from functools import reduce

import tensorflow as tf

Gradient = tf.Tensor | tf.IndexedSlices


def gradients_of(value: tf.Tensor, variables: Sequence[tf.Variable]) -> list["Gradient | None"]:
    """The gradient of ``value`` for each variable, None where it has no part in it. Only within a ``tf.function``.

    The gradients that reach a tensor from three or more sides are added pair by pair. A tape adds them all at once
    (AddN), which begins with whichever buffer is free first: the last bits then depend on which operation ended before
    which, TensorFlow's op determinism or not (docs/decisions/0015).
    """
    pairs = tf.AggregationMethod.EXPERIMENTAL_TREE
    return tf.gradients(value, list(variables), aggregation_method=pairs)  # type: ignore[no-any-return]


class ObjectiveGradients:
    """g_1..g_K over V variables: their inner products, and combinations of them.

    Of the one long vector nothing is ever made: an inner product is the sum of the variables' own. Of a table whose
    gradients are :class:`tf.IndexedSlices` the rows named are compared, each objective's repeated rows summed first; a
    combination has those rows and is as sparse.

    Args:
        gradients: K lists of V gradients; None where a variable has no part in an objective.
    """

    def __init__(self, gradients: Sequence[Sequence["Gradient | None"]]) -> None:
        self._count = len(gradients)
        self._parts = [_part(list(of_variable)) for of_variable in zip(*gradients, strict=True)]

    @classmethod
    def of(cls, losses: tf.Tensor, variables: Sequence[tf.Variable]) -> "ObjectiveGradients":
        """A backward pass for each of the losses [K], within a ``tf.function``."""
        return cls([gradients_of(loss, variables) for loss in tf.unstack(losses)])

    def products(self) -> tf.Tensor:
        """g_i . g_j [K, K]."""
        flat = [tf.reshape(part[0], [self._count, -1]) for part in self._parts if part is not None]
        return reduce(tf.add, (tf.matmul(each, each, transpose_b=True) for each in flat), tf.zeros([self._count] * 2))

    def mix(self, coefficients: tf.Tensor) -> list["Gradient | None"]:
        """sum_k coefficients_k g_k, per variable."""
        mixed: list[Gradient | None] = []
        for part in self._parts:
            if part is None:
                mixed.append(None)
                continue
            values, rows, shape = part
            total = tf.tensordot(coefficients, values, 1)
            mixed.append(total if rows is None else tf.IndexedSlices(total, rows, shape))
        return mixed


def _part(gradients: list["Gradient | None"]) -> "tuple[tf.Tensor, tf.Tensor | None, tf.Tensor | None] | None":
    """One variable's gradients [K, ...]; of slices [K, rows, ...], with the distinct rows and the dense shape."""
    known = [gradient for gradient in gradients if gradient is not None]
    if not known:
        return None
    if any(not isinstance(gradient, tf.IndexedSlices) for gradient in known):
        zeros = tf.zeros_like(tf.convert_to_tensor(known[0]))
        return tf.stack([zeros if g is None else tf.convert_to_tensor(g) for g in gradients]), None, None
    rows, position = tf.unique(tf.concat([tf.cast(gradient.indices, tf.int64) for gradient in known], 0))
    places = iter(tf.split(position, [tf.shape(gradient.indices)[0] for gradient in known]))
    count = tf.size(rows)
    zeros = tf.zeros(tf.concat([[count], tf.shape(known[0].values)[1:]], 0), known[0].values.dtype)
    summed = [zeros if g is None else tf.math.unsorted_segment_sum(g.values, next(places), count) for g in gradients]
    return tf.stack(summed), rows, known[0].dense_shape


def added(one: Sequence["Gradient | None"], other: Sequence["Gradient | None"]) -> list["Gradient | None"]:
    """The sums, per variable; slices stay slices."""
    return [_sum(*pair) for pair in zip(one, other, strict=True)]


def _sum(one: "Gradient | None", other: "Gradient | None") -> "Gradient | None":
    if one is None or other is None:
        return other if one is None else one
    if isinstance(one, tf.IndexedSlices) and isinstance(other, tf.IndexedSlices):
        values = tf.concat([one.values, other.values], 0)
        indices = tf.concat([tf.cast(one.indices, tf.int64), tf.cast(other.indices, tf.int64)], 0)
        return tf.IndexedSlices(values, indices, one.dense_shape)
    return tf.convert_to_tensor(one) + tf.convert_to_tensor(other)
