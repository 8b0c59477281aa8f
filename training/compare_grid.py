"""A grid of designs: the TOML file of `watchnext compare`, and the configurations that it stands for."""

import copy
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, ValidationError, model_validator

from data.config import Config, Name, load_config, parse_config
from data.days import parse_day
from data.errors import ConfigError, WatchNextError
from data.frozen import Frozen

PRESETS = Path(__file__).parent / "presets"
CHANGEABLE = ("features", "objectives", "model", "training")
"""The sections that a variant may change: the rows and their labels are the same for all."""
ONLY = "only "
"""Before an objective's name: the name of its single-task network."""

Model = TypeVar("Model", bound=Frozen)
Overrides = Mapping[str, Any]
Days = Annotated[tuple[str, ...], Field(min_length=2, max_length=2)]


class Variant(Frozen):
    """A design: the base configuration with some keys set. Keys are dotted, ``model.trunk.kind``; a feature or an
    objective is named, ``features.user.dim``, and false in its place takes it out. A new ``kind`` starts its table anew."""

    name: str = Field(pattern=r"^\w[\w .,+()/-]*$", max_length=40)
    overrides: Mapping[str, Any] = {}


class SingleTask(Frozen):
    """A network for each objective alone, to find negative transfer."""

    objectives: tuple[str, ...] | None = None  # default: all
    overrides: Mapping[str, Any] = {}  # default: the base's trunk as plain layers


class Grid(Frozen):
    """Designs x seeds on the same days."""

    name: Name
    base: str  # a preset, or a file beside the grid's
    seeds: tuple[int, ...] = Field(min_length=1)
    train: Days  # first and last
    report: Days  # after the days trained on
    baseline: str
    match: Literal["parameters", "flops", "none"] = "none"
    bootstrap: int = Field(1000, ge=0)  # resamples of users and seeds
    overrides: Mapping[str, Any] = {}  # of every variant
    variants: tuple[Variant, ...] = Field(min_length=1)
    single_task: SingleTask | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [variant.name for variant in self.variants]
        for name in names:
            if names.count(name) > 1 or name.startswith(ONLY):
                raise ValueError(f"two variants of one name, or one that begins with {ONLY!r}: {name!r}")
        if self.baseline not in names:
            raise ValueError(f"baseline: expected one of the variants {', '.join(names)}, got {self.baseline!r}")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: expected each once, got {list(self.seeds)}")
        check_days(self.train, self.report, "report")
        return self

    @property
    def train_days(self) -> list[date]:
        return days_of(self.train)

    @property
    def report_days(self) -> list[date]:
        return days_of(self.report)


@dataclass(frozen=True)
class Design:
    """A network to be trained: ``whole`` says how rows are encoded, ``config`` is its own, of one objective where it is a
    single-task network (``only``)."""

    name: str
    whole: Config
    config: Config
    only: str | None = None


def check_days(earlier: Days, later: Days, what: str) -> None:
    """Both are first and last day, and the later ones come after."""
    try:
        (first, last), (start, end) = ([parse_day(text) for text in pair] for pair in (earlier, later))
    except WatchNextError as error:
        raise ValueError(str(error)) from None
    if not first <= last < start <= end:
        raise ValueError(f"{what}: expected days after those before them, first and last, got {earlier} and {later}")


def days_of(pair: Days) -> list[date]:
    first, last = (parse_day(text) for text in pair)
    return [first + timedelta(days=i) for i in range((last - first).days + 1)]


def load_grid(path: Path) -> Grid:
    """Read a grid. Raises ConfigError, which names the file and the key."""
    return read_model(path, Grid)


def read_model(path: Path, model: type[Model]) -> Model:
    """A TOML file as a model. Raises ConfigError, which names the file and the key."""
    try:
        return model.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, d['loc'])) or '(whole file)'}: {_says(d)}" for d in error.errors()]
        raise ConfigError("\n".join([f"{path} is not valid:", *lines])) from None


def _says(detail: Any) -> str:
    message = str(detail["msg"]).removeprefix("Value error, ")
    return "unknown key" if detail["type"] == "extra_forbidden" else message


def base_config(base: str, beside: Path) -> Config:
    """The preset of this name, or the file of this name in the folder ``beside`` (no path that leads out of it).

    Raises:
        ConfigError: there is neither, or it leads elsewhere.
    """
    preset = PRESETS / f"{base}.toml"
    if preset.parent == PRESETS and preset.is_file():
        return load_config(preset)
    folder = beside.resolve()
    path = (folder / base).resolve()
    if not path.is_relative_to(folder):
        raise ConfigError(f"base: expected a preset or a file in {folder}, got {base!r}")
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in PRESETS.glob("*.toml")))
        raise ConfigError(f"base: expected one of the presets {known}, or a file in {folder}, got {base!r}")
    return load_config(path)


