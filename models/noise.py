"""Seeds: one for every part of a network, and the random numbers of a training step."""

from collections.abc import Sequence
from typing import Any
from zlib import crc32

import keras
import numpy as np
import tensorflow as tf


def derive(seed: int, *keys: str | int) -> int:
    """A seed of its own for every path of ``keys``: stable between processes, in [0, 2**31)."""
    path = [crc32(key.encode()) if isinstance(key, str) else key for key in keys]
    return int(np.random.SeedSequence([seed & 0xFFFFFFFF, *path]).generate_state(1)[0] >> 1)


class Noise:
    """The random numbers of one training step: a pure function of (seed, step) and of the order in which they are drawn.

    A resumed run therefore continues with the numbers that it would have seen. Its presence also says that a layer is
    run for training: without it nothing is dropped.
    """

    def __init__(self, seed: tf.Tensor, step: tf.Tensor) -> None:
        self._key = tf.stack([tf.cast(seed, tf.int64), tf.cast(step, tf.int64)])
        self._draws = 0

    def uniform(self, shape: Sequence[Any]) -> tf.Tensor:
        """Numbers of ``shape``, uniform in [0, 1)."""
        self._draws += 1
        key = tf.random.experimental.stateless_fold_in(self._key, self._draws, alg="philox")
        return tf.random.stateless_uniform(shape, key, alg="philox")

    def survive(self, shape: Sequence[Any], dropped: float) -> tf.Tensor:
        """Booleans of ``shape``, each False with probability ``dropped``."""
        return self.uniform(shape) >= dropped

    def dropout(self, x: tf.Tensor, dropped: float) -> tf.Tensor:
        """Inverted dropout: what survives is divided by the probability to survive (Srivastava et al., JMLR 2014)."""
        if dropped == 0:
            return x
        return tf.where(self.survive(tf.shape(x), dropped), x / (1 - dropped), 0.0)

    def dropout_each(self, parts: list[tf.Tensor], dropped: float) -> list[tf.Tensor]:
        """The same of several parts [n, H], by the numbers that they would get as one [parts, n, H]."""
        if dropped == 0:
            return parts
        alive = tf.unstack(self.survive([len(parts), *tf.unstack(tf.shape(parts[0]))], dropped))
        return [tf.where(mine, own / (1 - dropped), 0.0) for mine, own in zip(alive, parts, strict=True)]


class Stacked(keras.initializers.Initializer):  # type: ignore[misc]
    """Glorot-uniform kernels [parts, in, out], each part from a seed of its own: equal parts would stay equal."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __call__(self, shape: Sequence[int], dtype: str | None = None, **_: Any) -> tf.Tensor:
        parts = [keras.initializers.GlorotUniform(derive(self.seed, part)) for part in range(shape[0])]
        return tf.stack([part(tuple(shape[1:]), dtype) for part in parts])

    def get_config(self) -> dict[str, Any]:
        return {"seed": self.seed}
