"""The configuration: one TOML file read into frozen models that forbid unknown keys.

It travels in the bundle as it was read. A preset (``training/presets/*.toml``) is such a file with its command, its
time and its expected figures at its head.
"""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import Field, ValidationError, field_validator, model_validator

from data.config_calibration import CalibrationConfig
from data.config_model import ModelConfig
from data.config_objective import Condition as Condition
from data.config_objective import Objective as Objective
from data.config_training import TrainingConfig
from data.errors import ConfigError
from data.frozen import Frozen
from data.frozen import Name as Name
from data.weights import read_weights

Side = Literal["user", "context", "video", "cross", "training_only"]
"""Whose a feature is. ``cross`` depends on user and video together and is computed per candidate; ``training_only``
enters the shallow tower and is missing in serving."""

LOG_COLUMNS = (
    "user_id",
    "video_id",
    "timestamp",
    "request_id",
    "query_video_id",
    "position",
    "propensity",
    "is_exploration",
)
"""The columns of the log contract that every log may have; the first three it must have."""


class ColumnConfig(Frozen):
    """A column of the log's context, or of the users' or videos' table."""

    type: Literal["category", "categories", "number"]
    source: str | None = None  # the file's name for it; default: the same
    separator: str = ","  # between the texts of a `categories` column in a text file
    null: tuple[str, ...] = ()  # texts that mean null, besides the empty one
    minimum: float | None = None  # a number outside sets the row aside
    maximum: float | None = None


class LabelConfig(Frozen):
    """An outcome, joined to its impression. Null where it could not be observed."""

    type: Literal["binary", "number"]
    source: str | None = None
    scale: float = 1.0  # the file's value times this is in natural units (0.001: milliseconds to seconds)
    minimum: float | None = None
    maximum: float | None = None
    feedback_delay: float = Field(0.0, ge=0)  # seconds from when it could be known to when features may see it
    event: Name | None = None  # the type of the events that set it where we serve ourselves; default: the label's name
    aggregate: Literal["sum", "last"] = "sum"  # of the values of several events; a binary label is 1 if there is one


class LogConfig(Frozen):
    """Where the impressions are and what their columns are called."""

    files: tuple[str, ...] = ("log*",)  # patterns, looked for in every SOURCE folder (recursively)
    columns: Mapping[str, str] = {}  # our name = the file's name, where they differ
    timestamp_unit: Literal["ms", "s", "us", "ns", "iso"] = "ms"
    context: Mapping[Name, ColumnConfig] = {}
    visible_after: str | None = None  # a label in seconds: outcomes are known that long after the impression
    session_gap: float | None = None  # seconds; where there is no position, the ordinal in the user's session stands in

    @field_validator("columns")
    @classmethod
    def _known(cls, columns: Mapping[str, str]) -> Mapping[str, str]:
        for name in columns:
            if name not in LOG_COLUMNS:
                raise ValueError(f"unknown column {name!r}: expected one of {', '.join(LOG_COLUMNS)}")
        return columns


class TableConfig(Frozen):
    """The users' or the videos' table."""

    files: tuple[str, ...]
    key: str  # the file's name for the id
    valid_from: str | None = None  # the file's name for the time from which a row holds (ms); without it: undated
    columns: Mapping[Name, ColumnConfig] = {}


class IngestConfig(Frozen):
    max_bad_share: float = Field(0.05, ge=0, le=1)
    duplicates: Literal["drop", "keep"] = "drop"  # rows that repeat exactly
    min_timestamp: int = 946_684_800_000  # 2000-01-01
    unknown_ids: Literal["keep", "reject"] = "keep"  # ids missing from the tables
    first_day: str | None = None  # rows before it are set aside
    last_day: str | None = None


class CategoryFeature(Frozen):
    """One category per row. ``user_id`` and ``video_id`` are columns like any other."""

    kind: Literal["category"]
    name: Name
    column: str
    dim: int = Field(8, ge=1)
    table: str | None = None  # embedding table; default: the column's
    side: Side | None = None
    dropout: float = Field(0.0, ge=0, lt=1)  # in training, the share of rows that see the default row instead
    l2: float = Field(0.0, ge=0)


