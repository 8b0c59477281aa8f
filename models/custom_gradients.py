"""The gradients of our own that TensorFlow keeps by name, for ever."""

from tensorflow.python.framework import ops

PREFIX = "CustomGradient-"


def forget_gradients() -> None:
    """Let go of the gradients of graphs that have been traced, which need them no more.

    ``tf.custom_gradient`` registers a function for every call that is traced, which refers to the graph and so to its
    variables: an optimizer's state and the tables that larger ones replaced stayed in memory, 100 MB each time after
    three days of a large log. To be called while no thread traces. TensorFlow has no public way to do so.
    """
    registered = ops.gradient_registry._registry
    for name in [name for name in registered if name.startswith(PREFIX)]:
        del registered[name]
