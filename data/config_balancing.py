"""How the objectives share a training step: the balance of their losses, and the rows of a batch."""

from typing import Annotated, Literal

from pydantic import Field

from data.frozen import Frozen


class Fixed(Frozen):
    """The sum of the losses, each times its ``loss_weight``."""

    kind: Literal["fixed"] = "fixed"


class Uncertainty(Frozen):
    """Learnt homoscedastic uncertainties (Kendall et al., CVPR 2018)."""

    kind: Literal["uncertainty"]
    rate: float = Field(0.01, gt=0)  # Adam's, of the log variances


class GradNorm(Frozen):
    """Gradients of like length, the slower learners' longer (Chen et al., ICML 2018)."""

    kind: Literal["gradnorm"]
    alpha: float = Field(1.5, ge=0)  # 0: all lengths alike
    rate: float = Field(0.025, gt=0)  # Adam's, of the weights


class DynamicAverage(Frozen):
    """Dynamic weight average: more for losses that stopped falling (Liu et al., CVPR 2019)."""

    kind: Literal["dwa"]
    temperature: float = Field(2.0, gt=0)
    period: int = Field(100, ge=1)  # steps over which a loss is averaged


class PCGrad(Frozen):
    """Conflicting gradients are projected on each other's normal planes (Yu et al., NeurIPS 2020)."""

    kind: Literal["pcgrad"]


class CAGrad(Frozen):
    """The direction near the sum that helps the worst-off objective most (Liu et al., NeurIPS 2021)."""

    kind: Literal["cagrad"]
    c: float = Field(0.4, ge=0, lt=1)  # how far from the sum, of its length; 0: the sum


class Famo(Frozen):
    """Losses that fall at like rates, without a gradient of each (Liu et al., NeurIPS 2023)."""

    kind: Literal["famo"]
    rate: float = Field(0.025, gt=0)  # Adam's, of the logits
    decay: float = Field(0.001, ge=0)  # of the logits, towards equal weights


Balancing = Annotated[Fixed | Uncertainty | GradNorm | DynamicAverage | PCGrad | CAGrad | Famo, Field(discriminator="kind")]


class Joint(Frozen):
    """A batch is of rows, each with all its known labels."""

    kind: Literal["joint"] = "joint"


class Tasks(Frozen):
    """A batch is of objectives, and for each of rows that have its label; no other label of theirs counts."""

    kind: Literal["tasks"]
    probabilities: Literal["uniform", "proportional", "tempered"] = "uniform"  # proportional: to the labelled rows
    temperature: float = Field(2.0, ge=1)  # tempered: rows ** (1 / temperature)
    draws: int | None = Field(None, ge=1)  # of objectives for a batch; default: as many as there are


Sampling = Annotated[Joint | Tasks, Field(discriminator="kind")]
