"""Experiments: a TOML file each, read into frozen models, and the sticky assignment of users to arms. Pure but for reading.

    name = "more_likes"
    serves = "feed"                    # the configuration's name, whose requests are split
    salt = "more-likes-1"
    start = "2026-11-01"               # first and last day, both inclusive, of the configuration's timezone
    end = "2026-11-14"

    [[arms]]
    name = "control"
    control = true
    share = 0.5

    [[arms]]
    name = "likes"
    share = 0.5
    weights = { like = 2.0 }           # or a weights file (data/weights.py), looked for beside this one
    bundle = 2026103101                # in place of the champion
    quotas = { topic = 50, trending = 0 }

The unit is the user: the same user, salt and shares give the same arm, everywhere and always. Two experiments have two
salts, so their arms are independent of each other and a user may be in both; what both would change (weights, bundle,
quotas) must differ.
"""

import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from data.config import GeneratorConfig, GeneratorsConfig, Name
from data.days import day_of, parse_day
from data.errors import ConfigError, WatchNextError
from data.frozen import Frozen
from data.weights import read_weights

Share = Annotated[float, Field(gt=0, le=1)]
Treats = Literal["weights", "bundle", "quotas"]

SEPARATOR = ","
"""Between the names of several experiments (and of their arms) that one request is in, where it is logged."""
GENERATORS = tuple(name for name, key in GeneratorsConfig.model_fields.items() if key.annotation is GeneratorConfig)
ROUNDING = 1e-9
_BITS = 53  # of the 64 that are hashed, what a float holds exactly


class Arm(Frozen):
    """What the users of an arm are served. What isn't named is as without the experiment."""

    name: Name
    share: Share
    control: bool = False
    weights: Mapping[str, float] = {}  # of objectives, in place of the bundle's
    reference_means: Mapping[str, float] = {}  # that these weights were chosen with, likewise
    combine: Literal["weighted_sum", "weighted_product"] | None = None  # likewise
    bundle: int | None = Field(None, ge=0)  # a version, in place of the champion
    quotas: Mapping[str, Annotated[int, Field(ge=0)]] = {}  # of generators, in place of the bundle's

    @field_validator("reference_means")
    @classmethod
    def _scales(cls, means: Mapping[str, float]) -> Mapping[str, float]:
        for objective, mean in means.items():
            if not (math.isfinite(mean) and mean > 0):
                raise ValueError(f"{objective}: expected a finite number above 0, got {mean}")
        return means

    @model_validator(mode="after")
    def _with_weights(self) -> "Arm":
        if (self.reference_means or self.combine) and not self.weights:
            raise ValueError("reference_means and combine go with weights, there are none")
        return self

    @field_validator("weights")
    @classmethod
    def _finite(cls, weights: Mapping[str, float]) -> Mapping[str, float]:
        for objective, weight in weights.items():
            if not math.isfinite(weight):
                raise ValueError(f"{objective}: expected a finite number, got {weight}")
        return weights

    @field_validator("quotas")
    @classmethod
    def _generators(cls, quotas: Mapping[str, int]) -> Mapping[str, int]:
        for name in quotas:
            if name not in GENERATORS:
                raise ValueError(f"unknown generator {name!r}: expected one of {', '.join(GENERATORS)}")
        return quotas


class MetricLabels(Frozen):
    """Which labels of the configuration are reported as what; one that it doesn't have is left out of the report."""

    watch_time: str = "watch_time"  # seconds
    click: str = "click"
    like: str = "like"
    dismiss: str = "dismiss"


class Experiment(Frozen):
    """An experiment. Its arms' shares add up to at most 1; the rest of the users are in no arm."""

    name: Name
    serves: Name
    salt: Annotated[str, Field(min_length=1, max_length=256)]
    start: str
    end: str
    arms: tuple[Arm, ...] = Field(min_length=2)
    history_days: int = Field(14, ge=0)  # days before the start that the report adjusts for (CUPED)
    labels: MetricLabels = MetricLabels()

    @model_validator(mode="after")
    def _consistent(self) -> "Experiment":
        try:
            first, last = parse_day(self.start), parse_day(self.end)
        except WatchNextError as error:
            raise ValueError(str(error)) from None
        if first > last:
            raise ValueError(f"start should not be after end, got {self.start} and {self.end}")
        names = [arm.name for arm in self.arms]
        if len(set(names)) < len(names):
            raise ValueError(f"two arms of one name: {', '.join(names)}")
        if (total := sum(arm.share for arm in self.arms)) > 1 + ROUNDING:
            raise ValueError(f"the arms' shares should add up to at most 1, they add up to {total:g}")
        if (controls := sum(arm.control for arm in self.arms)) != 1:
            raise ValueError(f"exactly one arm should have `control = true`, {controls} have")
        return self

    @property
    def control(self) -> Arm:
        return next(arm for arm in self.arms if arm.control)

    @property
    def treatments(self) -> tuple[Arm, ...]:
        return tuple(arm for arm in self.arms if not arm.control)

    @cached_property
    def days(self) -> int:
        """How many days are planned, the first and the last included."""
        return (parse_day(self.end) - parse_day(self.start)).days + 1

    @cached_property
    def changes(self) -> frozenset[Treats]:
        """What any of the arms changes."""
        keys: tuple[Treats, ...] = ("weights", "bundle", "quotas")
        return frozenset(key for key in keys for arm in self.arms if getattr(arm, key) not in (None, {}))

    @cached_property
    def slices(self) -> tuple[tuple[float, float, Arm], ...]:
        """Who has which part of [0, 1): (from, to, arm), see :func:`slices`."""
        return tuple((low, high, self.arms[i]) for low, high, i in slices([arm.share for arm in self.arms]))

    def runs_on(self, day: str) -> bool:
        return self.start <= day <= self.end  # ISO days sort as texts


