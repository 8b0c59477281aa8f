"""One request's row, computed for all features at a time, is what the general code says feature by feature."""

from datetime import date
from typing import Any

import numpy as np
import pytest

from data.config import Config
from data.days import day_start
from data.features.history import history_batch
from data.features.request import RequestEncoder, RequestFeatures
from data.features.spec import encode_sides
from data.features.view import View
from tests.small_log import FIRST_DAY, small_config, small_days, small_tables, state_before

CONFIG = small_config()
DAYS, TABLES = small_days(), small_tables()


def general(encoder: RequestEncoder, found: RequestFeatures, time: int) -> dict[Any, Any]:
    state = encoder.state
    times = np.array([time], np.int64)
    queries = View(found._moment.queries.batch, times, state.tables, found._moment.queries.numberings)
    return encode_sides(found._knowledge, queries, state.day_starts(times), found._moment.entries.past, ["user", "context"])


def items(rng: np.random.Generator, until: int) -> list[dict[str, Any]]:
    return [
        {
            "video_id": f"v{rng.integers(30)}",
            "timestamp": until - int(rng.integers(0, 3 * 86_400_000)),
            "outcomes": {"watch": float(rng.integers(20)), "click": 1.0, "like": float(rng.integers(2))},
            "context": {"tab": str(rng.integers(3))},
        }
        for _ in range(int(rng.integers(0, 9)))
    ]


@pytest.mark.parametrize("boundary", [date(2024, 3, 2), date.max])
@pytest.mark.parametrize("history", ["stored", "later", "replaced"])
def test_same_as_feature_by_feature(boundary: date, history: str) -> None:
    encoder = RequestEncoder(state_before(CONFIG, DAYS, TABLES, boundary))
    rng = np.random.default_rng(5)
    for _ in range(40):
        user, time = f"u{rng.integers(30)}", encoder.state.boundary + int(rng.integers(0, 2 * 86_400_000))
        context = {"tab": [None, "0", "1", "new"][rng.integers(4)], "battery": [None, 0.3][rng.integers(2)]}
        batch = None if history == "stored" else history_batch(CONFIG, user, items(rng, time))
        found = encoder.request(user, context, time, batch, history == "replaced")
        expected = general(encoder, found, time)
        for side, block in (("user", found.user), ("context", found.context)):
            np.testing.assert_array_equal(block.ints, expected[side].ints)
            np.testing.assert_array_equal(block.floats, expected[side].floats)


def test_entries_of_the_same_time_stand_in_the_logs_order() -> None:
    encoder = RequestEncoder(state_before(CONFIG, DAYS, TABLES, date(2024, 3, 2)))
    rng, time, orders = np.random.default_rng(7), encoder.state.boundary + 5 * 3_600_000, set()
    for _ in range(20):
        told = [{**item, "timestamp": time - 3_600_000} for item in items(rng, time)]
        for item in told[::3]:
            del item["outcomes"]["click"]
        found = encoder.request("u1", {"tab": "1"}, time, history_batch(CONFIG, "u1", told), history_replaces=True)
        expected = general(encoder, found, time)
        np.testing.assert_array_equal(found.user.ints, expected["user"].ints)
        np.testing.assert_array_equal(found.user.floats, expected["user"].floats)
        orders.add(found.user.ints.tobytes())
    assert len(orders) > 10


def test_lists_as_keys_and_what_the_general_code_computes() -> None:
    """Rates by several context categories, and the features that have no short way: categories and crosses."""
    context = {"tab": {"type": "category"}, "battery": {"type": "number"}, "moods": {"type": "categories"}}
    features = [
        {"kind": "categories", "name": "moods", "column": "moods", "dim": 2, "max_values": 2},
        {"kind": "crossed", "name": "city_tab", "columns": ["city", "tab"], "dim": 2},
        {"kind": "rate", "name": "by_mood", "keys": ["moods"], "labels": ["click", "watch"]},
        {"kind": "rate", "name": "own_by_mood", "keys": ["user_id", "moods"], "labels": ["click"], "until": "moment"},
        {"kind": "rate", "name": "by_city", "keys": ["city", "moods"], "labels": ["click"]},
    ]
    config = small_config(log={"visible_after": "watch", "context": context}, features=features)
    encoder = RequestEncoder(state_with_moods(config))
    time = encoder.state.boundary + 3 * 3_600_000
    later = [
        {"video_id": "v1", "timestamp": time - 60_000 * n, "outcomes": {"click": 1.0}, "context": {"moods": moods}}
        for n, moods in enumerate([["a", "b"], ["a", "a"], [], ["new"]], 1)
    ]
    for moods in (["a"], ["a", "b", "a"], [], ["new"], None):
        found = encoder.request("u1", {"tab": "1", "moods": moods}, time, history_batch(config, "u1", later))
        expected = general(encoder, found, time)
        for side, block in (("user", found.user), ("context", found.context)):
            np.testing.assert_array_equal(block.ints, expected[side].ints)
            np.testing.assert_array_equal(block.floats, expected[side].floats)
    several = encoder.request("u1", {"moods": ["a", "b", "a"]}, time, history_batch(config, "u1", later))
    none = encoder.request("u1", {"moods": []}, time, history_batch(config, "u1", later))
    assert (several.context.floats != none.context.floats).any()


