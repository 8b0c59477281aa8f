"""What a night has to do: on which days to learn, from where, and on which day to judge."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from data.config import Config
from data.errors import ConfigError
from data.home import Home
from models.bundle import Bundle
from models.registry import Registry
from training.nights import NightRecord, Nights
from training.plan import Plan, can_go_on, digest, plan_days, trained


@dataclass(frozen=True)
class Night:
    """What is to be done: the warm start (of a first bundle: the start from nothing), the full retrain that competes with
    it, and the day to judge them on."""

    day: date
    before: tuple[date, ...]  # good days since the champion's window, which features take in
    warm: Plan | None
    full: Plan | None
    key: str

    @property
    def plans(self) -> list[Plan]:
        return [plan for plan in (self.warm, self.full) if plan is not None]

    @property
    def record(self) -> NightRecord:
        runs = tuple(plan.key for plan in self.plans)
        return NightRecord(self.key, self.day, self.full is not None, None, None, self.plans[0].days, runs)


def trained_champion(config: Config, registry: Registry) -> Bundle | None:
    """The champion as it was trained.

    Raises:
        ConfigError: it predicts other objectives, so that nothing can be compared with it.
    """
    if registry.champion(config.name) is None:
        return None
    bundle = trained(registry, registry.open(config.name))
    if bundle.config.objective_names != config.objective_names:
        raise ConfigError(
            f"champion {bundle.version} predicts {', '.join(bundle.config.objective_names)}, the configuration asks for "
            f"{', '.join(config.objective_names)}: they can't be compared. `watchnext train --fresh` replaces it unjudged"
        )
    return bundle


def plan_night(
    config: Config, home: Home, champion: Bundle | None, good: Sequence[date], full: bool, nights: Nights
) -> Night | str:
    """What to do tonight, or why there is nothing."""
    if len(good) < 2:
        return (
            f"{len(good)} good day{'' if len(good) == 1 else 's'}: one to learn from and a later one to judge on are needed"
        )
    last = None if champion is None else champion.manifest.window.last_day
    day = good[-1]
    before = tuple(d for d in good[:-1] if last is None or d > last)
    if last is not None and day <= last:
        return f"no good day after {last}, the last that champion {champion.version if champion else ''} was trained on"
    warm = fresh = None
    if champion is not None and can_go_on(champion, config):
        if before:
            warm = plan_days(config, home, before, champion, judged=day)
        if full or (before and _full_is_due(config, nights, day)):
            fresh = plan_days(config, home, good[:-1][-config.retrain.full_days :], None, judged=day)
    else:
        warm = plan_days(config, home, good[:-1][-config.retrain.full_days :], None, judged=day)
    if warm is None and fresh is None:
        return f"nothing between {last} and {day}: {day} is learnt from when there is a later day to judge on"
    keys = [champion.version if champion else None, str(day), digest(home, config, day)]
    keys += [plan.key if plan else None for plan in (warm, fresh)]
    return Night(day, before, warm, fresh, hashlib.sha256(json.dumps(keys).encode()).hexdigest()[:16])


def _full_is_due(config: Config, nights: Nights, day: date) -> bool:
    """Whether ``full_every`` days have passed since a full retrain competed last, or since the first night."""
    earlier = [night for night in nights.all() if night.promoted is not None and night.day < day]
    if config.retrain.full_every is None or not earlier:
        return False
    since = max((night.day for night in earlier if night.full), default=earlier[0].day)
    return (day - since).days >= config.retrain.full_every
