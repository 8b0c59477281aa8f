"""Selection bias: what keeps the place in which a video was shown apart from what it is worth.

Each method of ``[model] bias`` is a :class:`Bias`. They read the training-only side (position, device) through
:class:`Shown`; none lets it reach a served score.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Protocol

import keras
import tensorflow as tf

from data.config import Config
from data.config_model import ModelConfig
from data.features.layout import Layout
from models.adversary import Adversary, reverse_gradient
from models.encoder import Encoder, Split, TensorBlock, side_width
from models.heads.columns import Heads
from models.noise import Noise, derive

SEEN_AT_START = 2.0
"""The logit of PAL's p(seen) before training, 0.88: near 0 the product would hide what the second factor learns."""


class Shown:
    """How the rows of a batch were shown: their training-only side.

    Args:
        block: (ints [n, int_width], floats [n, float_width]); not read without noise, where all is missing.
        noise: given in training.
    """

    def __init__(self, encoder: Encoder, block: TensorBlock | None, noise: Noise | None) -> None:
        self._encoder, self.block, self.noise = encoder, block, noise

    def encoded(self, dropout: float) -> tf.Tensor:
        """s [n, D] in training, where a ``dropout`` of the rows go missing; else [1, D], missing."""
        if self.noise is None or self.block is None:
            return self.missing()
        return self._encoder.side("training_only", missing(self.block, dropout, self.noise), self.noise)

    def missing(self) -> tf.Tensor:
        """s [1, D] where nothing is known."""
        side = self._encoder.layout.sides["training_only"]
        block = tf.zeros([1, side.int_width], tf.int32), tf.zeros([1, side.float_width])
        return self._encoder.side("training_only", block, self.noise)


class Bias(Protocol):
    """A way to take up selection bias, beside the network from its input to its raw outputs.

    ``layers`` have its weights, if it has some.
    """

    layers: Sequence[keras.layers.Layer]

    def enter(self, x: "tf.Tensor | Split", shown: Shown) -> "tf.Tensor | Split":
        """The trunk's input [n, :func:`entering_width` + D] from the encoder's [n, D]."""
        ...

    def leave(self, raw: tf.Tensor, h: tf.Tensor, shown: Shown) -> tuple[tf.Tensor, "tf.Tensor | float"]:
        """The raw outputs [n, S] and a penalty on the loss, from the network's own raw outputs [n, S] and the trunk's
        representations h [K, n, H] (or K of [n, H])."""
        ...


class NoBias:
    """The training-only side is not used."""

    layers: Sequence[keras.layers.Layer] = ()

    def enter(self, x: "tf.Tensor | Split", shown: Shown) -> "tf.Tensor | Split":
        return x

    def leave(self, raw: tf.Tensor, h: tf.Tensor, shown: Shown) -> tuple[tf.Tensor, "tf.Tensor | float"]:
        return raw, 0.0


class Beside(NoBias):
    """raw + shallow_tower(s): see :class:`ShallowTower`. What adds to an objective adds to each of its raw outputs."""

    def __init__(self, tower: "ShallowTower", heads: Heads, dropout: float) -> None:
        self.layers, self._tower, self._dropout = (tower,), lambda s: heads.spread(tower(s)), dropout

    def leave(self, raw: tf.Tensor, h: tf.Tensor, shown: Shown) -> tuple[tf.Tensor, "tf.Tensor | float"]:
        return raw + self._tower(shown.encoded(self._dropout)), 0.0


class AsInput(NoBias):
    """s is an input of the main network like any other, missing in serving (the baseline of Zhao et al., RecSys 2019).

    It stands first, where one row serves all candidates of a request.
    """

    def __init__(self, dropout: float) -> None:
        self._dropout = dropout

    def enter(self, x: "tf.Tensor | Split", shown: Shown) -> "tf.Tensor | Split":
        s = shown.encoded(self._dropout)
        if isinstance(x, Split):
            return Split(tf.concat([s, x.fixed], 1), x.moving)
        return tf.concat([tf.repeat(s, tf.shape(x)[0], axis=0) if shown.noise is None else s, x], 1)


class Pal(NoBias):
    """p = p(seen | s) p(outcome | seen, x) for binary objectives, of which serving uses the second factor alone.

    Guo et al., "PAL: a position-bias aware learning framework for CTR prediction in live recommender systems", RecSys
    2019. The factors' logits are a small tower of s and the network's own raw output. Since serving never asks for the
    first factor, no row's s goes missing there. A regression has no such product: s adds to it as in the shallow tower.

    Args:
        binary: which objectives are binary [K].
    """

    def __init__(self, tower: "ShallowTower", heads: Heads, binary: Sequence[bool], dropout: float) -> None:
        self.layers, self._tower, self._dropout = (tower,), lambda s: heads.spread(tower(s)), dropout
        self._binary = lambda: heads.spread(tf.constant([list(binary)]))

    def leave(self, raw: tf.Tensor, h: tf.Tensor, shown: Shown) -> tuple[tf.Tensor, "tf.Tensor | float"]:
        missing, binary = self._tower(shown.missing()), self._binary()  # made here: the scorer's graph takes no constants
        if shown.noise is None:
            return tf.where(binary, raw, raw + missing), 0.0
        says = self._tower(shown.encoded(0.0))
        here = shown.noise.survive([tf.shape(raw)[0], 1], self._dropout)
        return tf.where(binary, logit_of_product(says + SEEN_AT_START, raw), raw + tf.where(here, says, missing)), 0.0