def designs(grid: Grid, base: Config) -> list[Design]:
    """The variants, then the single-task networks.

    Raises:
        ConfigError: an override names no key, or the configuration that it makes is wrong.
    """
    found = []
    for variant in grid.variants:
        config = override(base, {**grid.overrides, **variant.overrides}, f"variant {variant.name!r}")
        found.append(Design(variant.name, config, config))
    if grid.single_task is None:
        return found
    whole = override(base, grid.overrides, "overrides")
    names = grid.single_task.objectives or whole.objective_names
    for name in names:
        if name not in whole.objective_names:
            raise ConfigError(f"single_task.objectives: expected some of {', '.join(whole.objective_names)}, got {name!r}")
        plain = override(whole, grid.single_task.overrides or plain_trunk(whole), "single_task.overrides")
        found.append(Design(f"{ONLY}{name}", whole, single_task(plain, name), name))
    return found


def plain_trunk(config: Config) -> Overrides:
    """As many layers, shared with nobody: a plain network for one objective."""
    return {"model.trunk.kind": "shared_bottom", "model.trunk.layers": list(config.model.trunk.layers)}


def override(config: Config, overrides: Overrides, where: str) -> Config:
    """A configuration with some keys set; ``where`` is named in errors."""
    values = config.model_dump(mode="json")
    for key in sorted(overrides, key=lambda key: not key.endswith(".kind")):  # a kind starts its table anew: first
        if key.split(".")[0] not in CHANGEABLE:
            raise ConfigError(f"{where}: a variant may change {', '.join(CHANGEABLE)}, not {key!r}")
        _set(values, key, copy.deepcopy(overrides[key]), where)
    return parse_config(values, where)


def _set(values: dict[str, Any], key: str, value: Any, where: str) -> None:
    *path, last = key.split(".")
    here: Any = values
    for part in path:
        inner = _named(here, part) if isinstance(here, list) else here.get(part) if isinstance(here, dict) else None
        if inner is None:
            raise ConfigError(f"{where}: unknown key {key!r}: there is no {part!r}")
        here = inner
    if isinstance(here, list):
        _set_item(here, key, last, value, where)
    elif not isinstance(here, dict):
        raise ConfigError(f"{where}: unknown key {key!r}: {'.'.join(path)} is a value")
    elif last == "kind" and here.get("kind") != value:
        here.clear()
        here["kind"] = value
    else:
        here[last] = value


def _named(items: list[Any], name: str) -> Any:
    if name.isdecimal() and int(name) < len(items):
        return items[int(name)]
    return next((item for item in items if isinstance(item, dict) and item.get("name") == name), None)


def _set_item(items: list[Any], key: str, name: str, value: Any, where: str) -> None:
    """Replace, append or (false) take out the item of this name."""
    there = _named(items, name)
    if value is False:
        if there is None:
            raise ConfigError(f"{where}: unknown key {key!r}: there is no {name!r} to take out")
        items.remove(there)
    elif not isinstance(value, dict):
        raise ConfigError(f"{where}: {key!r}: expected a table, or false to take it out, got {value!r}")
    elif there is None:
        items.append({**value, "name": name})
    else:
        items[items.index(there)] = {**value, "name": name}


def single_task(config: Config, name: str) -> Config:
    """The configuration of one objective alone, trained on the rows on which it is defined in the whole one.

    What it is ``given`` is not learnt: its rows are those where that happened, as before. Balancing and sampling, which
    are between objectives, go; so does every key that is of other objectives.
    """
    values = config.model_dump(mode="json")
    known = set(config.objective_names)
    values["objectives"] = [{**o, "given": None} for o in values["objectives"] if o["name"] == name]
    factors = [{**f, "objectives": [name]} for f in values["model"].pop("factors") if name in f["objectives"]]
    values["model"] = {**_without_others(values["model"], known, name), "factors": factors}
    training = {key: value for key, value in values["training"].items() if key not in ("balancing", "sampling")}
    values["training"] = _without_others(training, known, name)
    values["ranking"], values["gate"] = {}, {**values["gate"], "margins": {}}
    values["generators"]["positive"] = None
    return parse_config(values, f"the single-task network of {name!r}")


def _without_others(value: Any, known: set[str], name: str) -> Any:
    """Tables that are keyed by objective, with the one that is left."""
    if isinstance(value, list):
        return [_without_others(item, known, name) for item in value]
    if not isinstance(value, dict):
        return value
    by_objective = bool(value) and set(value) <= known
    return {key: _without_others(v, known, name) for key, v in value.items() if not by_objective or key == name}
