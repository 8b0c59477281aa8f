"""A request held against the served configuration: names and types that only the bundle knows are checked here."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data.columns import Batch
from data.config import ColumnConfig, Config, LabelConfig
from data.experiments import UNTREATED, Treatment
from data.exploration import is_sampled
from data.features.history import history_batch
from models.ranking import Ranking
from service.problems import Problem, describe, shorten
from service.schemas import MAX_ID, HistoryItem, RankRequest, SlateRequest
from service.serving import Serving

LARGEST = 1e12
"""Of a context number or an outcome: further out, a float32 feature or a time in ms stops making sense."""
MAX_VALUES = 256
"""Texts in one value of a `categories` column."""


@dataclass(frozen=True)
class Query:
    """A request that has passed every check. ``candidates`` is None where the generators supply them.

    Attributes:
        rebuildable: whether the log will tell all that its features read: it brought no history of its own, and its time
            is neither before the bundle's boundary nor still to come.
        explore: the probability that a slot explores.
        sampled: log all candidates.
    """

    request_id: str
    user_id: str
    candidates: list[str] | None
    context: Mapping[str, Any]
    query_video_id: str | None
    history: Batch | None
    history_replaces: bool
    history_videos: frozenset[str]
    exclude: frozenset[str]
    ranking: Ranking
    limit: int | None
    timestamp: int
    explain: bool
    columns: bool = False
    scored: bool = False
    rebuildable: bool = False
    explore: float = 0.0
    sampled: bool = False
    treatment: Treatment = UNTREATED
    degraded: tuple[str, ...] = ()

    @property
    def route(self) -> str:
        return "recommend" if self.candidates is None else "rank"


def to_query(
    request: SlateRequest,
    limit: int | None,
    serving: Serving,
    now: int,
    request_id: str = "",
    treatment: Treatment = UNTREATED,
) -> Query:
    """Check a request against the bundle.

    Args:
        now: ms; stands in for a timestamp that isn't given.
        treatment: of the user's experiments; weights that the request gives go before those of an arm.

    Raises:
        Problem: 422, naming every field at fault.
    """
    errors: dict[str, str] = {}
    timestamp = now if request.timestamp is None else request.timestamp
    _check_names("weights", request.weights, serving.ranking.objectives, "objective", errors)
    _check_context("context", request.context, serving.config, errors)
    for place, item in enumerate(request.history):
        _check_history(f"history[{place}]", item, timestamp, serving.config, errors)
    if errors:
        raise Problem.of_fields(errors)
    history = None
    if request.history or request.history_replaces:
        history = history_batch(serving.config, request.user_id, [_impression(item) for item in request.history])
    route_explores = not isinstance(request, RankRequest) if request.explore is None else request.explore
    exploration = serving.config.exploration
    return Query(
        request_id=request_id,
        user_id=request.user_id,
        candidates=request.candidates if isinstance(request, RankRequest) else None,
        context=as_texts(request.context),
        query_video_id=request.query_video_id,
        history=history,
        history_replaces=request.history_replaces,
        history_videos=frozenset(item.video_id for item in request.history),
        exclude=frozenset(request.exclude),
        ranking=_ranking(serving, treatment, request.weights),
        limit=limit,
        timestamp=timestamp,
        explain=request.explain,
        columns=request.format == "columns",
        scored=request.scored,
        rebuildable=history is None and serving.features.state.boundary <= timestamp <= now,
        explore=exploration.share if route_explores else 0.0,
        sampled=is_sampled(request_id, serving.salt, exploration.sample),
        treatment=treatment,
        degraded=() if treatment.bundle in (None, serving.version) else (f"bundle {treatment.bundle}: not loaded",),
    )


def _ranking(serving: Serving, treatment: Treatment, overrides: Mapping[str, float]) -> Ranking:
    """An arm's weight (or mean) of an objective that this bundle doesn't have changes nothing."""

    def known(values: Mapping[str, float] | None) -> dict[str, float]:
        return {name: value for name, value in (values or {}).items() if name in serving.ranking.objectives}

    weights, means = known({**(treatment.weights or {}), **overrides}), known(treatment.reference_means)
    return serving.ranking.reweighted(weights, means, treatment.combine) if weights else serving.ranking


def _impression(item: HistoryItem) -> dict[str, Any]:
    return {
        "video_id": item.video_id,
        "timestamp": item.timestamp,
        "outcomes": item.outcomes,
        "context": as_texts(item.context),
    }


def as_texts(context: Mapping[str, Any]) -> dict[str, Any]:
    """Integers in a `categories` list as their decimal texts; what is a category by itself becomes one further on."""
    return {name: [str(v) for v in value] if isinstance(value, list) else value for name, value in context.items()}


def _check_history(where: str, item: HistoryItem, until: int, config: Config, errors: dict[str, str]) -> None:
    if item.timestamp > until:
        errors[f"{where}.timestamp"] = f"expected at most the request's timestamp {until}, got {item.timestamp}"
    _check_context(f"{where}.context", item.context, config, errors)
    _check_names(f"{where}.outcomes", item.outcomes, tuple(config.labels), "label", errors)
    for name, value in item.outcomes.items():
        if name in config.labels and (message := _outcome_error(config.labels[name], value)):
            errors[f"{where}.outcomes.{name}"] = message


def _check_context(where: str, values: Mapping[str, Any], config: Config, errors: dict[str, str]) -> None:
    check_columns(where, values, config.log.context, "context feature", errors)


def check_columns(
    where: str, values: Mapping[str, Any], columns: Mapping[str, ColumnConfig], what: str, errors: dict[str, str]
) -> None:
    """Note in ``errors``, by field, every value that is of no column or not of its column's type."""
    _check_names(where, values, tuple(columns), what, errors)
    for name, value in values.items():
        if name in columns and (message := _context_error(columns[name], value)):
            errors[f"{where}.{name}"] = message


def _check_names(where: str, values: Mapping[str, Any], known: Sequence[str], what: str, errors: dict[str, str]) -> None:
    for name in values:
        if name not in known:
            expected = f"expected one of {', '.join(known)}" if known else "the configuration declares none"
            errors[f"{where}.{shorten(name)}"] = f"unknown {what}: {expected}"


def _context_error(column: ColumnConfig, value: Any) -> str | None:
    if value is None:
        return None
    match column.type:
        case "category":
            return None if _is_text(value) else f"expected a text of at most {MAX_ID} characters, got {describe(value)}"
        case "categories":
            if isinstance(value, list) and len(value) <= MAX_VALUES and all(map(_is_text, value)):
                return None
            return f"expected a list of at most {MAX_VALUES} texts of at most {MAX_ID} characters, got {describe(value)}"
        case "number":
            return _number_error(value, column.minimum, column.maximum)


def _outcome_error(label: LabelConfig, value: Any) -> str | None:
    if value is None or (isinstance(value, bool) and label.type == "binary"):
        return None
    if label.type == "binary" and not (isinstance(value, int | float) and value in (0, 1)):
        return f"expected 0 or 1, got {describe(value)}"
    return _number_error(value, label.minimum, label.maximum)


def _number_error(value: Any, minimum: float | None, maximum: float | None) -> str | None:
    low, high = -LARGEST if minimum is None else minimum, LARGEST if maximum is None else maximum
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(_as_float(value)):
        return f"expected a finite number, got {describe(value)}"
    return None if low <= value <= high else f"expected a number from {low:g} to {high:g}, got {describe(value)}"


def _as_float(value: int | float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _is_text(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, int | str) and len(str(value)) <= MAX_ID
