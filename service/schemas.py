"""What the API takes and answers. The limits are part of the contract, so they are constants, and OpenAPI states them."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
)
from pydantic_core import PydanticCustomError

from service.problems import shorten

MAX_CANDIDATES = 2_000
MAX_EXCLUDED = 10_000
MAX_HISTORY = 1_000
MAX_ID = 256
MAX_KEYS = 256
MAX_WEIGHT = 1e3
MIN_TIMESTAMP = 946_684_800_000  # 2000-01-01
MAX_TIMESTAMP = 4_102_444_800_000  # 2100-01-01


def _decimal(value: Any) -> Any:
    """An integer id is taken as its decimal text (bool, which Python counts as an integer, is not)."""
    return str(value) if type(value) is int else value


def _ids(values: Any, check: ValidatorFunctionWrapHandler) -> Any:
    """ASCII texts of good length need no looking at one by one, which ``check`` does of all others. It holds the limits
    of the list too, none of which is below :data:`MAX_CANDIDATES`."""
    if type(values) is not list:
        return check(values)
    try:
        together = "".join(values)
    except TypeError:
        return check([_decimal(value) for value in values])
    lengths = {*map(len, values)} or {0}
    good = min(lengths) > 0 and max(lengths) <= MAX_ID and len(values) <= MAX_CANDIDATES
    return values if good and together.isascii() and "\x00" not in together else check(values)


def _distinct(ids: list[str]) -> list[str]:
    if len(set(ids)) == len(ids):
        return ids
    seen: set[str] = set()
    for video_id in ids:
        if video_id in seen:
            raise PydanticCustomError("duplicate_id", "the id {id} comes twice", {"id": repr(shorten(video_id))})
        seen.add(video_id)
    return ids


_NO_NUL = r"^[^\x00]*$"
_ID_SCHEMA = {"anyOf": [{"type": "string", "minLength": 1, "maxLength": MAX_ID, "pattern": _NO_NUL}, {"type": "integer"}]}
_IdText = Annotated[
    str, StringConstraints(strict=True, min_length=1, max_length=MAX_ID, pattern=_NO_NUL), WithJsonSchema(_ID_SCHEMA)
]

Id = Annotated[_IdText, BeforeValidator(_decimal)]
Ids = Annotated[list[_IdText], WrapValidator(_ids)]
Key = Annotated[str, StringConstraints(min_length=1, max_length=MAX_ID)]
Timestamp = Annotated[int, Field(strict=True, ge=MIN_TIMESTAMP, le=MAX_TIMESTAMP, description="ms since the epoch, UTC")]
Weight = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-MAX_WEIGHT, le=MAX_WEIGHT)]
_TEXT = [{"type": "string"}, {"type": "integer"}]
Value = Annotated[
    Any,
    WithJsonSchema({"anyOf": [*_TEXT, {"type": "number"}, {"type": "array", "items": {"anyOf": _TEXT}}, {"type": "null"}]}),
]
"""Of a context feature: checked against the column's type in :mod:`service.inputs`, where the configuration is known."""
Outcome = Annotated[Any, WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "boolean"}, {"type": "null"}]})]
"""Of a label: checked likewise."""


def _field(default: Callable[[], Any], **facts: Any) -> Any:
    """A field that is empty where it is left out; pydantic would deep-copy a plain default for every request."""
    return Field(default_factory=default, json_schema_extra={"default": default()}, **facts)


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class HistoryItem(Strict):
    """A video that the user was shown, and what came of it."""

    video_id: Id
    timestamp: Timestamp
    outcomes: dict[Key, Outcome] = _field(dict, max_length=MAX_KEYS, description="by label; times watched in seconds")
    context: dict[Key, Value] = _field(dict, max_length=MAX_KEYS, description="the context features of that impression")


