"""How the network is trained (``[training]``)."""

from typing import Self

from pydantic import Field, model_validator

from data.config_balancing import Balancing, Fixed, Joint, Sampling
from data.config_ordering import Ordering
from data.frozen import Frozen


class TrainingConfig(Frozen):
    fit_days: int = Field(1, ge=1)  # vocabularies, scales and priors are fitted on these; scoring starts after them
    passes: int = Field(1, ge=1)  # over each new day
    replay_days: int = Field(0, ge=0)  # earlier days trained on again, once, together with each new day
    batch_size: int = Field(1024, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    embedding_learning_rate: float = Field(1e-3, gt=0)
    sparse_rows: int = Field(100_000, ge=1)  # larger tables are updated sparsely: from there on faster (docs/performance.md)
    weight_decay: float = Field(0.0, ge=0)
    gradient_clip: float | None = Field(None, gt=0)  # of the dense part, by global norm
    average: float | None = Field(None, gt=0, lt=1)  # decay of the exponential average of the weights, if any
    average_ramp: float = Field(10.0, gt=1)  # at first it is over the last 1 / (average_ramp - 1) of the steps so far
    deterministic: bool = True
    bfloat16: bool = False  # matrix products in bfloat16, weights and sums in float32 (docs/performance.md)
    balancing: Balancing = Fixed()
    sampling: Sampling = Joint()
    ordering: Ordering = Ordering()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.ordering.weight and self.sampling.kind == "tasks":
            raise ValueError("ordering compares whole slates: expected sampling.kind = 'joint' beside it, got 'tasks'")
        return self
