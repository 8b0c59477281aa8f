"""What `watchnext tune` searches: the TOML file of a space, and the configuration that a trial's choices make."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Annotated, Any, Literal, Protocol, Self

from pydantic import Field, model_validator

from data.config import Config, Name
from data.errors import ConfigError
from data.frozen import Frozen
from training.compare_grid import Days, check_days, days_of, override
from training.measure import BINARY, REGRESSION, WITHOUT_INTERVAL

SMALLER_IS_BETTER = ("log_loss", "ece", "mae", "mse")
Metric = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*\.[a-z_]+$")]


class Dimension(Frozen):
    """One key: between two numbers (whole ones where all are), or one of some values."""

    low: int | float | None = None
    high: int | float | None = None
    step: int | float | None = Field(None, gt=0)
    log: bool = False
    choices: tuple[Any, ...] = ()

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if self.choices:
            if (self.low, self.high, self.step, self.log) != (None, None, None, False):
                raise ValueError("expected choices, or low and high, not both")
        elif self.low is None or self.high is None:
            raise ValueError("expected low and high, or choices")
        elif self.low >= self.high:
            raise ValueError(f"expected low below high, got {self.low} and {self.high}")
        elif self.log and (self.step is not None or self.low <= 0):
            raise ValueError("log: expected low above 0 and no step")
        return self


class Space(Frozen):
    """A search: the base configuration, what may vary, and the days that judge."""

    name: Name
    base: str  # a preset, or a file beside the space's
    seed: int  # of the sampler; networks have the configuration's
    trials: int = Field(40, ge=1)  # finished ones
    train: Days  # first and last day that are only trained on
    judge: Days  # the days after them: each is scored, then trained on
    reported: Days | None = None  # kept for the comparison: never read
    metrics: tuple[Metric, ...] = Field(min_length=1)  # objective.metric; what is maximised is their mean
    pruner: Literal["median", "hyperband", "none"] = "median"
    overrides: Mapping[str, Any] = {}  # of every trial
    space: Mapping[str, Dimension] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        check_days(self.train, self.judge, "judge")
        if days_of(self.train)[-1].toordinal() + 1 != days_of(self.judge)[0].toordinal():
            raise ValueError(f"judge: expected to begin on the day after {self.train[1]}, got {self.judge[0]}")
        if self.reported is not None:
            check_days(self.judge, self.reported, "reported")
        return self

    @property
    def train_days(self) -> list[date]:
        return days_of(self.train)

    @property
    def judge_days(self) -> list[date]:
        return days_of(self.judge)

    def check(self, base: Config) -> None:
        """Raises ConfigError where a metric or a key does not fit the configuration."""
        kinds = {objective.name: objective.kind for objective in base.objectives}
        for text in self.metrics:
            name, _, metric = text.partition(".")
            if name not in kinds:
                raise ConfigError(f"metrics: unknown objective {name!r}: expected one of {', '.join(kinds)}")
            known = [m for m in (BINARY if kinds[name] == "binary" else REGRESSION) if m not in WITHOUT_INTERVAL]
            if metric not in known:
                raise ConfigError(f"metrics: {text!r}: expected one of {', '.join(known)} of {name!r}")
        first = {key: _first(dimension) for key, dimension in self.space.items()}
        self.config(base, first)

    def config(self, base: Config, choices: Mapping[str, Any]) -> Config:
        """The base configuration with a trial's choices."""
        return override(base, {**self.overrides, **choices}, f"tune {self.name!r}")


def _first(dimension: Dimension) -> Any:
    return dimension.choices[0] if dimension.choices else dimension.low


class Suggests(Protocol):
    """An Optuna trial, as far as it is asked."""

    def suggest_categorical(self, name: str, choices: Sequence[str]) -> Any: ...
    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int: ...
    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float: ...


def choose(space: Space, trial: Suggests) -> dict[str, Any]:
    """A value for each key. Choices are told to Optuna as JSON: a list of widths is one, too."""
    return dict(_choose(space, trial))


def _choose(space: Space, trial: Suggests) -> Iterator[tuple[str, Any]]:
    for key, d in space.space.items():
        if d.choices:
            texts = [json.dumps(choice, sort_keys=True) for choice in d.choices]
            yield key, json.loads(trial.suggest_categorical(key, texts))
        elif all(isinstance(v, int) for v in (d.low, d.high, d.step or 1)):
            yield key, trial.suggest_int(key, int(d.low or 0), int(d.high or 0), step=int(d.step or 1), log=d.log)
        else:
            yield key, trial.suggest_float(key, float(d.low or 0), float(d.high or 0), step=d.step, log=d.log)


def decode(space: Space, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """A kept trial's parameters as values of their keys."""
    return {key: json.loads(value) if space.space[key].choices else value for key, value in parameters.items()}
