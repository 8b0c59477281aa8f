"""The scale of each objective's targets, fitted on the fit days and kept until a full retrain."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.config import Objective


@dataclass(frozen=True)
class TargetStats:
    """Of a binary objective: the base rate. Of a regression: mean and std of the transformed target."""

    mean: float
    std: float
    count: int

    @classmethod
    def fit(cls, objective: Objective, values: NDArray[np.float32]) -> "TargetStats":
        """From targets [n] in natural units, NaN masked. Without any: mean 0 (binary: 0.5), std 1, count 0."""
        known = values[~np.isnan(values)].astype(np.float64)
        if not len(known):
            return cls(0.5 if objective.kind == "binary" else 0.0, 1.0, 0)
        if objective.kind == "regression":
            known = transform(objective, known)
        std = float(known.std())
        return cls(float(known.mean()), std if std > 0 else 1.0, len(known))


def transform(objective: Objective, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """A regression's label before it is standardised: log(1 + y), negative ones as 0; or as it is."""
    return np.log1p(np.maximum(values, 0)) if objective.transform == "log" else values
