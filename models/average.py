"""The exponential moving average of the weights."""

import tensorflow as tf


class Average:
    """a <- d_t a + (1 - d_t) w after every step t, with d_t = min(decay, (1 + t) / (ramp + t)), a = w at the start.

    The ramp keeps the random start from lingering (as in ``tf.train.ExponentialMovingAverage``, with 10): until ``decay``
    decides, a is the mean over about the last t / (ramp - 1) of t steps (Shamir & Zhang, ICML 2013, with eta = ramp - 1).

    Args:
        variables: what is averaged. Tables updated sparsely are left out: averaging them would touch every row.
    """

    def __init__(self, variables: dict[str, tf.Variable], decay: float, ramp: float = 10.0) -> None:
        self._live, self._decay, self._ramp = variables, decay, ramp
        self.values = {name: tf.Variable(variable, trainable=False) for name, variable in variables.items()}

    def update(self, step: tf.Tensor) -> None:
        """``step``: the number of steps taken before this one."""
        t = tf.cast(step, tf.float32)
        decay = tf.minimum(self._decay, (1 + t) / (self._ramp + t))
        share = 1 - decay
        for name, average in self.values.items():
            apart = average - self._live[name]
            tf.raw_ops.ResourceApplyGradientDescent(var=average.handle, alpha=share, delta=apart)

    def swap(self) -> None:
        """Exchange the weights and their averages (twice: nothing changes)."""
        for name, average in self.values.items():
            kept = self._live[name].numpy()
            self._live[name].assign(average)
            average.assign(kept)