def state_with_moods(config: Config) -> Any:
    from data.columns import Batch, StringLists

    rng = np.random.default_rng(3)
    days = {
        day: Batch(
            {**batch.columns, "moods": StringLists.of([["a", "b", "c"][: rng.integers(4)] for _ in range(len(batch))])}
        )
        for day, batch in DAYS.items()
    }
    return state_before(config, days, TABLES, date.max)


OF_USERS = {
    "rows": {"kind": "category", "name": "city", "column": "city", "dim": 2},
    "lists": {"kind": "categories", "name": "likes", "column": "likes", "dim": 2, "max_values": 2},
    "buckets": {"kind": "number", "name": "ages", "column": "age", "scaling": "buckets", "buckets": 3, "dim": 2},
    "numbers": {"kind": "number", "name": "age", "column": "age", "scaling": "log"},
}


@pytest.mark.parametrize("dated", [False, True])
@pytest.mark.parametrize("kinds", [[kind] for kind in OF_USERS] + [list(OF_USERS), []])
def test_what_the_users_table_alone_decides(kinds: list[str], dated: bool) -> None:
    """Of users in the table and not, and where it is dated before and after their rows begin."""
    columns = {"city": {"type": "category"}, "age": {"type": "number"}, "likes": {"type": "categories"}}
    users = {"files": ["u"], "key": "user_id", "columns": columns} | ({"valid_from": "valid_from"} if dated else {})
    always = [{"kind": "category", "name": "user", "column": "user_id", "dim": 4}, small_history()]
    config = small_config(users=users, features=[*always, *(OF_USERS[kind] for kind in kinds)])
    encoder = RequestEncoder(state_before(config, DAYS, {**TABLES, "users": users_table(dated)}, date(2024, 3, 3)))
    blocks = set()
    for user in ("u0", "u3", "u5", "u11", "nobody"):
        for time in (encoder.state.boundary + 3_600_000, encoder.state.boundary + 30 * 3_600_000):
            found = encoder.request(user, {"tab": "1"}, time)
            expected = general(encoder, found, time)
            np.testing.assert_array_equal(found.user.ints, expected["user"].ints)
            np.testing.assert_array_equal(found.user.floats, expected["user"].floats)
            blocks.add(found.user.ints[:, 1:].tobytes() + found.user.floats.tobytes())
    assert len(blocks) > 1


def small_history() -> dict[str, Any]:
    return {"kind": "history", "name": "authors", "label": "click", "of": "author", "length": 3, "dim": 2}


def users_table(dated: bool) -> Any:
    """Of the users u0 to u10; dated, all but the first have a second row that begins a day after the boundary."""
    from data.columns import Batch, StringLists, Strings
    from data.features.tables import EntityTable

    rng = np.random.default_rng(4)
    ids = [f"u{n}" for n in range(11) for _ in range(2 if dated and n else 1)]
    begins = [
        (day_start(date(2024, 3, 4), CONFIG.timezone) if place and ids[place - 1] == u else 0) for place, u in enumerate(ids)
    ]
    columns = {
        "user_id": Strings.of(ids),
        "city": Strings.of(rng.choice(["a", "b", "new", None], len(ids)).tolist()),
        "age": np.where(rng.random(len(ids)) < 0.2, np.nan, rng.integers(15, 80, len(ids)).astype(float)),
        "likes": StringLists.of([["x", "y", "z"][: rng.integers(4)] for _ in ids]),
    }
    return EntityTable("user_id", Batch({**columns, **({"valid_from": np.array(begins, np.int64)} if dated else {})}))


def test_last_watched_are_newest_first_and_of_the_past() -> None:
    encoder = RequestEncoder(state_before(CONFIG, DAYS, TABLES, date.max))
    start = day_start(FIRST_DAY, CONFIG.timezone) + 9 * 86_400_000
    told = [{"video_id": f"v{n}", "timestamp": start + 1_000 * n, "outcomes": {"click": 1.0}} for n in range(5)]
    batch = history_batch(CONFIG, "nobody", told)
    found = encoder.request("nobody", {}, start + 33_500, batch)  # a click counts half a minute after it is visible
    assert found.watched == ("v3", "v2", "v1", "v0")
