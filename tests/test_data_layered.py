"""Videos laid over a bundle's table read as if the table had held them; counts rolled forward are those of final days."""

from datetime import date
from typing import Any

import numpy as np
import pytest

from data.columns import Batch, Column, StringLists, Strings, concatenate
from data.config import NumberFeature
from data.days import day_start
from data.features.history import history_batch
from data.features.layered import LayeredTable
from data.features.request import RequestEncoder
from data.features.state import FeatureState
from data.features.tables import EntityTable
from tests.small_log import small_config, small_days, small_tables, state_before

CONFIG, DAYS, TABLES = small_config(), small_days(), small_tables()
LAST = sorted(DAYS)[-1]
BOUNDARY = day_start(LAST, CONFIG.timezone)
VIDEOS = [  # a change of a known video, a new one, a new one with two rows, the last one still to come
    ("v1", BOUNDARY - 5, "a0", ["t1", "new topic"], 3.0),
    ("x1", BOUNDARY + 5, "a1", [], np.nan),
    ("x2", BOUNDARY - 9, "new author", ["t0"], 50.0),
    ("x2", BOUNDARY + 3_600_000, None, ["t0"], 60.0),
]


def later(dated: bool = True) -> EntityTable:
    ids, times, authors, tags, durations = zip(*VIDEOS, strict=True)
    columns: dict[str, Column] = {"video_id": Strings.of(ids)}
    if dated:
        columns["valid_from"] = np.array(times, np.int64)
    rest = {"author": Strings.of(authors), "tags": StringLists.of(tags), "duration": np.array(durations)}
    return EntityTable("video_id", Batch({**columns, **rest}))


def whole(state: FeatureState) -> dict[str, EntityTable]:
    table = later().batch
    old = state.tables["videos"].batch
    names = list(old.columns)
    merged = concatenate(old, Batch({name: table[name] for name in names}))
    return {**state.tables, "videos": EntityTable("video_id", merged)}


@pytest.fixture(scope="module")
def state() -> FeatureState:
    return state_before(CONFIG, DAYS, TABLES, LAST)


@pytest.fixture(scope="module")
def pair(state: FeatureState) -> tuple[RequestEncoder, RequestEncoder]:
    """Over the bundle's table, and of a state whose table holds all."""
    full = FeatureState(state.knowledge, whole(state), state.target_stats)
    full.recent, full.recent_user, full.seen_pairs = state.recent, state.recent_user, state.seen_pairs
    return RequestEncoder(state).with_videos(later()), RequestEncoder(full)


def values(column: Any) -> list[Any]:
    return [None if value != value else value for value in column.tolist()]


def test_it_reads_as_one_table(state: FeatureState) -> None:
    layered, full = LayeredTable(state.tables["videos"], later()), whole(state)["videos"]
    ids = Strings.of(name for name in ("v0", "v1", "v24", "x1", "x2", "nothing") for _ in range(4))
    time = np.array([0, BOUNDARY - 7, BOUNDARY + 6, BOUNDARY + 10**9] * 6, np.int64)
    for name in ("author", "tags", "duration"):
        one, other = (table.column(name, table.rows_at(ids, time)) for table in (layered, full))
        assert values(one) == values(other)
    assert (layered.rows_at(ids, time) >= 0).tolist() == (full.rows_at(ids, time) >= 0).tolist()


def test_of_an_undated_table_the_upper_row_holds_always() -> None:
    below = EntityTable("video_id", Batch({"video_id": Strings.of(["v1", "v2"]), "author": Strings.of(["a", "b"])}))
    above = EntityTable("video_id", Batch({"video_id": Strings.of(["v2", "v3"]), "author": Strings.of(["c", "d"])}))
    layered = LayeredTable(below, above)
    rows = layered.rows_at(Strings.of(["v1", "v2", "v3", "v4"]), np.array([5, 0, 1, 1]))
    assert layered.column("author", rows).tolist() == ["a", "c", "d", None]  # type: ignore[union-attr]


def test_rows_of_the_catalogue(pair: tuple[RequestEncoder, RequestEncoder]) -> None:
    over, full = pair
    known = len(over.video_ids)
    assert [over.video_row(video) for video in ("v1", "x1", "x2", "no")] == [known + 1, known + 2, known + 3, -1]
    assert over.index_row("v1") == full.index_row("v1") < known  # the generators know it by its old row
    assert over.index_row("x1") == known + 2
    assert [over.video_id(row) for row in (known + 1, known + 2, over.index_row("v1"))] == ["v1", "x1", "v1"]
    assert over.valid_from[over.video_row("x2")] == BOUNDARY - 9
    assert over.valid_from[over.video_row("v1")] == full.valid_from[full.video_row("v1")]


