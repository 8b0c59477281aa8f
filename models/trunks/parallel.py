"""Networks side by side: experts, or one network per objective, as batched products of matrices."""

from collections.abc import Sequence
from typing import TypeVar

import keras
import tensorflow as tf

from models.encoder import Split, linear
from models.learnt import Columns, across, rectified
from models.noise import Noise, Stacked, derive

NORM_EPSILON = 1e-5
T = TypeVar("T")


class Parallel:
    """E networks of the same widths: f_e(x) = a(... a(x W_e0 + b_e0) ...), a = ReLU (or swish). x [n, D], or of each its
    own [E, n, D], gives [E, n, H].

    A :class:`~models.encoder.Split` goes through one network after the other: what lies between the layers of one stays in
    the processor's cache, and ONNX Runtime makes each layer one product with bias and ReLU inside
    (docs/decisions/0005).

    Args:
        owner: the layer that holds the weights, named ``<prefix>kernel_<i>`` [E, in, out], ``<prefix>bias_<i>`` [E, 1, out].
        parts: E.
        inputs: D.
        key: with the owner's seed, what the kernels start from; each part has a seed of its own.
        norm: normalise what enters the last activation, row by row and expert by expert (Ba et al., "Layer
            Normalization", 2016), with a learnt scale and shift: no statistics of the batch, so that a row's value is the
            same in training and serving.
        swish: a(x) = x sigmoid(x), which has no dead units.
        columns: of x, those that training takes a gradient of; None: all.
    """

    def __init__(
        self,
        owner: keras.layers.Layer,
        parts: int,
        inputs: int,
        layers: Sequence[int],
        key: str = "experts",
        prefix: str = "",
        norm: bool = False,
        swish: bool = False,
        columns: Columns | None = None,
    ) -> None:
        self.parts, self.swish, self.depth, self.columns = parts, swish, len(layers), columns
        self.kernels, self.biases, self.norms = [], [], []
        for i, (before, after) in enumerate(zip([inputs, *layers[:-1]], layers, strict=True)):
            initial = Stacked(derive(owner.seed, key, i))
            shape = (parts, before, after)
            self.kernels.append(owner.add_weight(shape=shape, initializer=initial, name=f"{prefix}kernel_{i}"))
            self.biases.append(owner.add_weight(shape=(parts, 1, after), initializer="zeros", name=f"{prefix}bias_{i}"))
        if norm:
            shape = (parts, 1, layers[-1])
            for name, start in (("scale", "ones"), ("shift", "zeros")):
                self.norms.append(owner.add_weight(shape=shape, initializer=start, name=f"{prefix}norm_bias_{name}"))

    def __call__(self, x: "tf.Tensor | Split", noise: Noise | None = None, dropout: float = 0.0) -> tf.Tensor:
        if isinstance(x, Split):
            return tf.stack(self.alone(x))
        if noise:
            return tf.stack(self.each(x, noise, dropout))
        hidden = x
        for i in range(self.depth):
            hidden = self.layer(i, hidden)
        return hidden

    def each(self, x: tf.Tensor, noise: Noise, dropout: float = 0.0) -> list[tf.Tensor]:
        """For training, the networks' outputs [n, H] one by one: products of plain matrices with bias and ReLU inside. A
        batched product would write out a gradient of x for every network before it adds them up."""
        given = tf.unstack(x) if x.shape.rank == 3 else [x]
        hidden = self._first(given) if self._has_numbers else self._each(0, self._for_parts(given))
        for i in range(1, self.depth):
            hidden = self._each(i, noise.dropout_each(hidden, dropout))
        return hidden

    @property
    def _has_numbers(self) -> bool:
        """Whether the first layer takes gradients of some of its columns alone (:func:`rectified`)."""
        return self.columns is not None and not self.swish and not (self.norms and self.depth == 1)

    def _first(self, given: list[tf.Tensor]) -> list[tf.Tensor]:
        """The first layer's units [n, H] of x, or of each network's own."""
        assert self.columns is not None
        columns, weights = self.columns, tf.concat([self.kernels[0].value, self.biases[0].value], 1)
        read = [(x, across(x), columns.of(x)) for x in given]
        layer = zip(self._for_parts(read), tf.unstack(weights), strict=True)
        return [rectified(*mine, kernel_and_bias, columns) for mine, kernel_and_bias in layer]

    def _each(self, i: int, hidden: list[tf.Tensor]) -> list[tf.Tensor]:
        """Layer ``i``'s units [n, H] of every network's [n, in]."""
        norms = [tf.unstack(norm.value) for norm in self.norms]
        layer = zip(hidden, *self._weights_of(i), strict=True)
        sums = [tf.nn.bias_add(tf.matmul(own, kernel), bias) for own, kernel, bias in layer]
        return [self._activate(i, own, [norm[part] for norm in norms]) for part, own in enumerate(sums)]

    def _weights_of(self, i: int) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """Every network's kernel [in, out] and bias [out]."""
        return tf.unstack(self.kernels[i].value), tf.unstack(self.biases[i].value[:, 0])

    def _for_parts(self, given: list[T]) -> list[T]:
        return given if len(given) == self.parts else given * self.parts

    def layer(self, i: int, hidden: "tf.Tensor | Split") -> tf.Tensor:
        """Layer ``i`` with its activation."""
        hidden = linear(hidden, self.kernels[i].value, self.biases[i].value)
        return self._activate(i, hidden, [norm.value for norm in self.norms])

    def alone(self, x: Split) -> list[tf.Tensor]:
        """For one request's candidates, the networks' outputs [n, H] one by one."""
        return [self._alone(part, of_part(x, part)) for part in range(self.parts)]

    def _alone(self, part: int, x: Split) -> tf.Tensor:
        hidden: tf.Tensor | Split = x
        for i, (kernel, bias) in enumerate(zip(self.kernels, self.biases, strict=True)):
            hidden = linear(hidden, kernel.value[part], bias.value[part])
            hidden = self._activate(i, hidden, [norm.value[part] for norm in self.norms])
        return hidden

    def _activate(self, i: int, hidden: tf.Tensor, norms: Sequence[tf.Tensor]) -> tf.Tensor:
        if norms and i == self.depth - 1:
            scale, shift = norms
            hidden = normalise(hidden) * scale + shift
        return hidden * tf.sigmoid(hidden) if self.swish else tf.nn.relu(hidden)

    @property
    def weights(self) -> list[tf.Variable]:
        return [weight.value for weight in (*self.kernels, *self.biases, *self.norms)]


