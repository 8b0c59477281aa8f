"""`watchnext tune-weights`: from logged requests to the settings' figures, the front and a choice."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from data.config import Config
from data.database import database_url, open_database
from data.days import day_of, day_start
from data.errors import BundleError, ConfigError
from data.home import Home
from models.ranking import Ranking
from models.registry import Registry
from training.off_policy import LEAST_EFFECTIVE, Judge, values_of
from training.off_policy_intervals import LeftOut
from training.off_policy_log import Sampled, read_sampled
from training.off_policy_weights import Given, Slates
from training.tune_weights import Judged, choose, front, judge_all, settings, signs
from training.weights_file import write_weights

Figures = dict[str, Any]
FOREVER = 1 << 60


@dataclass(frozen=True)
class Wish:
    """What is asked for."""

    days: tuple[date, date] | None = None
    settings: int = 64
    seed: int = 1
    requests: int = 20_000
    slots: int | None = None
    depends: Given = "above"
    explore: float | None = None  # of the new order; None: as the requests were
    axes: tuple[str, str] | None = None
    choose: int | None = None
    maximise: str | None = None
    keep: Mapping[str, float] = field(default_factory=dict)


def tune(config: Config, home: Home, wish: Wish, now: int) -> tuple[Figures, Path | None]:
    """The figures, and the weights file if something was chosen.

    Raises:
        LogError: no request can be judged.
        ConfigError: an unknown objective or index, or a choice without an estimate.
    """
    axes = wish.axes or default_axes(config)
    if unknown := set(axes) - set(config.objective_names):
        raise ConfigError(f"unknown objective {min(unknown)!r}: expected one of {', '.join(config.objective_names)}")
    sampled = read(config, home, wish, now)
    ranking = present(config, home, sampled.slates)
    judge = Judge.of(sampled.slates, ranking.given, wish.depends)
    found = judge_all(judge, ranking, settings(ranking.weights, wish.settings, wish.seed), wish.explore)
    index = picked(found, ranking, wish)
    figures = figures_of(config, wish, now, sampled, ranking, found, axes, index)
    if index is None:
        return figures, None
    chosen = ranking.reweighted(dict(zip(ranking.objectives, found[index].weights.tolist(), strict=True)))
    last = day_of(sampled.last, config.timezone)
    return figures, write_weights(home, config.name, last, chosen, about(figures, figures["settings"][index]))


def default_axes(config: Config) -> tuple[str, str]:
    """The engagement and the satisfaction objective of the greatest weight; the first two where one family is missing."""
    found = []
    for family in ("engagement", "satisfaction"):
        names = [objective.name for objective in config.objectives if objective.family == family]
        found += sorted(names, key=lambda name: -abs(config.ranking.weights.get(name, 0.0)))[:1]
    found += [name for name in config.objective_names if name not in found]
    if len(found) < 2:
        raise ConfigError(f"there is nothing to trade: {config.name!r} has one objective, {found[0]}")
    return found[0], found[1]


def read(config: Config, home: Home, wish: Wish, now: int) -> Sampled:
    since, until = 0, FOREVER
    if wish.days is not None:
        since, until = (day_start(day, config.timezone) for day in (wish.days[0], wish.days[1] + timedelta(days=1)))
    engine = open_database(database_url(home))
    try:
        return read_sampled(engine, config, since, until, now, wish.requests, wish.slots)
    finally:
        engine.dispose()


def present(config: Config, home: Home, slates: Slates) -> Ranking:
    """The configuration's ranking. Reference means that it doesn't pin are the champion's; without one, those of the
    logged predictions."""
    try:
        means = dict(Registry(home).open(config.name).manifest.reference_means)
    except BundleError:
        plain = [None] * len(config.objectives)
        values = values_of(slates, plain)[np.isfinite(slates.keys)].mean(axis=0)
        means = dict(zip(config.objective_names, values.tolist(), strict=True))
    return Ranking.of(config.ranking, config.objectives, means)


def picked(found: Sequence[Judged], ranking: Ranking, wish: Wish) -> int | None:
    """What is chosen: by its number, by the rule, or nothing."""
    if wish.choose is not None:
        if not 0 <= wish.choose < len(found):
            raise ConfigError(f"--choose: expected a setting from 0 to {len(found) - 1}, got {wish.choose}")
        return wish.choose
    return None if wish.maximise is None else choose(found, ranking, wish.maximise, wish.keep)


def figures_of(
    config: Config,
    wish: Wish,
    now: int,
    sampled: Sampled,
    ranking: Ranking,
    found: Sequence[Judged],
    axes: tuple[str, str],
    index: int | None,
) -> Figures:
    """All that the page shows, as JSON."""
    slates, sign = sampled.slates, signs(ranking)
    place = [ranking.objectives.index(name) for name in axes]
    unbeaten = front(np.array([one.estimate.foreseen[place] * sign[place] for one in found]))
    return {
        "name": config.name,
        "as_of": now,
        "days": [day_of(time, config.timezone).isoformat() for time in (sampled.first, sampled.last)],
        "requests": len(slates.user),
        "users": int(slates.user.max(initial=-1) + 1),
        "sampled": sampled.sampled,
        "left_out": dict(sampled.left_out),
        "slots": slates.shown.shape[1],
        "cut": sampled.cut,
        "candidates": float(np.median(slates.eligible)),
        "explored": float(slates.share.mean()),
        "depends": wish.depends,
        "explore": wish.explore,
        "seed": wish.seed,
        "least": LEAST_EFFECTIVE,
        "combine": ranking.combine,
        "objectives": [
            {"name": o.name, "family": o.family, "kind": o.kind, "better": float(s)}
            for o, s in zip(config.objectives, sign, strict=True)
        ],
        "axes": list(axes),
        "settings": [_setting(one, found[0], ranking, bool(on)) for one, on in zip(found, unbeaten, strict=True)],
        "chosen": index,
        "rule": rule(wish) if index is not None else None,
    }


def rule(wish: Wish) -> str:
    if wish.choose is not None:
        return f"by hand, of {wish.settings} settings with seed {wish.seed}"
    kept = "".join(f", {name} kept within {margin:+.2%}" for name, margin in wish.keep.items())
    return f"the most {wish.maximise} by the lower end of its change{kept}; {wish.settings} settings, seed {wish.seed}"


def _setting(one: Judged, current: Judged, ranking: Ranking, unbeaten: bool) -> Figures:
    estimate, evidence = one.estimate, one.estimate.evidence
    objectives = {}
    for k, name in enumerate(ranking.objectives):
        base, value = float(current.estimate.foreseen[k]), float(estimate.foreseen[k])
        objectives[name] = {
            "foreseen": value,
            "foreseen_change": value / base - 1 if base > 0 else None,
            **_named("dr", estimate.dr, k),
            **_named("snips", estimate.snips, k),
            **_named("change", one.change, k),
        }
    return {
        "index": one.index,
        "weights": dict(zip(ranking.objectives, one.weights.tolist(), strict=True)),
        "front": unbeaten,
        "effective": evidence.least,
        "effective_by_slot": evidence.effective.tolist(),
        "effective_users": evidence.least_users,
        "mean_weight": float(evidence.mean_weight[-1]),
        "clipped": float(evidence.clipped.max()),
        "cut": float(evidence.cut.max()),
        "reason": estimate.reason,
        "objectives": objectives,
    }


def _named(name: str, found: LeftOut | None, k: int) -> Figures:
    if found is None or not np.isfinite(found.value[k]):
        return {name: None, f"{name}_interval": None}
    return {name: float(found.value[k]), f"{name}_interval": found.interval[:, k].tolist()}


def about(figures: Figures, setting: Figures) -> Figures:
    """What the weights file tells of where they come from."""
    kept = ("days", "requests", "users", "slots", "depends", "explore", "seed", "rule")
    evidence = {key: setting[key] for key in ("index", "effective", "effective_users", "clipped", "cut", "reason")}
    estimates = {
        name: {key: value for key, value in values.items() if value is not None}
        for name, values in setting["objectives"].items()
    }
    return {**{key: figures[key] for key in kept}, **evidence, "estimates": estimates}