class CategoriesFeature(Frozen):
    """Several categories per row, their embeddings averaged."""

    kind: Literal["categories"]
    name: Name
    column: str
    dim: int = Field(8, ge=1)
    max_values: int = Field(8, ge=1)
    table: str | None = None
    side: Side | None = None


class NumberFeature(Frozen):
    """A number: ``standard`` (x - mean) / std, ``log`` the same of sign(x) log(1 + |x|), ``buckets`` quantile ids."""

    kind: Literal["number"]
    name: Name
    column: str
    scaling: Literal["standard", "log", "buckets"] = "standard"
    buckets: int = Field(16, ge=2)
    dim: int = Field(4, ge=1)  # of a bucket's embedding
    side: Side | None = None


class CrossedFeature(Frozen):
    """The combination of several categories as a category of its own."""

    kind: Literal["crossed"]
    name: Name
    columns: tuple[str, ...] = Field(min_length=2)
    dim: int = Field(8, ge=1)


class ClockFeature(Frozen):
    """The hour (0-23) or weekday (0-6, Monday 0) of the feature time, in the configuration's timezone."""

    kind: Literal["clock"]
    name: Name
    part: Literal["hour", "weekday"]
    dim: int = Field(4, ge=1)


class RateFeature(Frozen):
    """Counts and rates of past impressions that share ``keys`` with the row.

    For each label: log(1 + count), for keys without ``user_id`` less that of the mean count of a key, and the smoothed
    mean (sum + prior * strength) / (count + strength), over the impressions whose outcome was visible before the cutoff:
    the start of the feature time's day (``day``) or the feature time itself (``moment``, for keys that include
    ``user_id``).
    """

    kind: Literal["rate"]
    name: Name
    keys: tuple[str, ...] = Field(min_length=1, max_length=2)
    labels: tuple[str, ...] = Field(min_length=1)
    until: Literal["day", "moment"] = "day"
    strength: float = Field(20.0, gt=0)


class RecentFeature(Frozen):
    """Means of the user's last N visible outcomes, for each label and N."""

    kind: Literal["recent"]
    name: Name
    labels: tuple[str, ...] = Field(min_length=1)
    last: tuple[int, ...] = (1, 5, 20)


class ActivityFeature(Frozen):
    """log(1 + minutes since the user's last impression), and log(1 + impressions in the last ``hours``)."""

    kind: Literal["activity"]
    name: Name
    hours: tuple[float, ...] = (1.0,)


class HistoryFeature(Frozen):
    """The last N videos whose visible ``label`` was above ``above``, as a category ``of`` theirs, averaged."""

    kind: Literal["history"]
    name: Name
    label: str
    above: float = 0.0
    length: int = Field(20, ge=1, le=200)
    of: str = "video_id"  # or a category column of the videos' table
    dim: int = Field(8, ge=1)  # must equal the table's
    table: str | None = None


Feature = Annotated[
    CategoryFeature
    | CategoriesFeature
    | NumberFeature
    | CrossedFeature
    | ClockFeature
    | RateFeature
    | RecentFeature
    | ActivityFeature
    | HistoryFeature,
    Field(discriminator="kind"),
]


class RankingConfig(Frozen):
    """The weights of the ranking score, and the reference means they were chosen with (DESIGN.md, Ranking score)."""

    combine: Literal["weighted_sum", "weighted_product"] = "weighted_product"
    weights: Mapping[str, float] = {}
    reference_means: Mapping[str, float] = {}  # an objective without one uses the mean in the bundle's training data


class GeneratorConfig(Frozen):
    quota: int = Field(100, ge=0)
    deadline_ms: float = Field(50.0, gt=0)


class GeneratorsConfig(Frozen):
    topic: GeneratorConfig = GeneratorConfig()
    co_watch: GeneratorConfig = GeneratorConfig()
    nearest: GeneratorConfig = GeneratorConfig()
    trending: GeneratorConfig = GeneratorConfig()
    topic_column: str | None = None  # a category or categories column of the videos' table
    positive: str | None = None  # the objective whose label makes a watch; default: the first engagement one
    exact_up_to: int = 100_000  # videos; above it the nearest are searched for in lists


