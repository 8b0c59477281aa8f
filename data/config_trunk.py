"""The trunk's part of the configuration (`[model.trunk]`): one kind of sharing each."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from data.frozen import Frozen

Layers = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]
Places = tuple[tuple[int, ...], ...]
"""Per objective, the experts that its gate can choose, by their number."""


class _Trunk(Frozen):
    layers: Layers = (256, 128)  # of every network, expert or bottom; the last is the width of what objectives get

    def check(self, objectives: Sequence[str]) -> None:
        """Raises ValueError where this trunk does not fit the objectives."""

    def places(self, families: Sequence[str]) -> Places | None:
        """The experts that each objective's (last) gate chooses from, given the objectives' families. None: all of them."""
        return None


class _Gated(_Trunk):
    """What trunks with experts and gates have in common."""

    expert_dropout: float = Field(0.1, ge=0, lt=1)  # each expert for a whole example, in training
    expert_norm: bool = False  # layer normalisation before an expert's last activation
    load_balance: float = Field(0.0, ge=0)  # strength of the loss on unequal use of experts (models/trunks/gates.py)
    gate_entropy: float = Field(0.0, ge=0)  # strength of the loss on decided gates


class SeparateConfig(_Trunk):
    """A network per objective: nothing is shared."""

    kind: Literal["separate"]
    own_embeddings: bool = True  # false: the networks share the embeddings


class SharedBottomConfig(_Trunk):
    """One network for all objectives; only the towers differ (Caruana, 1997)."""

    kind: Literal["shared_bottom"]


class ConditionedConfig(_Trunk):
    """One network that is told the objective by a descriptor z."""

    kind: Literal["conditioned"]
    by: Literal["concatenation", "addition", "gating", "film"] = "film"
    at: Literal["input", "every"] = "every"  # the first layer alone, or every layer
    metadata: dict[str, tuple[float, ...]] = Field(default_factory=dict)  # z by objective; none: one-hot

    def check(self, objectives: Sequence[str]) -> None:
        if not self.metadata:
            return
        if set(self.metadata) != set(objectives):
            expected, came = ", ".join(objectives), ", ".join(self.metadata)
            raise ValueError(f"model.trunk.metadata: expected one entry for each of {expected}, got {came}")
        widths = {len(values) for values in self.metadata.values()}
        if len(widths) > 1 or 0 in widths:
            raise ValueError(f"model.trunk.metadata: expected as many numbers for each objective, got {sorted(widths)}")


class SoftSharingConfig(_Trunk):
    """A network per objective, tied to their mean. 0: separate; 1: one network; in between the penalty's strength is
    tie / (1 - tie)."""

    kind: Literal["soft_sharing"]
    tie: float = Field(0.01, ge=0, le=1)


class CrossStitchConfig(_Trunk):
    """A network per objective, whose layers are mixed by learnt weights (Misra et al., CVPR 2016)."""

    kind: Literal["cross_stitch"]
    own_weight: float = Field(0.9, gt=0, le=1)  # at the start, of a network's own layer; the others share the rest


class MMoEConfig(_Gated):
    """Multi-gate Mixture-of-Experts (Ma et al., KDD 2018; Zhao et al., RecSys 2019)."""

    kind: Literal["mmoe"] = "mmoe"
    experts: int = Field(8, ge=1)


class _Grouped(_Gated):
    """Experts of each objective's own beside shared ones."""

    shared_experts: int = Field(2, ge=1)
    task_experts: int = Field(1, ge=1)  # of each objective

    def places(self, families: Sequence[str]) -> Places | None:
        own, count = self.task_experts, len(families)
        shared = range(count * own, count * own + self.shared_experts)
        return tuple((*range(k * own, (k + 1) * own), *shared) for k in range(count))


class PLEConfig(_Grouped):
    """Progressive Layered Extraction (Tang et al., RecSys 2020); with one level Customized Gate Control."""

    kind: Literal["ple"]
    levels: int = Field(2, ge=1)


class STEMConfig(_Grouped):
    """Shared and task-specific embeddings (Su et al., AAAI 2024)."""

    kind: Literal["stem"]

    def places(self, families: Sequence[str]) -> Places | None:
        return None  # all experts forward to every objective


class HoMEConfig(_Grouped):
    """Hierarchy of Multi-Gate Experts (Wang et al., 2024). ``shared_experts``: of each family, and of all."""

    kind: Literal["home"]
    expert_norm: bool = True
    meta_experts: int = Field(2, ge=1)  # of the first level: of each family, and of all
    feature_gate_rank: int = Field(8, ge=0)  # 0: no feature gates
    self_gates: bool = True

    def places(self, families: Sequence[str]) -> Places | None:
        own, common, count = self.task_experts, self.shared_experts, len(families)
        groups = list(dict.fromkeys(families))
        start = count * own
        everyone = range(start + len(groups) * common, start + (len(groups) + 1) * common)

        def of(k: int) -> tuple[int, ...]:
            first = start + groups.index(families[k]) * common
            return (*range(k * own, (k + 1) * own), *range(first, first + common), *everyone)

        return tuple(of(k) for k in range(count))


def _kind(value: Any) -> str | None:
    return value.get("kind", "mmoe") if isinstance(value, dict) else getattr(value, "kind", None)


TrunkConfig = Annotated[
    Annotated[SeparateConfig, Tag("separate")]
    | Annotated[SharedBottomConfig, Tag("shared_bottom")]
    | Annotated[ConditionedConfig, Tag("conditioned")]
    | Annotated[SoftSharingConfig, Tag("soft_sharing")]
    | Annotated[CrossStitchConfig, Tag("cross_stitch")]
    | Annotated[MMoEConfig, Tag("mmoe")]
    | Annotated[PLEConfig, Tag("ple")]
    | Annotated[STEMConfig, Tag("stem")]
    | Annotated[HoMEConfig, Tag("home")],
    Discriminator(_kind),
]
"""Chosen by ``kind``; without one it is MMoE."""