class SlateRequest(Strict):
    """What both endpoints take."""

    user_id: Id
    context: dict[Key, Value] = _field(
        dict, max_length=MAX_KEYS, description="context features by name; absent ones are null"
    )
    query_video_id: Id | None = Field(None, description="the video that is being watched")
    weights: dict[Key, Weight] = _field(
        dict, max_length=MAX_KEYS, description="ranking weights by objective, in place of the configured ones"
    )
    history: list[HistoryItem] = _field(
        list,
        max_length=MAX_HISTORY,
        description="what the user did after the bundle's stored state ends, in place of what the events told",
    )
    history_replaces: bool = Field(False, strict=True, description="`history` stands instead of the stored state")
    exclude: Ids = _field(list, max_length=MAX_EXCLUDED, description="video ids never to be returned")
    timestamp: Timestamp | None = Field(None, description="ms since the epoch, UTC; default: now")
    explain: bool = Field(False, strict=True, description="add each objective's contribution and gate weights")
    format: Literal["items", "columns"] = Field(
        "items", description="`columns`: the slate as one list a field, half as long and faster to read and to write"
    )
    scored: bool = Field(
        False, strict=True, description="add all that was ranked, as columns; only the slate counts as served"
    )
    explore: bool | None = Field(
        None, strict=True, description="whether slots may explore, by the configured share; default: recommend's, not rank's"
    )


class RankRequest(SlateRequest):
    """The caller's candidates, to be ordered."""

    candidates: Annotated[Ids, AfterValidator(_distinct)] = Field(
        min_length=1, max_length=MAX_CANDIDATES, json_schema_extra={"uniqueItems": True}
    )
    limit: int | None = Field(None, strict=True, ge=1, le=MAX_CANDIDATES, description="length of the answer; default: all")


class RecommendRequest(SlateRequest):
    """The generators supply the candidates."""

    limit: int = Field(20, strict=True, ge=1, le=MAX_CANDIDATES, description="length of the answer")


class Explanation(Strict):
    """How a score came about.

    The contributions add up to the score (weighted sum) or to its natural logarithm (weighted product).
    """

    contributions: dict[str, float | None]
    gates: dict[str, list[float | None]] = Field(description="weight of each expert, by objective")
    propensity: float = Field(description="how likely this video was in this place, given the places above")
    is_exploration: bool = Field(description="the place was filled by lot")


class Item(Strict):
    video_id: str
    score: float | None = Field(description="null where a prediction was not finite; such items come last")
    position: int = Field(description="from 0")
    predictions: dict[str, float | None] = Field(
        description="by objective, in natural units; of an objective with `given`, the one given that outcome"
    )
    generators: list[str] = Field(description="which generators brought the video; empty for the caller's candidates")
    explanation: Explanation | None = Field(None, description="present where the request says `explain`")


_CANDIDATES = "all that were ranked, best first; present where the request says `scored`"


class Columns(Strict):
    """Videos as one list a field, all equally long."""

    video_id: list[str]
    score: list[float | None]
    predictions: dict[str, list[float | None]]


class Answer(Strict):
    """A slate. An empty one is an answer."""

    request_id: str
    model_version: int
    degraded: list[str] = Field(description="what was left out")
    items: list[Item]
    candidates: Columns | None = Field(None, description=_CANDIDATES)


class SlateColumns(Columns):
    """The items of a slate; the place in the lists is the position."""

    generators: list[list[str]]
    explanation: list[Explanation] | None = Field(None, description="present where the request says `explain`")


class ColumnsAnswer(Strict):
    """The same as :class:`Answer` where the request says ``columns``."""

    request_id: str
    model_version: int
    degraded: list[str] = Field(description="what was left out")
    slate: SlateColumns
    candidates: Columns | None = Field(None, description=_CANDIDATES)


class Window(Strict):
    first_day: str
    last_day: str


class ObjectiveSummary(Strict):
    name: str
    family: str
    kind: str
    label: str
    given: str | None
    weight: float = Field(description="ranking weight of the served bundle's configuration")


class Version(Strict):
    version: int
    created_at: str
    window: Window
    objectives: list[str]
    champion: bool
    serving: bool


class Models(Strict):
    """The registry of the served name, newest version first."""

    name: str
    champion: int | None
    serving: int | None = Field(description="the version that answers now; null until one is loaded")
    objectives: list[ObjectiveSummary] = Field(description="of the version that answers now")
    versions: list[Version]


class Health(Strict):
    status: str
    refused: str | None = Field(None, description="why the champion is not what serves; left out where it is")
