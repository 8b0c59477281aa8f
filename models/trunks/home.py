"""HoME: a hierarchy of experts by family of objectives, normalised and gated against collapse."""

import numpy as np
import tensorflow as tf

from models.encoder import Split, linear
from models.noise import Noise, Stacked, derive
from models.trunks.base import Trunk, TrunkOutput
from models.trunks.gates import Choice, combine, gate, gate_penalty, logits, survivors
from models.trunks.parallel import Parallel, pick, rows_of


class HoME(Trunk):
    """Two levels. First, meta experts of each family (engagement, satisfaction) and of all, on x; then experts of each
    objective on its family's z_f, of each family on z_f, and of all on z_s:

    z_f = sum over the experts of f and of all, by softmax(W_f x);  z_s = sum over all experts, by softmax(W_s x)
    h_k = sum over its own experts, its family's and those of all, by softmax(W_k [z_f, z_s])

    - Experts are swish(norm(MLP)). The paper normalises over the batch; here over the units of a row, which gives a row
      the same value in training and serving.
    - Feature gates: expert e reads x * 2 sigmoid(x A_e B_e), A_e of low rank. x is written out for them: the first layer
      does not split.
    - Self gates: each z and h_k adds its own group's experts, weighted by softmax(x S) (one expert: sigmoid), so that they
      always get a gradient.

    Source: Wang et al., "HoME: Hierarchy of Multi-Gate Experts for Multi-Task Learning at Kuaishou", 2024. Gates are
    reported of the last level, without the self gates: each objective's own experts in turn, the families', those of all.
    """

    @property
    def groups(self) -> list[str]:
        """The families, in the order of their first objectives."""
        return list(dict.fromkeys(self.families))

    @property
    def experts(self) -> int:
        settings = self.settings
        return int(self.count * settings.task_experts + (len(self.groups) + 1) * settings.shared_experts)

    @property
    def unsplit(self) -> str | None:
        if not self.settings.feature_gate_rank:
            return None
        return "feature gates multiply each column by a function of all: experts read rows written out"

    @property
    def shared(self) -> list[tf.Variable]:
        """The first level, which reaches everybody through z_s, and the second level's experts that are nobody's own."""
        own = {id(weight) for weight in self.own.weights}
        gates = {id(weights.value) for weights in (self.gates, *self.selves)}
        return [weight.value for weight in self.trainable_variables if id(weight.value) not in own | gates]

    def build(self, input_shape: tuple[int | None, int]) -> None:
        self._build_first(input_shape[-1])
        self._build_second()
        self.built = True

    def _build_first(self, inputs: int) -> None:
        settings, meta, groups = self.settings, self.settings.meta_experts, len(self.groups)
        parts = (groups + 1) * meta
        everyone = range(groups * meta, parts)
        self.meta = self._experts(parts, inputs, "meta")
        self.family_choice = Choice([(*range(g * meta, (g + 1) * meta), *everyone) for g in range(groups)], parts)
        self.group_own = Choice([range(g * meta, (g + 1) * meta) for g in range(groups + 1)], parts)
        self.family_gates = self._weights((groups, inputs, self.family_choice.choices), "family_gates")
        self.shared_gate = self._weights((1, inputs, parts), "shared_gate")
        self.meta_selves = [self._weights((groups + 1, inputs, meta), "meta_self_gates")] if settings.self_gates else []
        self.feature_gates = []
        if rank := settings.feature_gate_rank:
            shapes = {"feature_gates_down": (parts, inputs, rank), "feature_gates_up": (parts, rank, inputs)}
            self.feature_gates = [self._weights(shape, name) for name, shape in shapes.items()]

    def _build_second(self) -> None:
        settings, width = self.settings, self.width
        own, common = settings.task_experts, settings.shared_experts
        self.own = self._experts(self.count * own, width, "own")
        self.common = self._experts((len(self.groups) + 1) * common, width, "common")
        self.choice = Choice(settings.places(self.families), self.experts)
        self.task_own = Choice([range(k * own, (k + 1) * own) for k in range(self.count)], self.experts)
        self.gates = self._weights((self.count, 2 * width, self.choice.choices), "gates")
        self.selves = [self._weights((self.count, 2 * width, own), "self_gates")] if settings.self_gates else []

    def _experts(self, parts: int, inputs: int, name: str) -> Parallel:
        norm = self.settings.expert_norm
        return Parallel(self, parts, inputs, self.settings.layers, name, f"{name}_", norm, swish=True)

    def _weights(self, shape: tuple[int, int, int], name: str) -> tf.Variable:
        return self.add_weight(shape=shape, initializer=Stacked(derive(self.seed, name)), name=name)

    def call(self, x: "tf.Tensor | Split", noise: Noise | None = None) -> TrunkOutput:
        z, penalty = self._first(x, noise)
        return self._second(z, penalty, noise)

    def _first(self, x: "tf.Tensor | Split", noise: Noise | None) -> tuple[tf.Tensor, tf.Tensor]:
        """z [families + 1, n, H], the last one z_s; and the gates' penalty."""
        outputs = self.meta(self._gated(x), noise, self.dropout)
        alive = survivors(noise, tf.shape(outputs)[1], self.meta.parts, self.settings.expert_dropout)
        families = gate(logits(x, self.family_gates.value), self.family_choice.of(alive))
        everyone = gate(logits(x, self.shared_gate.value), alive)
        penalty = gate_penalty(families, self.settings.load_balance, self.settings.gate_entropy)
        gates = tf.concat([self.family_choice.spread(families), everyone], 1)
        for weights in self.meta_selves:
            gates += self_gates(logits(x, weights.value), self.group_own, alive)
        return combine(gates, outputs), penalty

    def _second(self, z: tf.Tensor, penalty: tf.Tensor, noise: Noise | None) -> TrunkOutput:
        settings, last = self.settings, len(self.groups)
        family = [self.groups.index(name) for name in self.families]
        own = self.own(pick(z, np.repeat(family, settings.task_experts).tolist()), noise, self.dropout)
        common = self.common(pick(z, np.repeat(range(last + 1), settings.shared_experts).tolist()), noise, self.dropout)
        outputs = tf.concat([own, common], 0)
        alive = survivors(noise, tf.shape(outputs)[1], self.experts, settings.expert_dropout)
        told = tf.concat([pick(z, family), pick(z, [last] * self.count)], -1)
        chosen = gate(logits(told, self.gates.value), self.choice.of(alive))
        penalty += gate_penalty(chosen, settings.load_balance, settings.gate_entropy)
        gates = weights = self.choice.spread(chosen)
        for kernel in self.selves:
            weights = weights + self_gates(logits(told, kernel.value), self.task_own, alive)
        return TrunkOutput(combine(weights, outputs), gates, penalty)

    def _gated(self, x: "tf.Tensor | Split") -> "tf.Tensor | Split":
        """What each meta expert reads [E, n, D]."""
        if not self.feature_gates:
            return x
        down, up = (weights.value for weights in self.feature_gates)
        return rows_of(x) * (2.0 * tf.sigmoid(tf.matmul(linear(x, down), up)))


def self_gates(chosen: tf.Tensor, own: Choice, alive: tf.Tensor | None) -> tf.Tensor:
    """The weights [n, K, E] that a group gives to its own experts: softmax over them, or of a lone one the sigmoid."""
    return own.spread(tf.sigmoid(chosen) if own.choices == 1 else gate(chosen, own.of(alive)))
