"""Scales, bucket edges, medians and priors: fitted on the fit days, kept until a full retrain."""

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from data.config import NumberFeature


class Scale(BaseModel):
    """Of a number feature. For ``buckets`` the inner edges; else median, mean and std of the (logged) values."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    median: float = 0.0
    mean: float = 0.0
    std: float = 1.0
    edges: tuple[float, ...] = ()

    @classmethod
    def fit(cls, feature: NumberFeature, values: NDArray[np.float64]) -> "Scale":
        known = values[~np.isnan(values)]
        if not len(known):
            return cls()
        if feature.scaling == "buckets":
            edges = np.unique(np.quantile(known, np.linspace(0, 1, feature.buckets + 1)[1:-1]))
            return cls(edges=tuple(float(edge) for edge in edges))
        known = signed_log(known) if feature.scaling == "log" else known
        std = float(known.std())
        return cls(median=float(np.median(known)), mean=float(known.mean()), std=std if std > 1e-12 else 1.0)

    def apply(self, feature: NumberFeature, values: NDArray[np.float64]) -> NDArray[np.float32]:
        """Scaled value and null indicator [n, 2]; a null stands at the median."""
        null = np.isnan(values)
        scaled = signed_log(values) if feature.scaling == "log" else values
        scaled = (np.where(null, self.median, scaled) - self.mean) / self.std
        return np.stack([scaled, null.astype(np.float64)], axis=1).astype(np.float32)

    def bucket(self, values: NDArray[np.float64]) -> NDArray[np.int64]:
        """Bucket of each value [n], from 0; -1 where null. Values equal to an edge belong above it."""
        return np.where(np.isnan(values), -1, np.searchsorted(np.array(self.edges), values, side="right"))


def signed_log(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """sign(x) log(1 + |x|)."""
    return np.asarray(np.sign(x) * np.log1p(np.abs(x)))


def prior(values: Iterable[NDArray[np.float64]]) -> float:
    """Mean of the known values of all arrays; 0 without any."""
    total, count = 0.0, 0
    for array in values:
        known = array[~np.isnan(array)]
        total, count = total + float(known.sum()), count + len(known)
    return total / count if count else 0.0


Scales = Mapping[str, Scale]