class EvaluationConfig(Frozen):
    bootstrap: int = Field(200, ge=0)  # resamples of users
    slices: tuple[str, ...] = ()  # context columns by whose values figures are split
    dead_expert: float = Field(0.01, ge=0, le=1)  # utilisation under which, for every objective, an expert is dead
    collapsed_gate: float = Field(1.5, ge=1)  # effective number of experts under which a gate has collapsed
    gradient_cosines: bool = False  # between the objectives, on each scored day's first rows before training on them


class EventsConfig(Frozen):
    """What clients tell of the slates that we served (``POST /v1/events``)."""

    impression: Literal["view", "served"] = "view"  # what makes a served item an impression
    above_fold: int = Field(10, ge=1)  # with "served": the places of a slate that count as seen
    retention_days: int = Field(30, ge=1)  # how long served rows and events stay in the database after their export
    final_after: float = Field(0.0, ge=0)  # seconds after its windows have closed that a day is taken as final
    future_allowance: float = Field(300.0, ge=0)  # seconds that a client's clock may be ahead before it is counted


class ExplorationConfig(Frozen):
    """Exploration as DESIGN.md defines it."""

    share: float = Field(0.0, ge=0, le=1)  # the probability that a slot explores
    sample: float = Field(0.01, ge=0, le=1)  # share of requests whose candidates and predictions are all logged


class GateConfig(Frozen):
    """What a challenger must show on the held-out day to become the champion."""

    margin: float = Field(-0.005, le=0)  # what the lower end of the paired difference must be above, per objective
    margins: Mapping[str, float] = {}  # by objective, in place of ``margin``
    metric: Literal["auc", "gauc"] = "auc"  # of binary objectives; regressions are judged by order accuracy
    slices: tuple[str, ...] = ()  # named slices (``new_users``, ``new_videos``, ``<context column>``) judged likewise
    least_positives: int = Field(50, ge=1)  # with fewer, an objective or slice is undecided
    least_decided: int = Field(1, ge=1)  # objectives that must be decided for a pass
    calibration: tuple[float, float] = (0.5, 2.0)  # predicted over actual
    polarized: Literal["refuse", "warn"] = "refuse"
    spot_check_rows: int = Field(50, ge=0)  # served against offline
    latency_ratio: float = Field(1.5, gt=0)  # challenger's scoring time over the champion's
    size_ratio: float = Field(2.0, gt=0)  # challenger's bytes over the champion's


class RetrainConfig(Frozen):
    """The nightly job."""

    full_every: int | None = Field(None, ge=1)  # days between full retrains, which compete with the warm start
    full_days: int = Field(28, ge=2)  # days that a full retrain learns from
    band_days: int = Field(7, ge=2)  # good days that the quarantine's band is made of
    band_width: float = Field(4.0, gt=0)  # its half width in robust standard deviations
    band_least: float = Field(0.2, ge=0)  # and at least this share of the median


