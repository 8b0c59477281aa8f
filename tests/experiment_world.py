"""A small experiment as the service leaves it in the database: requests, slates and events of users with habits."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from data.config import Config, parse_config
from data.database import database_url, open_database, writing
from data.days import parse_day
from data.experiments import Arm, Experiment, arm_of
from data.feedback.schema import events, served, served_items
from data.home import Home
from training.experiment_load import Source

HOUR = 3_600_000
DAY = 24 * HOUR
START = 1_793_491_200_000  # 2026-11-01 00:00 UTC
SLATE = 3

CONFIG = {
    "name": "feed",
    "dataset": "feed",
    "seed": 1,
    "log": {},
    "labels": {
        "click": {"type": "binary"},
        "watch_time": {"type": "number"},
        "like": {"type": "binary"},
        "dismiss": {"type": "binary"},
    },
    "features": [{"kind": "category", "name": "video", "column": "video_id"}],
    "objectives": [
        {"name": name, "family": "engagement", "label": name, "kind": "binary", "absent": 0, "window": 7200.0}
        for name in ("click", "like", "dismiss")
    ]
    + [
        {
            "name": "watch_time",
            "family": "engagement",
            "label": "watch_time",
            "kind": "regression",
            "given": "click",
            "window": 7200.0,
        }
    ],
}


def feed_config() -> Config:
    return parse_config(CONFIG, "test")


def experiment(shares: tuple[float, ...] = (0.5, 0.5), days: int = 4, history_days: int = 3) -> Experiment:
    arms = [Arm(name=f"arm_{i}" if i else "control", share=share, control=i == 0) for i, share in enumerate(shares)]
    return Experiment(
        name="trial",
        serves="feed",
        salt="trial-1",
        start="2026-11-01",
        end=f"2026-11-{days:02d}",
        arms=tuple(arms),
        history_days=history_days,
    )


@dataclass
class World:
    """Rows as they were written: ``rows`` (user, day, view, click, watch seconds) for sums by hand."""

    config: Config
    home: Home
    engine: sa.Engine
    rows: list[tuple[str, int, int, int, float]]

    def source(self, as_of: int = START + 365 * DAY) -> Source:
        return Source(self.config, self.home, self.engine, as_of)


def make_world(
    root: Path,
    of: Experiment,
    users: int = 300,
    days: int = 4,
    lift: float = 1.0,
    annoyed: float = 0.0,
    first: int = 0,
    arm_names: Callable[[str, int], tuple[str | None, str | None]] | None = None,
) -> World:
    """Users 0, 1, ... come on most of the days ``first..days - 1`` (0 is the experiment's first) at 10:00 for one slate
    of three; of treated users every watch is ``lift`` times as long, and what they see is dismissed more often by
    ``annoyed``; 0: nobody ever dismisses."""
    home = Home(root)
    root.mkdir(parents=True, exist_ok=True)
    engine = open_database(database_url(home))
    rng = np.random.default_rng(1)
    habit = np.exp(rng.normal(0, 0.7, users))
    requests: list[dict[str, Any]] = []
    items: list[dict[str, Any]] = []
    happened: list[dict[str, Any]] = []
    rows: list[tuple[str, int, int, int, float]] = []
    for day in range(first, days):
        for i in np.flatnonzero(rng.random(users) < 0.8).tolist():
            user, request_id, time = f"u{i}", f"u{i}/{day}", START + day * DAY + 10 * HOUR
            treatment = arm_of([of], user, time, "UTC")
            names = (treatment.experiment, treatment.arm) if arm_names is None else arm_names(user, day)
            requests.append(_request(request_id, user, time, *names))
            for place in range(SLATE):
                video = f"v{place}"
                items.append({"request_id": request_id, "position": place, "video_id": video})
                viewed, clicked = rng.random() < 0.7, rng.random() < 0.4
                clicked &= viewed
                treated = day >= 0 and (names[1] or "control") != "control"
                longer = lift if treated else 1.0
                watched = float(round(clicked * 10 * habit[i] * rng.gamma(2.0) * longer, 3))
                for kind, yes, value in (("view", viewed, None), ("click", clicked, None), ("watch_time", clicked, watched)):
                    if yes:
                        happened.append(_event(request_id, video, kind, value, time + 60_000))
                if annoyed and viewed and rng.random() < 0.05 + annoyed * treated:
                    happened.append(_event(request_id, video, "dismiss", None, time + 90_000))
                rows.append((user, day, int(viewed), int(clicked), watched))
    with writing(engine) as connection:
        for table, values in ((served, requests), (served_items, items), (events, happened)):
            connection.execute(sa.insert(table), [FILL[table.name] | value for value in values])
    return World(feed_config(), home, engine, rows)


FILL: dict[str, dict[str, Any]] = {
    "served": {"name": "feed", "route": "rank", "context": "{}", "weights": "{}", "model_version": 1, "rebuildable": True},
    "served_items": {"score": 1.0, "predictions": "{}", "generators": "", "propensity": None, "is_exploration": False},
    "events": {"fate": "accepted"},
}


def _request(request_id: str, user: str, time: int, experiment: str | None, arm: str | None) -> dict[str, Any]:
    when = {"timestamp": time, "answered_at": time + 5}
    return {"request_id": request_id, "user_id": user, "experiment": experiment, "arm": arm, **when}


def _event(request_id: str, video: str, kind: str, value: float | None, time: int) -> dict[str, Any]:
    ids = {"event_id": f"{request_id}/{video}/{kind}", "request_id": request_id, "video_id": video}
    return ids | {"user_id": request_id.split("/")[0], "type": kind, "value": value, "timestamp": time, "received_at": time}


def forget_day(world: World, day: int) -> None:
    """As retention does."""
    with writing(world.engine) as connection:
        connection.execute(
            sa.delete(served).where(served.c.timestamp.between(START + day * DAY, START + (day + 1) * DAY - 1))
        )


def write_partition(world: World, day: int, rows: list[tuple[str, int, int, int, float]]) -> None:
    """A day of the log with these rows' impressions."""
    seen = [row for row in rows if row[2]]
    time = [START + day * DAY + 10 * HOUR] * len(seen)
    columns = {
        "user_id": [row[0] for row in seen],
        "video_id": ["v"] * len(seen),
        "timestamp": time,
        "visible_at": time,
        "click": [float(row[3]) for row in seen],
        "watch_time": [row[4] if row[3] else None for row in seen],
        "like": [0.0] * len(seen),
        "dismiss": [0.0] * len(seen),
    }
    date = parse_day("2026-11-01").fromordinal(parse_day("2026-11-01").toordinal() + day)
    folder = world.home.day("feed", date)
    folder.mkdir(parents=True)
    pq.write_table(pa.table(columns), folder / "rows.parquet")


def write_files(folder: Path, of: Experiment) -> tuple[Path, Path]:
    """The configuration and the experiment as files."""
    arms = "\n".join(f'[[arms]]\nname = "{a.name}"\nshare = {a.share}\ncontrol = {json.dumps(a.control)}' for a in of.arms)
    keys = "\n".join(f'{key} = "{getattr(of, key)}"' for key in ("name", "serves", "salt", "start", "end"))
    (folder / "trial.toml").write_text(f"{keys}\nhistory_days = {of.history_days}\n{arms}\n")
    (folder / "feed.toml").write_text("\n".join(f"{key} = {_toml(value)}" for key, value in CONFIG.items()) + "\n")
    return folder / "feed.toml", folder / "trial.toml"


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)
