"""The loss of the order within slates (``[training.ordering]``)."""

from pydantic import Field

from data.frozen import Frozen


class Ordering(Frozen):
    """To each binary objective's loss, ``weight`` times that of its order within slates is added (models/ordering.py)."""

    weight: float = Field(0.0, ge=0)  # 0: none
    neighbours: int = Field(31, ge=1)  # of its slate that a row is compared with, at most
