"""One network for all objectives."""

import tensorflow as tf

from models.encoder import Split
from models.noise import Noise
from models.trunks.base import Trunk, TrunkOutput, for_all
from models.trunks.parallel import Parallel


class SharedBottom(Trunk):
    """h_k(x) = f(x): objectives differ in their towers alone (Caruana, "Multitask Learning", Machine Learning 1997)."""

    @property
    def shared(self) -> list[tf.Variable]:
        return self.bottom.weights

    def build(self, input_shape: tuple[int | None, int]) -> None:
        self.bottom = Parallel(self, 1, input_shape[-1], self.settings.layers, "networks", columns=self.columns)
        self.built = True

    def call(self, x: "tf.Tensor | Split", noise: Noise | None = None) -> TrunkOutput:
        return self.without_gates(for_all(self.bottom(x, noise, self.dropout), self.count))