class Config(Frozen):
    """A whole configuration. See :func:`load_config`."""

    name: Name
    dataset: Name
    seed: int
    timezone: str = "UTC"
    reader: Literal["table", "kuairand"] = "table"
    log: LogConfig
    users: TableConfig | None = None
    videos: TableConfig | None = None
    labels: Mapping[Name, LabelConfig]
    ingest: IngestConfig = IngestConfig()
    slate: tuple[str, ...] = ("user_id", "day")  # what makes a slate where requests are not logged
    features: tuple[Feature, ...] = Field(min_length=1)
    objectives: tuple[Objective, ...] = Field(min_length=1)
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    generators: GeneratorsConfig = GeneratorsConfig()
    ranking: RankingConfig = RankingConfig()
    calibration: CalibrationConfig = CalibrationConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    events: EventsConfig = EventsConfig()
    exploration: ExplorationConfig = ExplorationConfig()
    gate: GateConfig = GateConfig()
    retrain: RetrainConfig = RetrainConfig()

    @field_validator("timezone")
    @classmethod
    def _timezone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (KeyError, ValueError, OSError):
            raise ValueError(f"unknown timezone {name!r}") from None
        return name

    @model_validator(mode="after")
    def _consistent(self) -> "Config":
        _unique("feature", [feature.name for feature in self.features])
        _unique("objective", [objective.name for objective in self.objectives])
        _unique("column", [*LOG_COLUMNS, *self.log.context, *self.user_columns, *self.video_columns, *self.labels])
        _unique("event", ["view", *(self.event_of(label) for label in self.labels)])
        self._check_features()
        self._check_objectives()
        return self

    @property
    def user_columns(self) -> Mapping[str, ColumnConfig]:
        return self.users.columns if self.users else {}

    @property
    def video_columns(self) -> Mapping[str, ColumnConfig]:
        return self.videos.columns if self.videos else {}

    @property
    def objective_names(self) -> tuple[str, ...]:
        return tuple(objective.name for objective in self.objectives)

    def event_of(self, label: str) -> str:
        """The type of the events that set a label."""
        return self.labels[label].event or label

    @property
    def event_types(self) -> Mapping[str, str]:
        """The label that each type of event sets; ``view`` sets none."""
        return {self.event_of(label): label for label in self.labels}

    def window(self, label: str) -> int:
        """The attribution window of a label, ms: of the objectives that are made of it."""
        windows = [objective.window for objective in self.objectives if objective.label == label]
        return round(1000 * (windows[0] if windows else Objective.model_fields["window"].default))

    def absent(self, label: str) -> float | None:
        """What a label is once its window has closed without an event; null where no objective says."""
        return next((o.absent for o in self.objectives if o.label == label and o.absent is not None), None)

    def column_side(self, column: str) -> Side:
        """The side that a column belongs to by the table it stands in."""
        if column == "user_id" or column in self.user_columns:
            return "user"
        if column == "video_id" or column in self.video_columns:
            return "video"
        if column in self.log.context or column == "query_video_id":
            return "context"
        if column == "position":
            return "training_only"
        raise ValueError(f"unknown column {column!r}: it is in none of log.context, users.columns, videos.columns")

    def column_type(self, column: str) -> str:
        """``category``, ``categories`` or ``number``."""
        if column in ("user_id", "video_id", "query_video_id"):
            return "category"
        if column == "position":
            return "number"
        self.column_side(column)
        return {**self.log.context, **self.user_columns, **self.video_columns}[column].type

    def feature_side(self, feature: Feature) -> Side:
        """The side of a feature: as declared, or that of its columns (``cross`` where user and video meet)."""
        match feature:
            case CategoryFeature() | CategoriesFeature() | NumberFeature():
                return feature.side or self.column_side(feature.column)
            case CrossedFeature():
                return _join_sides([self.column_side(column) for column in feature.columns])
            case RateFeature():
                return _join_sides([self.column_side(key) for key in feature.keys])
            case ClockFeature():
                return "context"
            case RecentFeature() | ActivityFeature() | HistoryFeature():
                return "user"

    def _check_features(self) -> None:
        for feature in self.features:
            where = f"feature {feature.name!r}"
            try:
                self.feature_side(feature)
                for label in getattr(feature, "labels", ()) or filter(None, [getattr(feature, "label", None)]):
                    if label not in self.labels:
                        raise ValueError(f"unknown label {label!r}: expected one of {', '.join(self.labels)}")
                match feature:
                    case CategoryFeature():
                        self._expect(feature.column, ("category",), "category")
                    case CategoriesFeature():
                        self._expect(feature.column, ("categories",), "categories")
                    case NumberFeature():
                        self._expect(feature.column, ("number",), "number")
                        if feature.column == "position" and feature.side not in (None, "training_only"):
                            raise ValueError("position is known in training only; its side is training_only")
                    case CrossedFeature():
                        for column in feature.columns:
                            self._expect(column, ("category",), "category")
                    case RateFeature():
                        for key in feature.keys:
                            self._expect(key, ("category", "categories"), "category or categories")
                        if feature.until == "moment" and "user_id" not in feature.keys:
                            raise ValueError("until = 'moment' needs user_id among the keys")
                    case HistoryFeature():
                        self._expect(feature.of, ("category", "categories"), "category or categories")
                        if self.column_side(feature.of) != "video":
                            raise ValueError(f"`of` must be a column of the videos, got {feature.of!r}")
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from None
        self._check_products()
        self._check_factors()
        self.model.trunk.check(self.objective_names)
        dims: dict[str, tuple[int, str]] = {}
        for feature in self.features:
            table = embedding_table(feature)
            if table is not None:
                dim = getattr(feature, "dim")  # noqa: B009
                if dims.setdefault(table, (dim, feature.name))[0] != dim:
                    other = dims[table]
                    raise ValueError(
                        f"features {other[1]!r} and {feature.name!r} share embedding table {table!r} "
                        f"but their dims are {other[0]} and {dim}"
                    )

    def _check_products(self) -> None:
        features = {feature.name: feature for feature in self.features}
        for pair in self.model.products:
            for name in pair:
                if name not in features or embedding_table(features[name]) is None:
                    raise ValueError(f"model.products: {name!r} is not a feature with an embedding")
            left, right = (features[name] for name in pair)
            sides = [self.feature_side(feature) for feature in (left, right)]
            if "training_only" in sides or sides[1] not in ("video", "cross"):
                raise ValueError(f"model.products: {list(pair)} should be a feature known in serving and one of the video")
            dims = [getattr(feature, "dim") for feature in (left, right)]  # noqa: B009
            if dims[0] != dims[1]:
                raise ValueError(
                    f"model.products: the dims of {list(pair)} should be equal, they are {dims[0]} and {dims[1]}"
                )

    def _check_factors(self) -> None:
        features, known = {feature.name: feature for feature in self.features}, self.objective_names
        for place, factors in enumerate(self.model.factors):
            where = f"model.factors[{place}]"
            for name in factors.objectives:
                if name not in known:
                    raise ValueError(f"{where}.objectives: unknown objective {name!r}: expected one of {', '.join(known)}")
            for key, names, sides in (
                ("request", factors.request, ("user", "context")),
                ("video", factors.video, ("video",)),
            ):
                for name in names:
                    if name not in features or embedding_table(features[name]) is None:
                        raise ValueError(f"{where}.{key}: {name!r} is not a feature with an embedding")
                    if (side := self.feature_side(features[name])) not in sides:
                        raise ValueError(f"{where}.{key}: {name!r} is of the {side} side, expected {' or '.join(sides)}")

    def _expect(self, column: str, types: Sequence[str], what: str) -> None:
        if self.column_type(column) not in types:
            raise ValueError(f"column {column!r} should be {what}, it is {self.column_type(column)}")

    def _check_objectives(self) -> None:
        by_name = {objective.name: objective for objective in self.objectives}
        for objective in self.objectives:
            where = f"objective {objective.name!r}"
            if objective.label not in self.labels:
                raise ValueError(f"{where}: unknown label {objective.label!r}: expected one of {', '.join(self.labels)}")
            if objective.kind == "binary" and self.labels[objective.label].type != "binary":
                raise ValueError(f"{where} is binary but its label {objective.label!r} is a number")
            allowed = ("cross_entropy",) if objective.kind == "binary" else ("squared_error", "huber")
            if objective.loss is not None and objective.loss not in allowed:
                raise ValueError(f"{where}: loss {objective.loss!r} does not fit kind {objective.kind!r}: {allowed}")
            if objective.duration is not None:
                self._check_duration(objective, where)
            if objective.given is not None:
                given = by_name.get(objective.given)
                if given is None or given is objective or given.kind != "binary" or given.given is not None:
                    raise ValueError(
                        f"{where}: given {objective.given!r} must name another, binary, unconditional objective"
                    )
            for condition in objective.population:
                if self.column_side(condition.column) == "training_only":
                    raise ValueError(f"{where}: a population reads only what is known before the slate is ranked")
            alike = [other for other in self.objectives if other.label == objective.label]
            for key in ("window", "absent"):
                if len(values := {getattr(other, key) for other in alike}) > 1:
                    raise ValueError(f"{where}: objectives of label {objective.label!r} should agree on {key}, got {values}")
        for name in self.gate.margins:
            if name not in by_name:
                raise ValueError(f"gate.margins: unknown objective {name!r}: expected one of {', '.join(by_name)}")
        for key in ("weights", "reference_means"):
            for name in getattr(self.ranking, key):
                if name not in by_name:
                    raise ValueError(f"ranking.{key}: unknown objective {name!r}: expected one of {', '.join(by_name)}")
        if self.log.visible_after is not None and self.log.visible_after not in self.labels:
            raise ValueError(f"log.visible_after: unknown label {self.log.visible_after!r}")
        for key in self.slate:
            if key not in ("user_id", "day", "request_id", "query_video_id") and key not in self.log.context:
                raise ValueError(f"slate: unknown column {key!r}")
        for column in self.evaluation.slices:
            if column not in self.log.context:
                raise ValueError(f"evaluation.slices: {column!r} is not in log.context")

    @property
    def durations(self) -> frozenset[str]:
        """The number features that are some objective's duration: not above 0, they are unknown."""
        return frozenset(objective.duration for objective in self.objectives if objective.duration is not None)

    def duration_of(self, objective: Objective) -> NumberFeature:
        """The feature that is an objective's duration."""
        found = [feature for feature in self.features if feature.name == objective.duration]
        assert found
        assert isinstance(found[0], NumberFeature)
        return found[0]

    def _check_duration(self, objective: Objective, where: str) -> None:
        named = next((feature for feature in self.features if feature.name == objective.duration), None)
        if not isinstance(named, NumberFeature) or self.feature_side(named) != "video":
            raise ValueError(f"{where}: duration {objective.duration!r} should be a number feature of the video")
        if objective.head == "duration_quantile" and named.scaling != "buckets":
            raise ValueError(
                f"{where}: head = 'duration_quantile' groups by the buckets of duration {named.name!r}: "
                f"expected scaling = 'buckets', got {named.scaling!r}"
            )


