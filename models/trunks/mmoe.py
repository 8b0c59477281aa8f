"""Multi-gate Mixture-of-Experts."""

import tensorflow as tf

from models.encoder import Split
from models.noise import Noise, Stacked, derive
from models.trunks.base import Trunk, TrunkOutput
from models.trunks.gates import combine, combine_each, gate, gate_penalty, logits, survivors
from models.trunks.parallel import Parallel


class MMoE(Trunk):
    """h_k(x) = sum_e g_k(x)_e f_e(x) with g_k(x) = softmax(W_k x) and experts f_e: ReLU networks of x.

    In training each expert is dropped for the whole example with probability ``expert_dropout`` and the gates are
    renormalised over the survivors.

    Sources: Ma et al., "Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts", KDD
    2018; expert dropout: Zhao et al., "Recommending What Video to Watch Next", RecSys 2019.
    """

    @property
    def experts(self) -> int:
        return int(self.settings.experts)

    @property
    def shared(self) -> list[tf.Variable]:
        return self.networks.weights

    def build(self, input_shape: tuple[int | None, int]) -> None:
        settings, inputs = self.settings, input_shape[-1]
        norm, columns = settings.expert_norm, self.columns
        self.networks = Parallel(self, self.experts, inputs, settings.layers, norm=norm, columns=columns)
        shape = (self.count, inputs, self.experts)
        self.gates = self.add_weight(shape=shape, initializer=Stacked(derive(self.seed, "gates")), name="gates")
        self.built = True

    def call(self, x: "tf.Tensor | Split", noise: Noise | None = None) -> TrunkOutput:
        outputs = self.networks.each(x, noise, self.dropout) if noise else self.networks(x)
        chosen = logits(x, self.gates.value)
        gates = gate(chosen, survivors(noise, tf.shape(chosen)[0], self.experts, self.settings.expert_dropout))
        penalty = gate_penalty(gates, self.settings.load_balance, self.settings.gate_entropy)
        h = combine_each(gates, outputs) if isinstance(outputs, list) else combine(gates, outputs)
        return TrunkOutput(h, gates, penalty, tf.convert_to_tensor(outputs))
