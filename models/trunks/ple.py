"""Progressive Layered Extraction: shared experts and each objective's own, level upon level."""

import tensorflow as tf

from models.encoder import Split
from models.noise import Noise, Stacked, derive
from models.trunks.base import Trunk, TrunkOutput
from models.trunks.gates import Choice, combine, gate, gate_penalty, logits, survivors
from models.trunks.parallel import Parallel, pick


class PLE(Trunk):
    """Level l, with h_k and s from the level before (x at the first):

    h_k <- sum over its own experts f_ki(h_k) and the shared ones f_j(s), weighted by softmax(W_k h_k)
    s   <- sum over all experts, weighted by softmax(W s); the last level has none

    With one level this is Customized Gate Control. Source: Tang et al., "Progressive Layered Extraction (PLE): A Novel
    Multi-Task Learning Model for Personalized Recommendations", RecSys 2020. Gates are reported of the last level, over
    each objective's own experts in turn and then the shared ones.
    """

    @property
    def experts(self) -> int:
        return int(self.count * self.settings.task_experts + self.settings.shared_experts)

    @property
    def shared(self) -> list[tf.Variable]:
        """All experts but the last level's own ones: those below reach everybody through the shared ones."""
        below = [weight for own in self.own[:-1] for weight in own.weights]
        gates = [weights.value for weights in self.shared_gates]
        return [*below, *(weight for common in self.common for weight in common.weights), *gates]

    def build(self, input_shape: tuple[int | None, int]) -> None:
        settings, inputs = self.settings, input_shape[-1]
        self.choice = Choice(settings.places(self.families), self.experts)
        self.everyone = Choice([range(self.experts)], self.experts)
        self.own, self.common, self.gates, self.shared_gates = [], [], [], []
        for level in range(settings.levels):
            own, common = self.count * settings.task_experts, settings.shared_experts
            self.own.append(self._experts(own, inputs, f"own_{level}", level))
            self.common.append(self._experts(common, inputs, f"shared_{level}", level))
            self.gates.append(self._gate((self.count, inputs, self.choice.choices), f"gates_{level}"))
            if level < settings.levels - 1:
                self.shared_gates.append(self._gate((1, inputs, self.experts), f"shared_gate_{level}"))
            inputs = settings.layers[-1]
        self.built = True

    def _experts(self, parts: int, inputs: int, name: str, level: int) -> Parallel:
        layers, norm, columns = self.settings.layers, self.settings.expert_norm, None if level else self.columns
        return Parallel(self, parts, inputs, layers, name, f"{name}_", norm, columns=columns)

    def _gate(self, shape: tuple[int, int, int], name: str) -> tf.Variable:
        return self.add_weight(shape=shape, initializer=Stacked(derive(self.seed, name)), name=name)

    def call(self, x: "tf.Tensor | Split", noise: Noise | None = None) -> TrunkOutput:
        h = s = x
        penalty = tf.constant(0.0)
        for level in range(self.settings.levels):
            outputs = tf.concat([self._own(level, h, noise), self.common[level](s, noise, self.dropout)], 0)
            alive = survivors(noise, tf.shape(outputs)[1], self.experts, self.settings.expert_dropout)
            chosen = gate(logits(h, self.gates[level].value), self.choice.of(alive))
            penalty += gate_penalty(chosen, self.settings.load_balance, self.settings.gate_entropy)
            gates = self.choice.spread(chosen)
            h = combine(gates, outputs)
            if level < self.settings.levels - 1:
                s = combine(gate(logits(s, self.shared_gates[level].value), alive), outputs)[0]
        return TrunkOutput(h, gates, penalty, outputs)

    def _own(self, level: int, h: "tf.Tensor | Split", noise: Noise | None) -> tf.Tensor:
        """The objectives' own experts [K own, n, H], each of its objective's h (all of x at the first level)."""
        places = [k for k in range(self.count) for _ in range(self.settings.task_experts)]
        return self.own[level](h if level == 0 else pick(h, places), noise, self.dropout)
