"""The loss of the order within slates: what is watched should score above what was shown beside it and was not."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from data.config import Side
from data.features.layout import Block


class Slates(NamedTuple):
    """The slates [n] of rows to train on, and the rows with features as of their slate's first row (None: their own are).
    A batch's rows of a slate stand together (:func:`slate_order`)."""

    number: NDArray[np.int64]
    blocks: Mapping[Side, Block] | None = None


def slate_order(rows: NDArray[np.int64], slate: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int64]:
    """``rows`` [m] in random order, those of a slate one after the other. ``slate`` [n] numbers the slates of all rows."""
    shuffled = random.permutation(rows)
    _, code = np.unique(slate[shuffled], return_inverse=True)
    place = random.permutation(int(code.max(initial=-1)) + 1)
    return shuffled[np.argsort(place[code], kind="stable")]


def ordering_losses(logits: tf.Tensor, targets: tf.Tensor, slate: tf.Tensor, neighbours: int) -> tf.Tensor:
    """Each objective's pairwise logistic loss [K] within slates (RankNet; Burges et al., ICML 2005).

    Of a slate the mean of log(1 + exp(s_j - s_i)) over its pairs with y_i > y_j; of a batch the mean over its rows of
    their slates' (0 for a slate without a pair): the weights with which GAUC is averaged. What all rows of a slate have in
    common cancels. That is why the scores must be as of one moment: between rows of different times the loss would learn
    to read the outcomes in between from the user's own state (DESIGN.md, GAUC).

    Args:
        logits: s [n, K].
        targets: y [n, K], NaN where masked: in no pair.
        slate: [n], the rows of a slate one after the other. What a batch cuts off is not paired with the rest.
        neighbours: a row is compared with so many after it: of longer slates, in random order, some pairs.
    """
    n = tf.shape(logits)[0]
    first = tf.range(n)[:, None]
    second = first + tf.range(1, neighbours + 1)[None, :]
    inside = second < n
    second = tf.minimum(second, n - 1)
    together = inside & (tf.gather(slate, second) == slate[:, None])  # [n, W]
    number = tf.cumsum(tf.concat([[0], tf.cast(slate[1:] != slate[:-1], tf.int32)], 0)[:n])
    rows = tf.gather(tf.math.unsorted_segment_sum(tf.ones([n]), number, n), number)
    found = [_loss(*pair, second, together, number, rows) for pair in zip(_columns(logits), _columns(targets), strict=True)]
    return tf.stack(found) / tf.cast(tf.maximum(n, 1), tf.float32)


def _loss(
    s: tf.Tensor, y: tf.Tensor, second: tf.Tensor, together: tf.Tensor, number: tf.Tensor, rows: tf.Tensor
) -> tf.Tensor:
    """The sum over rows of their slates' mean loss over pairs; s, y, number, rows [n], second and together [n, W]."""
    sign = tf.sign(y[:, None] - tf.gather(y, second))  # NaN where one is masked
    pair = together & (tf.abs(sign) > 0)
    sign = tf.where(pair, sign, 0.0)
    losses = tf.where(pair, tf.math.softplus(-sign * (s[:, None] - tf.gather(s, second))), 0.0)
    pairs = tf.math.unsorted_segment_sum(tf.reduce_sum(tf.abs(sign), 1), number, tf.size(number))
    share = rows / tf.maximum(tf.gather(pairs, number), 1.0)
    return tf.reduce_sum(tf.reduce_sum(losses, 1) * share)


def _columns(matrix: tf.Tensor) -> Sequence[tf.Tensor]:
    return tf.unstack(matrix, axis=1)  # type: ignore[no-any-return]
