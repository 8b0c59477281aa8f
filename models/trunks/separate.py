"""A network per objective: nothing is shared."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from models.encoder import Split
from models.noise import Noise
from models.trunks.base import Trunk, TrunkOutput
from models.trunks.parallel import Parallel


class Separate(Trunk):
    """h_k(x) = f_k(x_k). x_k has the embeddings of objective k alone, unless the configuration lets them be shared."""

    @classmethod
    def roles(cls, settings: Any, names: Sequence[str]) -> tuple[str | None, ...]:
        return tuple(names) if settings.own_embeddings else ()

    @property
    def shared(self) -> list[tf.Variable]:
        return []

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.networks = Parallel(self, self.count, input_shape[-1], self.settings.layers, "networks", columns=self.columns)
        self.built = True

    def call(self, x: "tf.Tensor | Split", noise: Noise | None = None) -> TrunkOutput:
        if isinstance(x, Split):
            return self.without_gates(self.networks.alone(x))
        return self.without_gates(self.networks(x, noise, self.dropout))
