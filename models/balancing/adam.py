"""Adam on a vector with one number per objective."""

import tensorflow as tf

MEAN_DECAY = 0.9
SQUARE_DECAY = 0.999
EPSILON = 1e-8


class AdamVector:
    """Numbers [K] that gradients move (Kingma & Ba, ICLR 2015); those of objectives not present stay as they are, with
    their moments and their count of steps.

    m += 0.1 (g - m);  v += 0.001 (g^2 - v);  x -= rate m / (1 - 0.9^t) / (sqrt(v / (1 - 0.999^t)) + 1e-8)
    """

    def __init__(self, start: list[float], rate: float) -> None:
        self._rate = rate
        self.value = tf.Variable(tf.constant(start, tf.float32))
        self._mean, self._square, self._count = (tf.Variable(tf.zeros(len(start))) for _ in range(3))

    @property
    def variables(self) -> dict[str, tf.Variable]:
        return {"value": self.value, "mean": self._mean, "square": self._square, "count": self._count}

    def step(self, gradient: tf.Tensor, present: tf.Tensor) -> None:
        """One step against ``gradient`` [K]."""
        there = tf.cast(present, tf.float32)
        gradient = tf.where(present, gradient, 0.0)
        self._count.assign_add(there)
        self._mean.assign_add(there * (1 - MEAN_DECAY) * (gradient - self._mean))
        self._square.assign_add(there * (1 - SQUARE_DECAY) * (gradient**2 - self._square))
        counted = tf.maximum(self._count, 1.0)
        mean = self._mean / (1 - MEAN_DECAY**counted)
        square = self._square / (1 - SQUARE_DECAY**counted)
        self.value.assign_sub(there * self._rate * mean / (tf.sqrt(square) + EPSILON))
