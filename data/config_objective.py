"""The objectives' part of the configuration (``[[objectives]]``)."""

from typing import Literal

from pydantic import Field, model_validator

from data.frozen import Frozen, Name


class Condition(Frozen):
    """A test of one column known before the outcome: the log's context, or the users' or videos' table."""

    column: str
    any_of: tuple[str, ...] | None = None
    none_of: tuple[str, ...] | None = None
    at_least: float | None = None
    at_most: float | None = None


class Objective(Frozen):
    """What is predicted: the lecture's task T_i = {p_i(x), p_i(y|x), L_i}.

    ``population`` is p_i(x), the label p_i(y|x). An objective defined only where another outcome happened names it as
    ``given``; the ranker then uses p(given) * E[y | given].
    """

    name: Name
    family: Literal["engagement", "satisfaction"]
    label: str
    kind: Literal["binary", "regression"]
    population: tuple[Condition, ...] = ()
    given: str | None = None
    loss: Literal["cross_entropy", "squared_error", "huber"] | None = None  # default: by kind
    transform: Literal["none", "log"] = "log"  # of a regression's label before it is standardised
    head: Literal["value", "weighted_logistic", "duration_quantile", "discretised"] = "value"  # models/heads
    negatives: Literal["all", "others"] = "all"  # weighted_logistic: the rows that count 1, or only those not watched
    bins: int = Field(32, ge=2, le=256)  # discretised: at most so many; one output less
    restoration: float = Field(0.0, ge=0)  # discretised: weight of the expectation's own error
    duration: Name | None = None  # a number feature of the video; where 0, or null, the duration is unknown
    duration_scale: float = Field(1.0, gt=0)  # that feature's column times this is in the label's unit
    cap: float | None = Field(None, gt=0)  # times the duration: the target is at most that
    cap_seconds: float | None = Field(None, gt=0)  # the same in the label's unit
    loss_weight: float = Field(1.0, ge=0)
    ordering_weight: float = Field(1.0, ge=0)  # of a binary objective: times training.ordering.weight
    absent: float | None = None  # the value of an outcome that could be observed and was not
    window: float = Field(86_400.0, gt=0)  # attribution window: seconds from the request in which an event counts

    @model_validator(mode="after")
    def _fits_its_head(self) -> "Objective":
        where, fields = f"objective {self.name!r}", Objective.model_fields
        own = {"negatives": "weighted_logistic", "bins": "discretised", "restoration": "discretised"}
        changed = [
            key for key in ("head", "duration", "cap", "cap_seconds", *own) if getattr(self, key) != fields[key].default
        ]
        if self.kind == "binary" and changed:
            raise ValueError(f"{where}: {changed[0]} is of a regression, its kind is 'binary'")
        for key in changed:
            if self.head != own.get(key, self.head):
                raise ValueError(f"{where}: {key} is of head = {own[key]!r}, the head is {self.head!r}")
        if self.head != "value" and self.loss is not None:
            raise ValueError(f"{where}: loss {self.loss!r} is of head = 'value': {self.head!r} has its own")
        if self.negatives == "others" and self.given is not None:
            raise ValueError(
                f"{where}: negatives = 'others' are those not watched: given {self.given!r} leaves none, use 'all'"
            )
        if self.duration is None and (self.cap is not None or self.head == "duration_quantile"):
            user = "cap" if self.cap is not None else f"head = {self.head!r}"
            raise ValueError(f"{where}: {user} needs duration, the name of a number feature of the video")
        return self
