"""The world: any day of its log, and the truth behind it."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.columns import Strings
from data.days import day_start, parse_day
from data.errors import ConfigError, LogError
from data.simulator.entities import DAY_MS, Floats, Ints, draw_users, draw_videos
from data.simulator.preferences import Preferences
from data.simulator.settings import DEVICES, SavedWorld, WorldConfig
from data.simulator.sittings import Rows, Slate, merge, slates_of_day

SETTINGS_FILE = "world.json"
Ids = Strings | Sequence[str] | NDArray[Any]
"""Ids as in the log (``u12``, ``v7``), or rows as integers; of devices their names, or places in DEVICES."""


class World:
    """Everything follows from settings and seed; a day can be generated without the ones before.

    >>> world = World(WorldConfig(), seed=1)
    >>> world.truth(["u0"], ["v3"], [world.start], ["phone"])["click"]
    """

    def __init__(self, settings: WorldConfig, seed: int) -> None:
        if seed < 0:
            raise ConfigError(f"expected a seed of at least 0, got {seed}")
        self.settings, self.seed = settings, seed
        self.start = day_start(parse_day(settings.first_day), "UTC")
        self.users, self.videos = draw_users(settings, seed), draw_videos(settings, seed)
        self.preferences = Preferences(settings, seed, self.start, self.users, self.videos)

    @classmethod
    def open(cls, folder: Path) -> "World":
        """The world whose log :func:`data.simulator.write.simulate` wrote into ``folder``."""
        path = folder / SETTINGS_FILE
        try:
            saved = SavedWorld.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise LogError(f"{folder} holds no simulated log: {path} is missing") from None
        except ValueError as error:
            raise LogError(f"{path} does not hold a world's settings: {error}") from None
        return cls(saved.settings, saved.seed)

    def day_name(self, index: int) -> str:
        """Day ``index`` (from 0) as YYYY-MM-DD."""
        return (parse_day(self.settings.first_day) + timedelta(days=index)).isoformat()

    def requests_on(self, index: int) -> int:
        """Requests of day ``index``: an even share of all."""
        if not 0 <= index < self.settings.days:
            raise ConfigError(f"expected a day from 0 to {self.settings.days - 1}, got {index}")
        total, days = self.settings.requests, self.settings.days
        return total * (index + 1) // days - total * index // days

    def slates(self, index: int) -> Iterator[Slate]:
        """The day's requests with all their candidates, a few thousand at a time."""
        for chunk in slates_of_day(self.preferences, index, self.requests_on(index)):
            yield from chunk

    def day(self, index: int) -> Iterator[Rows]:
        """The day's impressions, some ten thousand at a time, each part in order of time."""
        for chunk in slates_of_day(self.preferences, index, self.requests_on(index)):
            yield merge(chunk)

    def truth(
        self, user_ids: Ids, video_ids: Ids, timestamps: Sequence[int] | Ints, devices: Ids, positions: Ints | None = None
    ) -> dict[str, Floats]:
        """What each outcome's expectation is [n], with positions equal (everything is examined) unless they are given.

        ``click``, ``like``, ``follow``, ``dismiss``: probabilities per impression. ``watch_time``: expected seconds
        given a click. ``preference``: the expected share of the video that is watched, P(click) * E[watch_time | click] /
        duration, always with positions equal; what a candidate is worth to the user.
        """
        users = _rows("user", user_ids, self.settings.users)
        videos = _rows("video", video_ids, self.settings.videos)
        times = np.asarray(timestamps, np.int64)
        where = _devices(devices)
        click, satisfied = self._logits(users, videos, times, where)
        given = self.preferences.outcomes(click, satisfied, videos)
        seen = np.float32(1) if positions is None else self.preferences.examination(np.asarray(positions), where)
        clicked = given["click"]
        return {
            "click": seen * clicked,
            "watch_time": given["watch_time"],
            "like": seen * clicked * given["like"],
            "follow": seen * clicked * given["follow"],
            "dismiss": seen * (clicked * given["dismiss"] + (1 - clicked) * given["dismiss_unclicked"]),
            "preference": clicked * given["watch_time"] / self.videos.duration[videos],
        }

    def _logits(self, users: Ints, videos: Ints, times: Ints, devices: Ints) -> tuple[Floats, Floats]:
        click, satisfied = np.empty((2, len(users)), np.float32)
        days = np.floor_divide(times - self.start, DAY_MS)
        for day in np.unique(days):
            if not 0 <= day < self.settings.days:
                raise LogError(f"expected times on the days 0 to {self.settings.days - 1} of the world, got day {day}")
            on = np.flatnonzero(days == day)
            hours = times[on] % DAY_MS // 3_600_000
            tastes = self.preferences.day(int(day))
            click[on], satisfied[on] = self.preferences.logits(tastes, users[on], videos[on], devices[on], hours)
        return click, satisfied


def _rows(what: str, ids: Ids, count: int) -> Ints:
    if isinstance(ids, Strings):
        return _rows(what, list(ids.values), count)[ids.codes]
    if not (isinstance(ids, np.ndarray) and ids.dtype.kind in "iu"):
        ids = np.array([_row(what, text) for text in ids], np.int64)
    rows = np.asarray(ids, np.int64)
    if len(rows) and (rows.min() < 0 or rows.max() >= count):
        raise LogError(f"expected {what}s from 0 to {count - 1}, got {rows.min()} to {rows.max()}")
    return rows


def _row(what: str, text: str) -> int:
    if text[:1] != what[0] or not text[1:].isdecimal():
        raise LogError(f"expected a {what} of this world, such as {what[0]}12, got {text!r}")
    return int(text[1:])


def _devices(devices: Ids) -> Ints:
    if isinstance(devices, Strings):
        return _devices(list(devices.values))[devices.codes]
    if isinstance(devices, np.ndarray) and devices.dtype.kind in "iu":
        return devices.astype(np.int64)
    unknown = sorted(set(devices) - set(DEVICES))
    if unknown:
        raise LogError(f"expected devices of {', '.join(DEVICES)}, got {unknown[0]!r}")
    return np.array([DEVICES.index(device) for device in devices], np.int64)
