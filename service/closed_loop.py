"""Days and nights of a product that learns from what it serves, beside the same product trained once."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

from rich.console import Console
from rich.table import Table

from data.errors import WatchNextError
from data.home import Home
from data.simulator.entities import DAY_MS
from data.simulator.settings import WorldConfig, world_config
from data.simulator.world import World
from service.drive import SETTINGS, Judged, Popularity, Product
from service.trial import get, running_server

RETRAINED, ONCE, REFRESHED = "retrained", "trained once", "counts refreshed"
NIGHTS: Mapping[str, str | None] = {RETRAINED: "retrain", ONCE: None, REFRESHED: "refresh"}
"""Sides, and the command that each runs at night. All have live profiles and the videos that come."""
NIGHT_MS = 1_000_000
"""After midnight: what happened before has settled (the preset's windows are 900 s)."""
MEANS = ("served", "popularity", "rated", "oracle", "candidates")
LAST = 3
"""Days at the end that are summed up."""


@dataclass(frozen=True)
class Plan:
    """How large a loop is. Requests are those of a day, if all users stay willing."""

    days: int
    seed: int
    warm_up: int = 3
    requests: int = 1_000
    users: int = 300
    videos: int = 1_000

    def world(self) -> World:
        days = self.warm_up + self.days
        base = WorldConfig().model_dump()
        changes = {"rows": self.requests * base["slate"] * days, "days": days, "users": self.users, "videos": self.videos}
        more = {"authors": max(20, self.videos // 10), "new_videos": 0.3, "drift": 0.15}
        return World(world_config({**base, **changes, **more}), self.seed)


@dataclass
class Side:
    """One of the products: its files, and what came of its days."""

    name: str
    home: Home
    config: Path
    days: list[list[Judged]] = field(default_factory=list)
    nights: list[dict[str, Any]] = field(default_factory=list)
    fates: Mapping[str, int] = field(default_factory=dict)


def run_sides(
    sides: Sequence[Side],
    world: World,
    plan: Plan,
    popularity: Mapping[str, Popularity],
    command: Sequence[str],
    console: Console,
) -> None:
    """Live the days of all sides, beside each other; their homes hold a champion each. ``command`` is watchnext's. When one
    fails the others end with their day."""
    stopped = Event()
    with ThreadPoolExecutor(len(sides)) as threads:
        try:
            for done in as_completed(
                [threads.submit(live, side, world, plan, popularity[side.name], command, console, stopped) for side in sides]
            ):
                done.result()
        finally:
            stopped.set()


def live(
    side: Side,
    world: World,
    plan: Plan,
    popularity: Popularity,
    command: Sequence[str],
    console: Console,
    stopped: Event,
) -> None:
    """The days of one side, each with its night."""
    name = side.config.stem
    quiet, began = Console(quiet=True), world.start + plan.warm_up * DAY_MS
    with running_server([*command, "serve", "--name", name], side.home, quiet, SETTINGS) as address:
        product = Product(address, side.home, world, popularity, began)
        for day in range(plan.warm_up, plan.warm_up + plan.days):
            if stopped.is_set():
                return
            side.days.append(product.live(day))
            mean = _mean([judged.served for judged in side.days[-1]])
            console.print(
                f"{world.day_name(day)} {side.name}: {len(side.days[-1]):,} requests, {mean:.3f} each", highlight=False
            )
            if NIGHTS[side.name] is not None:
                side.nights.append(night(side, world.start + (day + 1) * DAY_MS + NIGHT_MS, command))
                console.print(f"{world.day_name(day)} {side.name}, night: {_told(side.nights[-1])}", highlight=False)
                product.wait_for(get(f"{address}/v1/models")["champion"])
        side.fates = dict(product.fates)


def night(side: Side, now: int, command: Sequence[str]) -> dict[str, Any]:
    """Run the night's command as a job would; what it says of itself.

    Raises:
        WatchNextError: it failed.
    """
    words = [*command, str(NIGHTS[side.name]), str(side.config), "--now", str(now)]
    environment = {**os.environ, "WATCHNEXT_HOME": str(side.home.root)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3, 5):
        raise WatchNextError(f"`{' '.join(words[-4:])}` ended with code {done.returncode}: {done.stdout}{done.stderr}")
    last = done.stdout.strip().splitlines()[-1]
    return dict(json.loads(last)) if last.startswith("{") else {"status": "refreshed", "reason": last}


def _told(facts: Mapping[str, Any]) -> str:
    learnt = f"learnt {', '.join(facts['trained'])}; " if facts.get("trained") else ""
    return f"{learnt}{facts['status']} ({facts['reason']})"


def summary(sides: Sequence[Side], world: World, plan: Plan) -> dict[str, Any]:
    """All figures of a run, for JSON: by day and side, and over the last days."""
    names = [world.day_name(plan.warm_up + place) for place in range(plan.days)]
    by_name = {side.name: side for side in sides}
    first = max(0, plan.days - LAST)
    return {
        "seed": plan.seed,
        "plan": {key: getattr(plan, key) for key in ("days", "warm_up", "requests", "users", "videos")},
        "days": names,
        "sides": {
            side.name: {
                "days": [figures(day) for day in side.days],
                "nights": side.nights,
                "events": dict(side.fates),
                "last": figures([judged for day in side.days[first:] for judged in day]),
            }
            for side in sides
        },
        "last_days": names[first:],
        "differences": {
            other: difference(by_name[RETRAINED].days[first:], by_name[other].days[first:])
            for other in by_name
            if other != RETRAINED
        },
    }


def figures(judged: Sequence[Judged]) -> dict[str, Any]:
    """Means per request, and the shares of the ways from popularity and ratings to the oracle (null where there is none)."""
    means = {name: _mean([getattr(one, name) for one in judged]) for name in MEANS}
    closed, rated = (_share_of_way(means["served"], means[low], means["oracle"]) for low in ("popularity", "rated"))
    versions = sorted({one.model_version for one in judged})
    return {"requests": len(judged), **means, "closed": closed, "closed_rated": rated, "versions": versions}


def _share_of_way(value: float, low: float, high: float) -> float | None:
    return (value - low) / (high - low) if high > low else None


def difference(ours: Sequence[Sequence[Judged]], theirs: Sequence[Sequence[Judged]]) -> dict[str, Any]:
    """The mean difference of utility over the visits that took place on both sides."""
    both = ({(one.visit.day, one.visit.number): one.served for day in days for one in day} for days in (ours, theirs))
    mine, other = both
    shared = sorted(mine.keys() & other.keys())
    return {"requests": len(shared), "utility": _mean([mine[key] - other[key] for key in shared])}


def table(result: Mapping[str, Any]) -> Table:
    """Per day what a request was worth."""
    sides = result["sides"]
    ours, once = sides[RETRAINED], sides[ONCE]
    shown = Table(title="True utility of a request's slate: videos watched, less one for each dismissal")
    for heading in (
        "day",
        "requests",
        "popularity",
        "rated",
        "served",
        "oracle",
        "closed",
        "trained once",
        "of its own gap",
        "the night after",
    ):
        shown.add_column(heading, justify="left" if heading in ("day", "the night after") else "right")
    rows = zip(result["days"], ours["days"], once["days"], ours["nights"], strict=True)
    for day, mine, other, night_after in rows:
        shown.add_row(day, *_cells(mine, other), str(night_after["status"]))
    shown.add_section()
    shown.add_row(f"last {len(result['last_days'])}", *_cells(ours["last"], once["last"]), "")
    return shown


def _cells(mine: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    values = [f"{mine[name]:.3f}" for name in ("popularity", "rated", "served", "oracle")]
    return [f"{mine['requests']:,}", *values, _share(mine["closed"]), f"{other['served']:.3f}", _share(other["closed"])]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
