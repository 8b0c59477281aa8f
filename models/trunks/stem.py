"""STEM: experts upon shared embeddings and upon each objective's own."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from models.encoder import Split
from models.noise import Noise, Stacked, derive
from models.trunks.base import Trunk, TrunkOutput
from models.trunks.gates import combine, gate, gate_penalty, logits, survivors
from models.trunks.parallel import Parallel, pick


class STEM(Trunk):
    """h_k = sum_e g_k(x_k + x_s)_e f_e: experts of objective j read x_j (its own embeddings), shared ones x_s.

    All experts forward to every objective, but the gradient of objective k stops at the experts, and so the embeddings, of
    the other objectives ("all forward, task-specific backward"): what one objective learns stays its own, and others may
    still use it. Source: Su et al., "STEM: Unleashing the Power of Embeddings for Multi-task Recommendation", AAAI 2024.
    """

    @classmethod
    def roles(cls, settings: Any, names: Sequence[str]) -> tuple[str | None, ...]:
        return (None, *names)

    @property
    def experts(self) -> int:
        return int(self.count * self.settings.task_experts + self.settings.shared_experts)

    @property
    def shared(self) -> list[tf.Variable]:
        return self.common.weights

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        settings, inputs = self.settings, input_shape[-1]
        own = self.count * settings.task_experts
        self.own = Parallel(self, own, inputs, settings.layers, "own", "own_", settings.expert_norm)
        common = settings.shared_experts
        self.common = Parallel(self, common, inputs, settings.layers, "shared", "shared_", settings.expert_norm)
        shape = (self.count, inputs, self.experts)
        self.gates = self.add_weight(shape=shape, initializer=Stacked(derive(self.seed, "gates")), name="gates")
        self.learns = learns_from(self.count, settings.task_experts, common)
        self.built = True

    def call(self, x: "tf.Tensor | Split", noise: Noise | None = None) -> TrunkOutput:
        places = [1 + k for k in range(self.count) for _ in range(self.settings.task_experts)]
        own = self.own(pick(x, places), noise, self.dropout)
        outputs = tf.concat([own, self.common(pick(x, [0]), noise, self.dropout)], 0)
        own_logits = logits(pick(x, range(1, 1 + self.count)), self.gates.value)
        chosen = own_logits + logits(pick(x, [0]), self.gates.value)
        gates = gate(chosen, survivors(noise, tf.shape(chosen)[0], self.experts, self.settings.expert_dropout))
        penalty = gate_penalty(gates, self.settings.load_balance, self.settings.gate_entropy)
        h = combine(gates * self.learns, outputs) + combine(gates * (1 - self.learns), tf.stop_gradient(outputs))
        return TrunkOutput(h, gates, penalty, outputs)


def learns_from(count: int, own: int, shared: int) -> np.ndarray:
    """[K, E]: 1 where the objective's gradient reaches the expert: its own ones and the shared ones."""
    return np.concatenate([np.repeat(np.eye(count), own, 1), np.ones((count, shared))], 1).astype(np.float32)