def embedding_table(feature: Feature) -> str | None:
    """The embedding table that a feature reads, or None where it reads none."""
    match feature:
        case CategoryFeature() | CategoriesFeature():
            return feature.table or feature.column
        case HistoryFeature():
            return feature.table or feature.of
        case CrossedFeature() | ClockFeature():
            return feature.name
        case NumberFeature():
            return feature.name if feature.scaling == "buckets" else None
        case _:
            return None


def load_config(path: Path) -> Config:
    """Read a configuration.

    Raises:
        ConfigError: naming the file and the key, what was expected and what came.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from None
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    if isinstance(values.get("ranking"), str):  # a weights file beside it
        values["ranking"] = read_weights(path.parent / values["ranking"])
    return parse_config(values, str(path))


def parse_config(values: Mapping[str, Any], where: str) -> Config:
    """Build a configuration from parsed TOML (or JSON); ``where`` is named in errors."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        lines = [f"  {_location(detail['loc'])}: {_message(detail)}" for detail in error.errors()]
        raise ConfigError("\n".join([f"{where} is not a valid configuration:", *lines])) from None


def _location(loc: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in loc) or "(whole file)"


def _message(detail: Any) -> str:
    message = str(detail["msg"]).removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        return "unknown key"
    if detail["type"] in ("value_error", "missing"):
        return message
    return f"{message}, got {detail['input']!r}"


def _unique(what: str, names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two {what}s of one name: {name!r}")


def _join_sides(sides: Sequence[Side]) -> Side:
    kinds = set(sides)
    if "training_only" in kinds:
        raise ValueError("position cannot be combined with other columns")
    if kinds == {"video"}:
        return "video"
    if "video" in kinds:
        return "cross"
    return "user" if kinds == {"user"} else "context"