def test_features_are_those_of_the_whole_table(pair: tuple[RequestEncoder, RequestEncoder]) -> None:
    over, full = pair
    live, catalogue = over.live_catalogue(), full.catalogue()
    first = len(over.video_ids) + 1
    for video in ("x1", "v1"):
        ours, theirs = over.video_row(video) - first, full.video_row(video)
        assert live.ints[ours].tolist() == catalogue.ints[theirs].tolist()
        assert live.floats[ours].tolist() == catalogue.floats[theirs].tolist()
    ids = ["v0", "v1", "x1", "x2", "never heard of"]
    past = {"video_id": "x2", "timestamp": BOUNDARY + 100, "outcomes": {"click": 1, "watch": 9.0, "like": 1}}
    history = history_batch(CONFIG, "u1", [past])
    for context in ({"tab": "1"}, {}):
        one, other = (e.request("u1", context, BOUNDARY + 60_000, history) for e in pair)
        for a, b in ((one.user, other.user), (one.context, other.context)):
            np.testing.assert_array_equal(a.ints, b.ints)
            np.testing.assert_array_equal(a.floats, b.floats)
        a, b = (e.cross(r, np.array([e.video_row(v) for v in ids], np.int64)) for e, r in ((over, one), (full, other)))
        np.testing.assert_array_equal(a.ints, b.ints)
        np.testing.assert_array_equal(a.floats, b.floats)


def test_the_bundles_own_rows_stay(state: FeatureState, pair: tuple[RequestEncoder, RequestEncoder]) -> None:
    plain = RequestEncoder(state)
    before, after = plain.catalogue(), pair[0].catalogue()
    kept = [row for row, video in enumerate(plain.video_ids) if video != "v1"] + [-1]
    np.testing.assert_array_equal(before.ints[kept], after.ints[kept])
    np.testing.assert_array_equal(before.floats[kept], after.floats[kept])


def test_counts_rolled_forward_are_those_of_the_day_taken_in() -> None:
    until = day_start(date.fromordinal(LAST.toordinal() + 1), CONFIG.timezone)
    rolled, advanced = (state_before(CONFIG, DAYS, TABLES, LAST) for _ in range(2))
    rolled.roll(DAYS[LAST], until)
    assert rolled.boundary == BOUNDARY
    advanced.advance(DAYS[LAST], until)
    one, other = RequestEncoder(rolled), RequestEncoder(advanced)
    assert one.video_ids == other.video_ids
    np.testing.assert_array_equal(one.catalogue().floats, other.catalogue().floats)
    before = RequestEncoder(state_before(CONFIG, DAYS, TABLES, LAST)).catalogue().floats
    assert not np.array_equal(before[:20], one.catalogue().floats[:20])


def test_after_a_roll_videos_are_as_they_were_then() -> None:
    state = state_before(CONFIG, DAYS, TABLES, LAST)
    state.tables = whole(state)  # v1 changes just before the boundary, x2 an hour after it
    (duration,) = (f.offset for f in state.layout.sides["video"].floats if f.feature == "duration")
    scaled = []
    for as_of in (BOUNDARY, BOUNDARY + 7_200_000):
        state.roll(DAYS[LAST], as_of)
        encoder = RequestEncoder(state)
        assert encoder.as_of == as_of
        scaled.append(encoder.catalogue().floats[encoder.video_row("x2"), duration])
    assert scaled == pytest.approx([_scaled(state, 50.0), _scaled(state, 60.0)])


def _scaled(state: FeatureState, seconds: float) -> float:
    (feature,) = (f for f in CONFIG.features if f.name == "duration")
    assert isinstance(feature, NumberFeature)
    return float(state.knowledge.scales["duration"].apply(feature, np.array([seconds]))[0, 0])


def test_a_day_taken_in_after_a_roll_counts_once() -> None:
    until = day_start(date.fromordinal(LAST.toordinal() + 1), CONFIG.timezone)
    rolled, plain = (state_before(CONFIG, DAYS, TABLES, LAST) for _ in range(2))
    rolled.roll(DAYS[LAST], until - 3_600_000 * 5)
    for state in (rolled, plain):
        state.advance(DAYS[LAST], until)
    for name, totals in plain.knowledge.totals.items():
        ours = rolled.knowledge.totals[name]
        assert ours.boundary == totals.boundary == until
        np.testing.assert_array_equal(ours.look_up(totals.keys)[0], totals.counts)
        np.testing.assert_array_equal(ours.look_up(totals.keys)[1], totals.sums)


def test_rolled_counts_are_not_taken_back() -> None:
    until = day_start(date.fromordinal(LAST.toordinal() + 1), CONFIG.timezone)
    state = state_before(CONFIG, DAYS, TABLES, LAST)
    state.roll(DAYS[LAST], until)
    counts = {name: totals.counts.sum() for name, totals in state.knowledge.totals.items()}
    state.roll(DAYS[LAST], until - 1000)
    state.roll(DAYS[LAST], until)
    assert {name: totals.counts.sum() for name, totals in state.knowledge.totals.items()} == counts


def test_many_ids_are_looked_up_like_one(pair: tuple[RequestEncoder, RequestEncoder]) -> None:
    laid, _ = pair
    ids = ["v1", "never met", *later().ids.texts, "v3"]
    assert laid.video_rows(ids).tolist() == [laid.video_row(video) for video in ids]
    assert laid.index_rows(ids).tolist() == [laid.index_row(video) for video in ids]
    assert (laid.video_rows(ids) != laid.index_rows(ids)).any()
