"""Users who answer, the log before them, and the utility that slates are judged by."""

from itertools import permutations
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from data.simulator.audience import LAPSE, RECOVERY, TICK_MS, Audience, Visit
from data.simulator.entities import DAY_MS
from data.simulator.settings import WorldConfig, world_config
from data.simulator.utility import DISMISSAL_COST, utility, worth
from data.simulator.warm_up import looked_at, write_warm_up
from data.simulator.world import World

SMALL = {"rows": 6_000, "days": 3, "users": 60, "videos": 150, "authors": 20}


@pytest.fixture(scope="module")
def world() -> World:
    return World(world_config(SMALL), seed=3)


def test_worth_is_the_share_watched_less_a_dismissal(world: World) -> None:
    users, videos, times, devices = np.array([4, 9]), np.array([7, 30]), np.full(2, world.start + 5), np.array([0, 2])
    truth = world.truth(users, videos, times, devices)
    share = truth["click"] * truth["watch_time"] / world.videos.duration[videos]
    expected = share - DISMISSAL_COST * truth["dismiss"]
    np.testing.assert_allclose(worth(world, users, videos, times, devices), expected, rtol=1e-6)


def test_utility_weighs_by_examination_and_the_best_order_is_by_worth(world: World) -> None:
    # (1 + position) ** -(0.75 * 0.8) on a phone
    assert utility(world, [0.5, -0.25], 0) == pytest.approx(0.5 - 0.25 * 2**-0.6)
    worths = [0.1, -0.2, 0.4, 0.3]
    best = max(permutations(worths), key=lambda order: utility(world, order, 3))
    assert list(best) == sorted(worths, reverse=True)


def test_the_same_visits_come_each_time_and_a_user_asks_once_a_tick(world: World) -> None:
    ticks = Audience(world).visits(1)
    assert ticks == Audience(world).visits(1)
    visits = [visit for tick in ticks for visit in tick]
    assert 0.9 * world.requests_on(1) <= len(visits) <= world.requests_on(1)
    assert len({visit.number for visit in visits}) == len(visits)
    for place, tick in enumerate(ticks):
        assert len({visit.user for visit in tick}) == len(tick)
        assert {visit.timestamp for visit in tick} <= {world.start + DAY_MS + place * TICK_MS}
    by_sitting: dict[int, list[Visit]] = {}
    for visit in visits:
        by_sitting.setdefault(visit.sitting, []).append(visit)
    for sitting in by_sitting.values():
        assert len({visit.user for visit in sitting}) == 1
        assert set(np.diff([visit.timestamp for visit in sitting])) <= {TICK_MS}
    assert min(visit.timestamp for visit in visits) >= world.start + DAY_MS + 3_600_000


def test_who_lost_interest_stays_away_and_the_others_come_as_before(world: World) -> None:
    audience = Audience(world)
    before = {visit.number: visit for tick in audience.visits(0) for visit in tick}
    audience.willingness[7] = 0.0
    after = {visit.number: visit for tick in audience.visits(0) for visit in tick}
    assert any(visit.user == 7 for visit in before.values())
    assert after == {number: visit for number, visit in before.items() if visit.user != 7}


def test_dismissals_take_willingness_and_nights_bring_it_back() -> None:
    world = World(world_config({**SMALL, "dismiss_unclicked": 20.0, "dismiss_base": 20.0}), seed=3)
    audience = Audience(world)
    reactions = audience.react(Visit(0, 5, 1, 2, 0, world.start + DAY_MS // 2), range(10))
    dismissed = [reaction for reaction in reactions if reaction.type == "dismiss"]
    assert len(dismissed) == sum(reaction.type == "view" for reaction in reactions) > 0
    left = (1 - LAPSE) ** len(dismissed)
    assert audience.willingness[2] == pytest.approx(left)
    audience.sleep()
    assert audience.willingness[2] == pytest.approx(left + RECOVERY * (1 - left))
    assert audience.willingness[3] == 1


def test_reactions_make_sense_and_are_as_likely_as_the_truth_says(world: World) -> None:
    audience, slate, time = Audience(world), np.arange(20, 30), world.start + DAY_MS // 2
    viewed, clicked = np.zeros(10), np.zeros(10)
    for number in range(3_000):
        visit = Visit(0, number, 0, 11, 0, time)
        by_place: dict[int, list[str]] = {}
        for reaction in audience.react(visit, slate):
            assert time < reaction.timestamp < time + TICK_MS
            assert (reaction.value is not None and reaction.value > 0) == (reaction.type == "watched")
            by_place.setdefault(reaction.position, []).append(reaction.type)
        for place, types in by_place.items():
            assert types[0] == "view"
            assert ("watched" in types) == ("click" in types)
            assert "click" in types or not {"like", "follow"} & set(types)
            viewed[place] += 1
            clicked[place] += "click" in types
    examined = world.preferences.examination(np.arange(10), np.zeros(10, np.int64))
    truth = world.truth(np.full(10, 11), slate, np.full(10, time), np.zeros(10, np.int64), np.arange(10))
    np.testing.assert_allclose(viewed / 3_000, examined, atol=0.03)
    np.testing.assert_allclose(clicked / 3_000, truth["click"], atol=0.03)


def test_what_was_clicked_was_looked_at_and_the_rest_as_often_as_positions_say() -> None:
    world = World(WorldConfig.of_size(60_000, days=2), seed=1)
    rows = next(world.day(0))
    seen = looked_at(world, 0, rows)
    assert seen[(rows.click > 0) | (rows.dismiss > 0)].all()
    examined = world.preferences.examination(rows.position, rows.device)
    for position in (0, 1, 4, 9):
        on = rows.position == position
        assert seen[on].mean() == pytest.approx(examined[on].mean(), abs=0.02)


def test_the_log_before_holds_what_was_seen_and_no_later_video(tmp_path: Path, world: World) -> None:
    rows = write_warm_up(tmp_path / "logs", world, 2)
    tables = [pq.read_table(path, partitioning=None) for path in sorted(tmp_path.glob("logs/log/day=*/*.parquet"))]
    assert sum(map(len, tables)) == len(rows)
    assert len(tables) == 2
    first = tables[0].to_pydict()
    for click, watched, seconds, video in zip(
        *(first[key] for key in ("click", "watched", "watch_time", "video_id")), strict=True
    ):
        assert (watched is not None) == (click == 1)
        if click:
            duration = float(world.videos.duration[int(video[1:])])
            assert watched == pytest.approx(max(seconds / duration, 0.001), abs=6e-4)
    videos = pq.read_table(tmp_path / "logs" / "videos.parquet").to_pydict()
    assert len(videos["upload"]) == (world.videos.upload < world.start + 2 * DAY_MS).sum() < world.settings.videos