class Adversarial(NoBias):
    """An adversary predicts how a row was shown from what the trunk makes of it; the trunk unlearns what helps it.

    The gradient of its loss is reversed where it enters the trunk: Ganin & Lempitsky, "Unsupervised Domain Adaptation by
    Backpropagation", ICML 2015; against position in ranking: Zhao et al., RecSys 2019, who also tried it. Serving has
    no use for it.
    """

    def __init__(self, adversary: Adversary, strength: float) -> None:
        self.layers, self._adversary, self._strength = (adversary,), adversary, strength

    def leave(self, raw: tf.Tensor, h: tf.Tensor, shown: Shown) -> tuple[tf.Tensor, "tf.Tensor | float"]:
        if shown.noise is None or shown.block is None:
            return raw, 0.0
        flat = tf.concat(h if isinstance(h, list) else tf.unstack(h), 1)
        return raw, self._adversary(reverse_gradient(flat, self._strength), shown.block)


def build_bias(config: Config, layout: Layout, heads: Heads, h_width: int, seed: int) -> Bias:
    """The method that the configuration names, its weights initialised from ``seed``; none where no feature is
    training-only.

    Args:
        h_width: K H, the width of the trunk's representations side by side.
    """
    model, width = config.model, side_width(layout, "training_only")
    if width == 0 or model.bias == "none":
        return NoBias()
    if model.bias == "input":
        return AsInput(model.bias_dropout)
    if model.bias == "adversarial":
        adversary = Adversary(layout.sides["training_only"], model.bias_layers, seed)
        adversary.build((None, h_width))
        return Adversarial(adversary, model.bias_strength)
    name = "pal" if model.bias == "pal" else "shallow_tower"
    tower = ShallowTower(len(config.objectives), model.bias_layers, seed, name)
    tower.build((None, width))
    if model.bias == "pal":
        return Pal(tower, heads, [objective.kind == "binary" for objective in config.objectives], model.bias_dropout)
    return Beside(tower, heads, model.bias_dropout)


def entering_width(config: Config, layout: Layout) -> int:
    """The columns that the method puts before the network's input."""
    return side_width(layout, "training_only") if config.model.bias == "input" else 0


def embeds_shown(model: ModelConfig) -> bool:
    """Whether the method reads the training-only side's embeddings (the adversary predicts the categories themselves)."""
    return model.bias in ("shallow_tower", "input", "pal")


def logit_of_product(one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """logit(sigmoid(a) sigmoid(b)) = log p - log(1 - p), with log p = -log(1 + e^-a) - log(1 + e^-b).

    Since 1 / p = (1 + e^-a)(1 + e^-b), (1 - p) / p = e^-a + e^-b + e^-(a + b): the result is minus the log-sum-exp of
    -a, -b and -(a + b), which neither overflows nor loses a p near 0 or 1.
    """
    return -tf.reduce_logsumexp(tf.stack([-one, -other, -one - other]), axis=0)


class ShallowTower(keras.layers.Layer):  # type: ignore[misc]
    """What the training-only inputs (position, device) add to each objective's raw output: s [n, D] gives [n, K].

    Linear, or a small ReLU network. It takes up what a row's place explains, so that the main network need not (Zhao et
    al., RecSys 2019, section 4.3).
    """

    def __init__(self, objectives: int, layers: Sequence[int], seed: int, name: str = "shallow_tower") -> None:
        super().__init__(name=name)
        self.objectives, self.layers, self.seed = objectives, tuple(layers), seed

    def build(self, input_shape: tuple[int | None, int]) -> None:
        widths = [input_shape[-1], *self.layers, self.objectives]
        self.kernels, self.biases = [], []
        for i, (before, after) in enumerate(pairwise(widths)):
            initial = keras.initializers.GlorotUniform(derive(self.seed, "shallow", i))
            self.kernels.append(self.add_weight(shape=(before, after), initializer=initial, name=f"kernel_{i}"))
            if i < len(self.layers):
                self.biases.append(self.add_weight(shape=(after,), initializer="zeros", name=f"bias_{i}"))
        self.built = True

    def call(self, s: tf.Tensor) -> tf.Tensor:
        for kernel, bias in zip(self.kernels, self.biases, strict=False):
            s = tf.nn.relu(tf.matmul(s, kernel.value) + bias)
        return tf.matmul(s, self.kernels[-1].value)

    def get_config(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("objectives", "layers", "seed", "name")}


def missing(block: tuple[tf.Tensor, tf.Tensor], share: float, noise: Noise) -> tuple[tf.Tensor, tf.Tensor]:
    """Feature dropout: with probability ``share`` all of a row's inputs go missing, as they are in serving: ints UNSEEN
    (0) and floats 0."""
    ints, floats = block
    if share == 0:
        return block
    here = noise.survive([tf.shape(ints)[0], 1], share)
    return tf.where(here, ints, 0), tf.where(here, floats, 0.0)
