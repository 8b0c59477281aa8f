"""From labels to targets: what each objective is trained and judged on."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from data.columns import Batch, StringLists, Strings
from data.config import Condition, Config, Objective
from data.errors import ConfigError

Lookup = Callable[[str], "Strings | StringLists | NDArray[np.float64]"]
"""The column of a name for the batch's rows: of the log, or joined from the users' or videos' table."""


def targets(batch: Batch, config: Config, column: Lookup) -> NDArray[np.float32]:
    """Targets [n, K] in natural units; NaN where masked: a null label, a row outside the objective's population, or,
    for an objective with ``given``, a row where the given outcome did not happen (or is unknown)."""
    result = np.full((len(batch), len(config.objectives)), np.nan, np.float32)
    label_of = {objective.name: objective.label for objective in config.objectives}
    for k, objective in enumerate(config.objectives):
        defined = population(objective.population, column, len(batch))
        if objective.given is not None:
            defined &= batch.numbers(label_of[objective.given]) > 0
        labels = capped(batch.numbers(objective.label), objective, config, column)
        result[defined, k] = labels[defined]
    return result


def capped(labels: NDArray[np.float64], objective: Objective, config: Config, column: Lookup) -> NDArray[np.float64]:
    """min(y, cap * duration, cap_seconds) [n], of those that the objective has; a duration that is null or not above 0 is
    unknown and caps nothing."""
    if objective.cap is not None:
        duration = np.asarray(column(config.duration_of(objective).column), np.float64) * objective.duration_scale
        labels = np.where(duration > 0, np.minimum(labels, objective.cap * duration), labels)
    return labels if objective.cap_seconds is None else np.minimum(labels, objective.cap_seconds)


def population(conditions: tuple[Condition, ...], column: Lookup, n: int) -> NDArray[np.bool_]:
    """Whether each of n rows meets every condition [n]. A null value meets only ``none_of``."""
    met = np.ones(n, bool)
    for condition in conditions:
        values = column(condition.column)
        if condition.any_of is not None:
            met &= _is_any(values, condition.any_of)
        if condition.none_of is not None:
            met &= ~_is_any(values, condition.none_of)
        if condition.at_least is not None:
            met &= np.asarray(values) >= condition.at_least
        if condition.at_most is not None:
            met &= np.asarray(values) <= condition.at_most
    return met


def _is_any(values: Strings | StringLists | NDArray[np.float64], wanted: tuple[str, ...]) -> NDArray[np.bool_]:
    if isinstance(values, Strings):
        return values.map(lambda text: int(text in wanted), 0).astype(bool)
    if isinstance(values, StringLists):
        hits = np.concatenate([[0], np.cumsum(values.flat.map(lambda text: int(text in wanted), 0))])
        return np.asarray(hits[values.offsets[1:]] > hits[values.offsets[:-1]])
    return np.isin(values, [float(text) for text in wanted])


def positive_label(config: Config) -> str:
    """The label that makes a watch (where above 0): that of ``generators.positive``, else of the first binary
    engagement objective, else of the first objective.

    Raises:
        ConfigError: ``generators.positive`` names no objective.
    """
    labels = {objective.name: objective.label for objective in config.objectives}
    wanted = config.generators.positive
    if wanted is not None:
        if wanted not in labels:
            raise ConfigError(f"generators.positive: unknown objective {wanted!r}: expected one of {', '.join(labels)}")
        return labels[wanted]
    engaged = [o.label for o in config.objectives if (o.family, o.kind) == ("engagement", "binary")]
    return engaged[0] if engaged else config.objectives[0].label
