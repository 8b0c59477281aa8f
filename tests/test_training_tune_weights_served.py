"""From requests that the real service answered and logged to the page and a weights file."""

import json
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from data.config import Config
from data.errors import ConfigError, LogError
from data.home import Home
from data.weights import read_weights
from service.events_api import MAX_EVENTS
from tests.service_fakes import NOW, client_of, encoder, serving
from tests.small_log import small_config
from training.off_policy_log import BROKEN, NO_CHOICE, OPEN, UNEXPLAINED, read_sampled
from training.tune_weights_page import table, write_page
from training.tune_weights_run import Wish, tune

CONFIG = small_config(
    ranking={"combine": "weighted_sum", "weights": {"click": 1.0, "like": 0.5}, "reference_means": {"watch": 2.0}},
    exploration={"share": 0.5, "sample": 1.0},
)
REQUESTS, USERS, SLOTS = 300, 75, 2
LATER = NOW + 2 * 86_400_000


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A home with a served log, and what was clicked and watched in it; some requests did not explore."""
    home = tmp_path_factory.mktemp("served")
    known, rng = encoder().video_ids[:6], np.random.default_rng(1)
    events: list[dict[str, Any]] = []
    sums = {"click": 0.0, "watch": 0.0}
    with client_of(replace(serving(), config=CONFIG), home=str(home)) as client:
        for number in range(REQUESTS + 20):
            body = {"user_id": f"p{number % USERS}", "candidates": known, "limit": SLOTS, "explore": number < REQUESTS}
            answer = client.post("/v1/rank", json=body).json()
            for item in answer["items"]:
                place = known.index(item["video_id"])
                if rng.random() < 0.2 + 0.1 * place:
                    for kind, value in (("click", 1.0), ("watch", 5.0 * (1 + place))):
                        item_of = {"request_id": answer["request_id"], "video_id": item["video_id"]}
                        events.append({"event_id": f"e{len(events)}", "type": kind, "value": value, **item_of})
                        sums[kind] += value if number < REQUESTS else 0.0
        for start in range(0, len(events), MAX_EVENTS):
            assert client.post("/v1/events", json={"events": events[start : start + MAX_EVENTS]}).status_code == 202
    return home, sums


def tuned(home: Path, wish: Wish, config: Config = CONFIG, now: int = LATER) -> Any:
    return tune(config, Home(home), wish, now)


def test_the_present_weights_are_worth_what_was_seen(log: tuple[Path, dict[str, Any]]) -> None:
    home, sums = log
    figures, path = tuned(home, Wish(settings=12))
    assert path is None
    assert (figures["requests"], figures["users"], figures["slots"], figures["sampled"]) == (REQUESTS, USERS, SLOTS, 320)
    assert figures["left_out"] == {NO_CHOICE: 20}
    assert figures["explored"] == pytest.approx(0.5)
    assert figures["axes"] == ["click", "like"]
    present = figures["settings"][0]
    assert present["effective"] == pytest.approx(REQUESTS)
    for name, total in sums.items():
        assert present["objectives"][name]["snips"] == pytest.approx(total / REQUESTS)
        low, high = present["objectives"][name]["dr_interval"]
        assert low < total / REQUESTS < high
        assert present["objectives"][name]["change_interval"] == [0, 0]
    reasons = [one["reason"] for one in figures["settings"]]
    assert None in reasons
    assert any(reason is not None and "effective samples, fewer than 200" in reason for reason in reasons)
    json.dumps(figures, allow_nan=False)


def test_a_choice_becomes_the_next_version(log: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    home, _ = log
    figures, first = tuned(home, Wish(settings=12, choose=3))
    _, second = tuned(home, Wish(settings=12, maximise="click", keep={"like": -0.5}))
    assert int(second.stem) == int(first.stem) + 1
    written = read_weights(first)
    assert written["weights"] == figures["settings"][3]["weights"]
    assert written["reference_means"]["watch"] == 2.0  # pinned; the others as the predictions had them
    assert written["reference_means"]["like"] == pytest.approx(0.25)
    write_page(figures, tmp_path / "x.html", tmp_path / "x.json")
    assert "by hand, of 12 settings with seed 1" in (tmp_path / "x.html").read_text()
    Console(quiet=True).print(table(figures))
    with pytest.raises(ConfigError, match="--choose: expected a setting from 0 to 11, got 12"):
        tuned(home, Wish(settings=12, choose=12))


def test_fewer_requests_and_slots_if_asked(log: tuple[Path, dict[str, Any]]) -> None:
    figures, _ = tuned(log[0], Wish(settings=2, requests=100, slots=1))
    assert figures["left_out"]["beyond the number asked for"] == 240
    assert (figures["slots"], figures["cut"]) == (1, figures["requests"])
    assert figures["settings"][0]["reason"] == f"{figures['requests']} effective samples, fewer than 200"


def test_what_cannot_be_judged_is_left_out_and_counted(log: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    with pytest.raises(LogError, match=f"no request of 'small' can be judged: .* got 320 with {OPEN}"):
        tuned(log[0], Wish(settings=2), now=NOW + 3_600_000)
    with pytest.raises(LogError, match="got none was sampled"):
        tuned(tmp_path, Wish(settings=2))
    copy, engine = tmp_path / "watchnext.db", sqlite3.connect(log[0] / "watchnext.db")
    with sqlite3.connect(copy) as target:
        engine.backup(target)
        ids = [row[0] for row in target.execute("select request_id from served order by timestamp, request_id")]
        explored = [
            r
            for r in ids
            if target.execute("select min(propensity) from served_items where request_id = ?", (r,)).fetchone()[0] < 1
        ]
        target.execute("update served_items set propensity = 0.5 where request_id = ? and position = 1", (explored[0],))
        target.execute("update served set candidates = ? where request_id = ?", (b"{}", explored[1]))
        target.execute("update served_items set video_id = 'gone' where request_id = ? and position = 0", (explored[2],))
    from data.database import database_url, open_database

    found = read_sampled(open_database(database_url(Home(tmp_path), {})), CONFIG, 0, 1 << 60, LATER, 10_000)
    assert found.left_out == {NO_CHOICE: 20, UNEXPLAINED: 1, BROKEN: 2}
    assert len(found.slates.user) == REQUESTS - 3
