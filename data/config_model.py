"""The network's part of the configuration (``[model]``)."""

from typing import Literal

from pydantic import Field

from data.config_trunk import MMoEConfig, TrunkConfig
from data.frozen import Frozen


class FactorsConfig(Frozen):
    """A product of the user's vectors with the video's, added to the outputs of some objectives (models/factors.py)."""

    objectives: tuple[str, ...] = Field(min_length=1)  # those of one taste: they share the vectors
    request: tuple[str, ...] = Field(min_length=1)  # features with embeddings of the user or context side
    video: tuple[str, ...] = Field(min_length=1)  # and of the video side
    dim: int = Field(16, ge=1)
    l2: float = Field(0.0, ge=0)  # times the mean squared length of the vectors in a batch


class ModelConfig(Frozen):
    trunk: TrunkConfig = MMoEConfig()
    products: tuple[tuple[str, str], ...] = ()  # features whose embeddings are multiplied, the second one the video's
    factors: tuple[FactorsConfig, ...] = ()
    tower: tuple[int, ...] = (64,)
    dropout: float = Field(0.0, ge=0, lt=1)  # on the hidden layers, in training
    input_dropout: float = Field(0.0, ge=0, lt=1)  # on the encoded input, in training
    bias: Literal["shallow_tower", "none", "input", "adversarial", "pal"] = "shallow_tower"  # models/bias.py
    bias_layers: tuple[int, ...] = ()  # hidden layers of the shallow tower, of PAL's first factor, of the adversary
    bias_dropout: float = Field(0.1, ge=0, lt=1)  # share of training rows whose training-only inputs go missing
    bias_strength: float = Field(0.1, gt=0)  # of the adversary's reversed gradient
