"""Served equals offline: features from a live profile are, to the bit, those from the exported days."""

from dataclasses import replace
from datetime import timedelta
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.columns import Batch, concatenate
from data.config import Config
from data.days import day_start
from data.features.state import FeatureState
from data.feedback import outcomes
from data.feedback.store import Feedback
from data.home import Home
from data.log import list_days, read_day
from tests.feedback_world import World, feedback_config
from tests.small_log import rows_of


def offline(world: World, config: Config, boundary: int) -> tuple[FeatureState, Batch]:
    """The state at a boundary, and all rows after it, from the days as they were exported in the end."""
    home = Home(world.home)
    days = {day: read_day(home, config, day) for day in list_days(home, config.dataset)}
    before = [day for day in days if day_start(day, config.timezone) < boundary]
    state = FeatureState.fit(config, world.tables, [(before[0], days[before[0]])])
    for day in before:
        state.advance(days[day], day_start(day + timedelta(days=1), config.timezone))
    assert state.boundary == boundary
    return state, reduce(concatenate, [batch for day, batch in days.items() if day not in before])


def differences(world: World, config: Config) -> tuple[int, int, int]:
    """Rows compared, those among them with live history, and those that differ in any user, context or cross feature."""
    compared = live = different = 0
    for boundary in sorted({answer.boundary for answer in world.answers.values()}):
        state, later = offline(world, config, boundary)
        encoded = state.encode(later, list_days(Home(world.home), config.dataset)[-1])
        for place, row in enumerate(rows_of(later)):
            answer = world.answers.get(row["request_id"])
            if answer is None or answer.boundary != boundary:
                continue
            item = answer.videos.index(row["video_id"])
            pairs = [(answer.user, 0, "user"), (answer.context, 0, "context"), (answer.cross, item, "cross")]
            same = all(
                np.array_equal(served.ints[at], encoded.blocks[side].ints[place])  # type: ignore[index]
                and np.array_equal(served.floats[at].view(np.int32), encoded.blocks[side].floats[place].view(np.int32))  # type: ignore[index]
                for served, at, side in pairs
            )
            compared, live, different = compared + 1, live + (answer.live > 0), different + (not same)
    return compared, live, different


@pytest.mark.parametrize("impression", ["view", "served"])
def test_live_features_are_those_of_the_exported_days(tmp_path: Path, impression: str) -> None:
    config = feedback_config(events={"impression": impression, "above_fold": 2})
    world = World(config, tmp_path, seed=1).run()
    compared, live, different = differences(world, config)
    assert compared > 100
    assert live > compared / 2
    assert different == 0
    statuses = {fate.status for _, _, fate in world.fates}
    assert statuses == {"accepted", "duplicate", "late"}


def _with_histories_of_their_own(self: Feedback, *of: Any) -> Any:
    return [(replace(request, rebuildable=True), piece) for request, piece in _pieces(self, *of)]


_pieces = Feedback._pieces


def _seen_when_served(config: Config, items: Any, timestamp: Any, events: Any) -> Any:
    seen = _seen_at(config, items, timestamp, events)
    return np.where(seen < outcomes.NEVER, timestamp, seen)


_seen_at = outcomes._seen_at


@pytest.mark.parametrize("plant", ["what is not exported", "seen when served", "views at any time"])
def test_a_planted_difference_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plant: str) -> None:
    config = feedback_config()
    if plant == "what is not exported":
        monkeypatch.setattr(Feedback, "_pieces", _with_histories_of_their_own)
    elif plant == "seen when served":
        monkeypatch.setattr("data.feedback.outcomes._seen_at", _seen_when_served)
    else:
        monkeypatch.setattr("data.feedback.outcomes.impression_window", lambda _: 40 * 3_600_000)
    world = World(config, tmp_path, seed=1, restarts=False).run()
    assert differences(world, config)[2] > 0
