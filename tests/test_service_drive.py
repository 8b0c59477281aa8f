"""The closed loop: how slates are judged, and that days and nights go round."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import watchnext
from data.database import database_url, open_database, reading
from data.feedback import schema
from data.home import Home
from data.simulator.audience import Visit
from data.simulator.settings import world_config
from data.simulator.utility import worth
from data.simulator.world import World
from service.closed_loop import ONCE, RETRAINED, Plan, difference, figures
from service.drive import Asked, Judged, Popularity, judge

VISIT = Visit(0, 3, 1, 5, 1, 1736164800000)


@pytest.fixture(scope="module")
def world() -> World:
    return World(world_config({"rows": 6_000, "days": 3, "users": 60, "videos": 150, "authors": 20}), seed=3)


def test_popularity_is_a_smoothed_click_rate() -> None:
    popularity = Popularity(3)
    popularity.add(np.array([0, 0, 0, 0, 1, 1]), np.array([0, 0, 0]), np.array([0, 0, 1]), [0.5, 0.4, -1.0])
    np.testing.assert_allclose(popularity.rates(), [(3 + 20 * 0.5) / 24, (20 * 0.5) / 22, 0.5])
    mean = (0.5 + 0.4 - 1.0) / 6
    np.testing.assert_allclose(popularity.ratings(), [(0.9 + 20 * mean) / 24, (-1.0 + 20 * mean) / 22, mean])


def test_a_slate_is_judged_beside_the_best_of_its_candidates(world: World) -> None:
    videos = np.arange(40, 60)
    fill = [np.full(20, value) for value in (VISIT.user, VISIT.timestamp, VISIT.device)]
    worths = worth(world, fill[0], videos, fill[1], fill[2])
    best = videos[np.argsort(-worths)]
    asked = [
        Asked(replace(VISIT, timestamp=world.start + VISIT.timestamp % 1000), "a", tuple(best[:10].tolist()), 1),
        Asked(replace(VISIT, timestamp=world.start + 7), "b", tuple(best[::-1][:10].tolist()), 2),
        Asked(replace(VISIT, timestamp=world.start + 7), "not sampled", (1, 2), 2),
    ]
    popular = Popularity(150)
    clicks = np.repeat(best[::-1][:10], np.arange(10, 0, -1))  # the worst are the most popular, the best earned most
    popular.add(videos, clicks, best[:10], np.arange(10, 0, -1))
    first, second = judge(world, asked, {"a": videos, "b": videos}, popular)
    assert first.served == pytest.approx(first.oracle)
    assert first.rated == second.rated == pytest.approx(first.oracle)
    assert first.candidates == 20
    assert second.served == pytest.approx(second.popularity)
    assert second.popularity < second.oracle
    assert judge(world, [], {}, popular) == []


def judged(number: int, served: float, day: int = 0) -> Judged:
    return Judged(replace(VISIT, number=number, day=day), 1, 50, served, 0.2, 0.3, 0.6)


def test_the_share_closed_is_of_the_way_from_popularity_to_the_oracle() -> None:
    found = figures([judged(0, 0.3), judged(1, 0.4)])
    assert found["closed"] == pytest.approx(0.375)
    assert found["closed_rated"] == pytest.approx(0.05 / 0.3)
    assert found["requests"] == 2
    assert figures([])["closed"] is None


def test_sides_are_compared_on_the_visits_that_both_had() -> None:
    ours = [[judged(0, 0.5), judged(1, 9.0)], [judged(0, 0.4, day=1)]]
    theirs = [[judged(0, 0.3), judged(2, 0.1)], [judged(0, 0.1, day=1)]]
    assert difference(ours, theirs) == {"requests": 2, "utility": pytest.approx(0.25)}


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("loop") / "loop"
    plan = Plan(days=3, seed=7, warm_up=2, requests=120, users=60, videos=250)
    environment = {key: value for key, value in os.environ.items() if key != "WATCHNEXT_DATABASE_URL"}
    code = (
        "import sys, watchnext; from pathlib import Path; from service.closed_loop import Plan\n"
        f"watchnext.closed_loop({plan!r}, Path(sys.argv[1]), watchnext.console)"
    )
    root = Path(watchnext.__file__).parent
    words = [sys.executable, "-c", code, str(folder)]
    done = subprocess.run(words, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, json.loads((folder / "loop.json").read_text())


@pytest.mark.slow
def test_events_become_labels(loop: tuple[Path, dict[str, Any]]) -> None:
    folder, result = loop
    home = Home(folder / "retrained")
    assert set(result["sides"][RETRAINED]["events"]) == {"accepted"}
    config = watchnext.read_config(str(home.root / "loop.toml"))
    from data.days import parse_day
    from data.log import read_day

    with reading(open_database(database_url(home, {}))) as connection:
        told = connection.execute(schema.events.select()).all()
    start = parse_day(result["days"][0])
    rows = read_day(home, config, start)
    keys = list(zip(rows.strings("request_id").tolist(), rows.strings("video_id").tolist(), strict=True))
    for label, type_ in (("click", "click"), ("like", "like"), ("dismiss", "dismiss")):
        happened = {(event.request_id, event.video_id) for event in told if event.type == type_}
        assert happened & set(keys)
        np.testing.assert_array_equal(rows.numbers(label), [float(key in happened) for key in keys])
    watched = {(event.request_id, event.video_id): event.value for event in told if event.type == "watched"}
    np.testing.assert_allclose(rows.numbers("watched"), [watched.get(key, np.nan) for key in keys])
    assert {(event.request_id, event.video_id) for event in told if event.type == "view"} >= set(keys)


@pytest.mark.slow
def test_nights_promote_or_say_why_not_and_the_next_day_is_the_champions(loop: tuple[Path, dict[str, Any]]) -> None:
    _, result = loop
    ours, once = result["sides"][RETRAINED], result["sides"][ONCE]
    assert ours["nights"][0]["status"] == "nothing"  # one day of its own: nothing yet to judge a challenger on
    for night, (day, after) in zip(ours["nights"], zip(ours["days"], [*ours["days"][1:], None], strict=True), strict=True):
        assert night["status"] in ("promoted", "kept", "nothing")
        assert night["reason"]
        assert night["status"] == "nothing" or Path(night["decision"].replace(".json", ".html")).is_file()
        if after is not None:
            assert after["versions"] == [night["champion"]] != day["versions"]
    assert ours["nights"][1]["trained"] == [result["days"][0]]
    assert ours["nights"][1]["day"] == result["days"][1]
    assert {version for day in once["days"] for version in day["versions"]} == set(once["days"][0]["versions"])
    for day in (*ours["days"], *once["days"]):
        assert day["requests"] > 60
        assert day["popularity"] < day["oracle"]
        assert day["served"] <= day["oracle"]


def test_a_database_of_the_environment_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHNEXT_DATABASE_URL", "sqlite:///elsewhere.db")
    with pytest.raises(watchnext.ConfigError, match="expected WATCHNEXT_DATABASE_URL to be unset"):
        watchnext.closed_loop(Plan(1, 1), tmp_path / "loop", Console(quiet=True))