def slices(shares: Sequence[float]) -> list[tuple[float, float, int]]:
    """Parts of [0, 1) for arms of these shares, as (from, to, arm).

    [0, 1) is cut into one home an arm, all of the same width 1/K. An arm fills its own home from below; what doesn't fit
    goes into what others leave free of theirs, from above. So when shares change, only as many users leave an arm as
    it shrinks by: between two arms always, and among more while none has more than 1/K (else a few more may leave).
    """
    width = 1 / len(shares)
    free = [(i * width + min(share, width), (i + 1) * width) for i, share in enumerate(shares)]
    parts = [(i * width, free[i][0], i) for i in range(len(shares))]
    for i, share in enumerate(shares):
        left = share - width
        for home, (low, high) in enumerate(free):
            taken = min(left, high - low)
            if taken > 0:
                parts.append((high - taken, high, i))
                free[home] = (low, high - taken)
                left -= taken
    return sorted(parts)


def fraction(salt: str, user_id: str) -> float:
    """A number in [0, 1) that looks random, and is the same for the same salt and user: BLAKE2b keyed by the salt."""
    key = blake2b(salt.encode(), digest_size=32).digest()
    return (int.from_bytes(blake2b(user_id.encode(), digest_size=8, key=key).digest(), "big") >> 64 - _BITS) / (1 << _BITS)


def assign(experiment: Experiment, user_id: str) -> Arm | None:
    """The user's arm, or None for one that is in none."""
    place = fraction(experiment.salt, user_id)
    return next((arm for low, high, arm in experiment.slices if low <= place < high), None)


@dataclass(frozen=True)
class Treatment:
    """What a request is served with and logged under.

    ``experiment`` and ``arm`` name all experiments that the user is in, in the same order, separated by commas.
    """

    experiment: str | None = None
    arm: str | None = None
    weights: Mapping[str, float] | None = None
    reference_means: Mapping[str, float] | None = None
    combine: Literal["weighted_sum", "weighted_product"] | None = None
    bundle: int | None = None
    quotas: Mapping[str, int] | None = None


UNTREATED = Treatment()


def arm_of(experiments: Sequence[Experiment], user_id: str, timestamp: int, timezone: str) -> Treatment:
    """What a user's request at ``timestamp`` (ms) is served with, by the experiments of this service that run that day."""
    if not experiments:
        return UNTREATED
    day = day_of(timestamp, timezone).isoformat()
    found = [(e, arm) for e in experiments if e.runs_on(day) and (arm := assign(e, user_id)) is not None]
    if not found:
        return UNTREATED
    arms = [arm for _, arm in found]
    return Treatment(
        experiment=SEPARATOR.join(e.name for e, _ in found),
        arm=SEPARATOR.join(arm.name for arm in arms),
        weights=next((arm.weights for arm in arms if arm.weights), None),
        reference_means=next((arm.reference_means for arm in arms if arm.reference_means), None),
        combine=next((arm.combine for arm in arms if arm.combine), None),
        bundle=next((arm.bundle for arm in arms if arm.bundle is not None), None),
        quotas=next((arm.quotas for arm in arms if arm.quotas), None),
    )


def logged_arm(experiment: str, experiments: str | None, arms: str | None) -> str | None:
    """The arm of one experiment in what :func:`arm_of` had logged."""
    pairs = zip((experiments or "").split(SEPARATOR), (arms or "").split(SEPARATOR), strict=False)
    return next((arm for name, arm in pairs if name == experiment), None)


def load_experiment(path: Path) -> Experiment:
    """Read an experiment; a weights file is looked for beside it.

    Raises:
        ConfigError: naming the file and the key, what was expected and what came.
    """
    values = _read(path)
    for arm in values["arms"] if isinstance(values.get("arms"), list) else ():
        if isinstance(arm, dict) and isinstance(arm.get("weights"), str):
            arm.update(read_weights(path.parent / arm["weights"]))
    try:
        return Experiment.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join([f"{path} is not a valid experiment:", *_lines(error)])) from None


def load_experiments(folder: Path, serves: str) -> tuple[Experiment, ...]:
    """The experiments in ``folder`` (``*.toml``; a folder that isn't there has none) on requests of ``serves``, by name.

    Raises:
        ConfigError: a file is wrong, or two of them can't run beside each other.
    """
    found = [load_experiment(path) for path in sorted(folder.glob("*.toml"))]
    experiments = tuple(sorted((e for e in found if e.serves == serves), key=lambda e: e.name))
    for one, other in combinations(experiments, 2):
        if one.name == other.name or one.salt == other.salt:
            raise ConfigError(f"{folder}: experiments {one.name!r} and {other.name!r} should differ in name and salt")
        together = one.start <= other.end and other.start <= one.end
        if together and (both := one.changes & other.changes):
            raise ConfigError(
                f"{folder}: {one.name!r} and {other.name!r} both change {', '.join(sorted(both))} on some days"
            )
    return experiments


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None


def _lines(error: ValidationError) -> Iterator[str]:
    for detail in error.errors():
        where = ".".join(str(part) for part in detail["loc"]) or "(whole file)"
        message = str(detail["msg"]).removeprefix("Value error, ")
        if detail["type"] == "extra_forbidden":
            message = "unknown key"
        elif detail["type"] not in ("value_error", "missing"):
            message = f"{message}, got {detail['input']!r}"
        yield f"  {where}: {message}"
