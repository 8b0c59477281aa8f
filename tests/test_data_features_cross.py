"""Cross features of a request's candidates, prepared for a bundle, are what the general code says feature by feature."""

from datetime import date
from typing import Any

import numpy as np
import pytest

from data.columns import Batch, StringLists, Strings
from data.features import cross
from data.features.cross import StretchRate, TableRate
from data.features.history import history_batch
from data.features.request import RequestEncoder
from data.features.spec import encode_sides
from data.features.tables import EntityTable
from data.features.view import View
from tests.small_log import small_config, small_days, small_tables, state_before
from tests.test_data_features_single import items


def rate(name: str, *keys: str, **more: Any) -> dict[str, Any]:
    return {"kind": "rate", "name": name, "keys": list(keys), "labels": ["watch", "click"], **more}


FEATURES = [
    rate("user_tag", "user_id", "tags", until="moment"),
    rate("user_tag_day", "user_id", "tags", strength=3.0),
    rate("user_author", "user_id", "author", until="moment"),
    rate("author_user", "author", "user_id"),
    rate("video_tab", "video_id", "tab"),
    rate("tab_video", "tab", "video_id"),
    rate("tab_tag", "tab", "tags"),
    rate("tag_tab", "tags", "tab"),
    rate("city_author", "city", "author"),
    {"kind": "crossed", "name": "city_of_author", "columns": ["city", "author"], "dim": 2},
]
CONFIG, DAYS, TABLES = small_config(features=FEATURES), small_days(), small_tables()
TABLED = {"video_tab", "tab_video", "city_author"}


@pytest.mark.parametrize("laid", [False, True])
@pytest.mark.parametrize("history", ["stored", "later", "replaced"])
@pytest.mark.parametrize("room", [cross.TABLE_BYTES, 0])
def test_the_same_as_feature_by_feature(history: str, laid: bool, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all videos, unknown and laid over ones too, at times before and after some of their rows begin; with tables and
    without."""
    monkeypatch.setattr(cross, "TABLE_BYTES", room)
    encoder = RequestEncoder(state_before(CONFIG, DAYS, TABLES, date(2024, 3, 3)))
    if laid:
        encoder = encoder.with_videos(later_rows(encoder.state.boundary))
    rng, rows = np.random.default_rng(6), np.arange(-1, len(encoder._candidates))
    moved = np.zeros(encoder.state.layout.sides["cross"].float_width, bool)
    for number in range(16):
        time = encoder.state.boundary + int(rng.integers(0, 2 * 86_400_000))
        batch = None if history == "stored" else history_batch(CONFIG, f"u{number}", items(rng, time))
        tab = ["0", "1", "new", None][number % 4]
        found = encoder.request(f"u{number}", {"tab": tab}, time, batch, history == "replaced")
        rng.shuffle(rows)
        plain = View(
            encoder._candidate_columns(found._moment.queries.batch, np.where(rows < 0, len(encoder.video_ids), rows)),
            *(np.full(len(rows), time), encoder.state.tables, found._moment.queries.numberings),
        )
        cutoff = encoder.state.day_starts(plain.time)
        expected = encode_sides(found._knowledge, plain, cutoff, found._moment.entries.past, ["cross"])["cross"]
        block = encoder.cross(found, rows)
        moved |= block.floats.std(axis=0) > 0
        np.testing.assert_array_equal(block.ints, expected.ints)
        np.testing.assert_array_equal(block.floats, expected.floats)
    assert moved.all()


def test_which_are_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    state = state_before(CONFIG, DAYS, TABLES, date(2024, 3, 3))
    stretches = {"user_tag", "user_tag_day", "user_author", "tab_tag"}
    kinds = {name: type(rate) for name, rate in RequestEncoder(state)._cross._prepared.items()}
    assert kinds == dict.fromkeys(stretches, StretchRate) | dict.fromkeys(TABLED, TableRate)
    monkeypatch.setattr(cross, "TABLE_BYTES", 0)
    assert RequestEncoder(state)._cross._prepared.keys() == stretches | {"tab_video", "city_author"}


def test_a_list_of_the_requests_is_left_to_the_general_code() -> None:
    """With later entries too, whose columns are lists as the request's is, of whatever length."""
    context = {"tab": {"type": "category"}, "moods": {"type": "categories"}}
    config = small_config(
        log={"visible_after": "watch", "context": context}, features=[rate("mood_author", "moods", "author")]
    )
    moods = StringLists.of([["a", "b"][: n % 3] for n in range(5_000)])
    days = {day: Batch({**b.columns, "moods": moods.take(np.arange(len(b)))}) for day, b in DAYS.items()}
    encoder = RequestEncoder(state_before(config, days, TABLES, date.max))
    rows = np.arange(len(encoder.video_ids))
    one, both = (
        encoder.cross(encoder.request("u1", {"moods": m}, encoder.state.boundary + 5), rows) for m in (["a"], ["a", "b"])
    )
    assert (one.floats != both.floats).any()
    time = encoder.state.boundary + 30 * 3_600_000
    told = [{**item, "context": {"moods": ["a"]}} for item in items(np.random.default_rng(2), time - 8 * 3_600_000)]
    later = encoder.cross(encoder.request("u1", {"moods": ["a"]}, time, history_batch(config, "u1", told)), rows)
    assert (later.floats != one.floats).any()


def later_rows(boundary: int) -> EntityTable:
    columns = {
        "video_id": Strings.of(["v1", "v2", "new", "new"]),
        "valid_from": np.array([boundary, boundary + 3_600_000, boundary, boundary + 30 * 3_600_000], np.int64),
        "author": Strings.of(["a1", None, "a9", "a2"]),
        "tags": StringLists.of([["t1", "t9"], [], ["t2"], ["t9", "t1"]]),
        "duration": np.array([1.0, 2.0, np.nan, 4.0]),
    }
    return EntityTable("video_id", Batch(columns))