def normalise(x: tf.Tensor) -> tf.Tensor:
    """(x - mean) / sqrt(variance + 1e-5) over the last axis."""
    centred = x - tf.reduce_mean(x, -1, keepdims=True)
    return centred * tf.math.rsqrt(tf.reduce_mean(tf.square(centred), -1, keepdims=True) + NORM_EPSILON)


def rows_of(x: "tf.Tensor | Split") -> tf.Tensor:
    """x as rows [..., n, D]: a Split written out."""
    if not isinstance(x, Split):
        return x
    repeats = [1] * (x.fixed.shape.rank - 2)
    return tf.concat([tf.tile(x.fixed, [*repeats, tf.shape(x.moving)[-2], 1]), x.moving], -1)


def of_part(x: Split, part: int) -> Split:
    """What network ``part`` reads of x [n, D], of its own [E, n, D], or of one for all [1, n, D]."""
    if x.moving.shape.rank == 2:
        return x
    place = part if x.moving.shape[0] > 1 else 0
    return Split(x.fixed[place], x.moving[place])


def pick(x: "tf.Tensor | Split", places: Sequence[int]) -> "tf.Tensor | Split":
    """The given places of the first axis, in that order, repeated where named twice. (Not a gather: its gradient is
    sparse, and slow to add up.)"""
    if isinstance(x, Split):
        return Split(pick(x.fixed, places), pick(x.moving, places))
    if list(places) == list(range(x.shape[0])):
        return x
    parts = tf.unstack(x)
    return tf.stack([parts[place] for place in places])
