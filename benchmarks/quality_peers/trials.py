"""Random search, trial by trial: the same number of trials for every peer, kept as lines of JSON, resumable."""

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.noise import derive

Settings = Mapping[str, Any]
Figures = Mapping[str, Mapping[str, float]]
"""By objective: auc, gauc, and whatever else the peer wants to keep of the trial."""


@dataclass(frozen=True)
class Between:
    """A number from ``low`` to ``high``; ``log``: even in its logarithm."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def draw(self, rng: np.random.Generator) -> float:
        share = rng.random()
        if self.log:
            value = math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))
        else:
            value = self.low + share * (self.high - self.low)
        return round(value) if self.whole else float(f"{value:.4g}")


@dataclass(frozen=True)
class OneOf:
    choices: tuple[Any, ...]

    def draw(self, rng: np.random.Generator) -> Any:
        return self.choices[int(rng.integers(len(self.choices)))]


Space = Mapping[str, Between | OneOf]


@dataclass(frozen=True)
class Trial:
    """``figures`` is None where the predictions were not finite."""

    number: int
    settings: Settings
    figures: Figures | None
    seconds: float


def draw(space: Space, first: Settings, seed: int, number: int) -> Settings:
    """The settings of a trial: those given for the first, drawn for the others; of its number alone."""
    if number == 0:
        return dict(first)
    rng = np.random.default_rng(derive(seed, "trial", number))
    return {name: values.draw(rng) for name, values in space.items()}


def read(path: Path) -> list[Trial]:
    """The trials kept so far; a last line that a kill cut short is left out."""
    lines = path.read_text().splitlines() if path.is_file() else []
    found = []
    for line in lines:
        try:
            found.append(Trial(**json.loads(line)))
        except json.JSONDecodeError:
            continue
    return found


def search(
    path: Path, space: Space, first: Settings, seed: int, count: int, evaluate: Callable[[Settings], Figures | None]
) -> Iterator[Trial]:
    """Yield ``count`` trials, those kept in ``path`` among them; the others are made and kept one by one."""
    done = {trial.number: trial for trial in read(path)}
    path.parent.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        if number not in done:
            settings, began = draw(space, first, seed, number), time.perf_counter()
            figures = evaluate(settings)
            done[number] = Trial(number, settings, figures, time.perf_counter() - began)
            with path.open("a") as file:
                file.write("\n" * (not _ends_whole(path)) + json.dumps(vars(done[number]), allow_nan=False) + "\n")
        yield done[number]


def _ends_whole(path: Path) -> bool:
    text = path.read_text()
    return not text or text.endswith("\n")


def value(trial: Trial, objectives: Sequence[str]) -> float:
    """What is maximised: the mean over objectives of AUC + GAUC; minus infinity for a trial that failed."""
    if trial.figures is None:
        return -math.inf
    return float(np.mean([trial.figures[name]["auc"] + trial.figures[name]["gauc"] for name in objectives]))


def best(trials: Sequence[Trial], objectives: Sequence[str]) -> Trial:
    """The best trial; among equals the earliest.

    Raises:
        ValueError: every trial failed.
    """
    found = max(trials, key=lambda trial: value(trial, objectives))
    if found.figures is None:
        raise ValueError(f"none of {len(trials)} trials gave finite predictions")
    return found
