"""Evaluate a bundle on days after its window: weights frozen, features advancing with the log."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import structlog
from rich.console import Console
from rich.progress import track

from data.config import Config
from data.errors import BundleError, LogError
from data.features.slates import has_requests
from data.home import Home
from data.log import list_days, read_day
from models.bundle import Bundle
from models.registry import Registry
from training.baselines import CHAMPION
from training.figures import Scored
from training.figures import evaluate as figures_of
from training.learner import Learner
from training.plan import days_between
from training.run import read_tables
from training.score import score_day

log = structlog.get_logger()


def evaluate(config: Config, home: Home, first: date, last: date, version: int | None, console: Console) -> dict[str, Any]:
    """Figures of a bundle (default: the champion) on the days ``first..last``, JSON-ready.

    Each row is scored at its own feature time, with training-only inputs missing; GAUC's scores are as of the slate's
    first row. Beside it stand the constant, the video's past rate and, where its window ends before ``first``, the
    previous champion.

    Raises:
        LogError: a day has no rows, or the bundle was trained on it.
        BundleError: there is no such bundle.
    """
    registry = Registry(home)
    bundle = registry.open(config.name, version)
    scored = list(score_days(bundle, config, home, first, last, console))
    previous = _previous(registry, bundle, config, first)
    if previous is not None:
        rivals = score_days(previous, config, home, first, last, console)
        scored = [_beside(mine, rival) for mine, rival in zip(scored, rivals, strict=True)]
    batch = read_day(home, config, first)
    tables = read_tables(home, config)
    return {
        "bundle": bundle.version,
        "name": bundle.name,
        "window": bundle.manifest.window.model_dump(mode="json"),
        "seed": bundle.manifest.seed,
        "libraries": dict(bundle.manifest.libraries),
        "previous_champion": previous.version if previous else None,
        "slates": "requests" if has_requests(batch) else f"proxy: {', '.join(config.slate)}",
        "position": "session ordinal (a proxy)" if config.log.session_gap is not None else "as logged",
        "undated_tables": [which for which, table in tables.items() if not table.dated],
        **figures_of(scored, config),
    }


def score_days(bundle: Bundle, config: Config, home: Home, first: date, last: date, console: Console) -> Iterator[Scored]:
    """Score each day in turn with the bundle's weights, its features advancing over the log in between."""
    after = bundle.manifest.window.last_day + timedelta(days=1)
    if first < after:
        raise LogError(
            f"bundle {bundle.version} was trained on days up to {bundle.manifest.window.last_day}: choose later ones"
        )
    there = list_days(home, config.dataset)
    wanted = days_between(there, first, last, config.dataset)
    trained = bundle.config.model_copy(update={"evaluation": config.evaluation})
    learner = Learner.from_bundle(bundle, trained, read_tables(home, config))
    days = [day for day in there if after <= day < first] + wanted
    for day in track(days, f"Scoring with {bundle.version}", console=console, transient=True):
        batch = read_day(home, config, day)
        encoded = learner.state.encode(batch, day)
        if day >= first:
            baselines = learner.rates.baselines(encoded.video)
            yield score_day(learner.trainer, learner.state, batch, day, encoded, baselines)
        learner.take_in(day, batch, encoded)


def _previous(registry: Registry, bundle: Bundle, config: Config, first: date) -> Bundle | None:
    """The champion before this bundle, if it is there still and can be judged on days from ``first`` on."""
    pointer = registry.pointer(config.name)
    if pointer is None or pointer.version != bundle.version or pointer.previous is None:
        return None
    try:
        previous = registry.open(config.name, pointer.previous)
    except BundleError as error:
        log.warning("previous_champion_left_out", version=pointer.previous, reason=str(error))
        return None
    same = previous.config.objective_names == bundle.config.objective_names
    return previous if same and previous.manifest.window.last_day < first else None


def _beside(mine: Scored, rival: Scored) -> Scored:
    return replace(
        mine,
        baselines={**mine.baselines, CHAMPION: rival.predictions},
        slate_baselines={**mine.slate_baselines, CHAMPION: rival.slate_predictions},
    )
