"""Evaluate a bundle on days after its window: weights frozen, features advancing with the log."""

from collections.abc import Iterator
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
from training.days import read_tables
from training.figures import Scored, beside
from training.figures import evaluate as figures_of
from training.frozen import Frozen
from training.plan import days_between, trained
from training.waiting import open_labels

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
    scored = list(score_days(trained(registry, bundle), config, home, first, last, console))
    previous = _previous(registry, bundle, config, first)
    if previous is not None:
        rivals = score_days(previous, config, home, first, last, console)
        scored = [beside(mine, rival) for mine, rival in zip(scored, rivals, strict=True)]
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
    """Score each day in turn with the weights of a trained bundle, its features advancing over the log in between."""
    after = bundle.manifest.window.last_day + timedelta(days=1)
    if first < after:
        raise LogError(
            f"bundle {bundle.version} was trained on days up to {bundle.manifest.window.last_day}: choose later ones"
        )
    there = list_days(home, config.dataset)
    wanted = days_between(there, first, last, config.dataset)
    model, still_open = Frozen(bundle, config, home), open_labels(home, config)
    for day in track(wanted, f"Scoring with {bundle.version}", console=console, transient=True):
        yield model.score(day, [d for d in there if after <= d < day], still_open.get(day, frozenset()))


def _previous(registry: Registry, bundle: Bundle, config: Config, first: date) -> Bundle | None:
    """The champion before this bundle, if it is there still and can be judged on days from ``first`` on."""
    pointer = registry.pointer(config.name)
    if pointer is None or pointer.version != bundle.version or pointer.previous is None:
        return None
    try:
        previous = trained(registry, registry.open(config.name, pointer.previous))
    except BundleError as error:
        log.warning("previous_champion_left_out", version=pointer.previous, reason=str(error))
        return None
    same = previous.config.objective_names == bundle.config.objective_names
    return previous if same and previous.manifest.window.last_day < first else None
