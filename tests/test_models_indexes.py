"""models/indexes: each index's answers worked out by hand, ties, unknown rows, and exact resumption."""

import shutil
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.columns import Batch, StringLists, Strings
from data.config import Config, parse_config
from data.errors import BundleError, ConfigError
from data.features.slates import CROSSING_MS
from models.indexes import IndexBuilder, Indexes, build_indexes, pairs, positive_label
from models.indexes.co_watch import CoWatchIndex, lift, write_co_watch
from models.indexes.found import best, id_order
from models.indexes.nearest import NearestIndex, write_nearest
from models.indexes.pairs import PairCounts, Watches, day_pairs
from models.indexes.popularity import DAY_MS, Decayed, popularity
from models.indexes.topic import TopicIndex, write_topic
from models.indexes.trending import UNKNOWN_TIME, TrendingIndex, write_trending

ENGAGED = {"name": "click", "family": "engagement", "label": "click", "kind": "binary"}
WATCHED = {"name": "watch", "family": "engagement", "label": "seconds", "kind": "regression"}
LIKED = {"name": "like", "family": "satisfaction", "label": "like", "kind": "binary"}


def _config(objectives: tuple[dict[str, Any], ...] = (ENGAGED,), **generators: Any) -> Config:
    values: dict[str, Any] = {
        "name": "feed",
        "dataset": "feed",
        "seed": 7,
        "log": {},
        "videos": {"files": ["v*"], "key": "video", "columns": {"topic": {"type": "categories"}, "age": {"type": "number"}}},
        "labels": {"click": {"type": "binary"}, "like": {"type": "binary"}, "seconds": {"type": "number"}},
        "features": [{"kind": "category", "name": "user", "column": "user_id"}],
        "objectives": objectives,
        "generators": generators,
    }
    return parse_config(values, "test")


def _day(rows: list[tuple[str, str, int, float]], queries: list[str | None] | None = None) -> Batch:
    users, videos, times, clicks = zip(*rows, strict=True)
    columns: dict[str, Any] = {
        "user_id": Strings.of(users),
        "video_id": Strings.of(videos),
        "timestamp": np.array(times, np.int64),
        "click": np.array(clicks),
    }
    return Batch(columns if queries is None else {**columns, "query_video_id": Strings.of(queries)})


def _plane(*angles: float) -> np.ndarray:
    """Unit vectors at these angles (degrees)."""
    radians = np.deg2rad(angles)
    return np.stack([np.cos(radians), np.sin(radians)], 1).astype(np.float32)


# The order of answers


def test_best_breaks_ties_by_id_also_where_the_list_is_cut() -> None:
    order = id_order(["d", "b", "10", "9", "a"])
    assert order.tolist() == [4, 3, 0, 1, 2]
    found = best(np.arange(5), np.array([1.0, 2.0, 1.0, 1.0, 1.0]), 3, order)
    assert found.rows.tolist() == [1, 2, 3]
    assert found.scores.tolist() == [2, 1, 1]
    assert best(np.arange(5), np.zeros(5), 9, order).rows.tolist() == [2, 3, 4, 1, 0]
    assert best(np.arange(5), np.zeros(5), 0, order).rows.tolist() == []


# Popularity


def test_popularity_by_hand() -> None:
    scores = popularity(np.array([3.0, 0.0, 0.0]), np.array([4.0, 0.0, 100.0]))
    # r0 = 3/104; the first's rate is (3 + 20 r0) / 24 = r0 * 124/24, the last's 20 r0 / 120
    np.testing.assert_allclose(scores, [log(4) + log(124 / 24), 0, log(1 / 6)], rtol=1e-6)
    assert popularity(np.zeros(2), np.array([5.0, 0.0])).tolist() == [0, 0]


def test_counts_halve_with_the_half_life() -> None:
    counts = Decayed(1.0, np.zeros(0), np.zeros(0), 0)
    counts.add(np.array([0, 1]), np.array([True, False]), np.array([0, DAY_MS]), 2)
    assert (counts.positives.tolist(), counts.impressions.tolist()) == ([0.5, 0], [0.5, 1])
    counts.add(np.array([0, 2]), np.array([True, True]), np.array([3 * DAY_MS, 2 * DAY_MS]), 3)
    assert counts.positives.tolist() == [0.125 + 1, 0, 0.5]
    assert counts.impressions.tolist() == [0.125 + 1, 0.25, 0.5]


def test_a_day_without_positives_fades_what_was_before() -> None:
    counts = Decayed(1.0, np.array([1.0]), np.array([2.0]), 0)
    counts.add(np.array([1]), np.array([False]), np.array([DAY_MS]), 2)
    assert (counts.positives.tolist(), counts.impressions.tolist()) == ([0.5, 0], [1, 1])


# Topics


def _topic_index(
    folder: Path, topics: Strings | StringLists, rows: list[int], scores: list[float], ids: list[str]
) -> TopicIndex:
    order = id_order(ids)
    write_topic(folder, topics, np.array(rows), np.array(scores, np.float32), order)
    return TopicIndex.load(folder, order)


def test_topic_match_is_by_popularity(tmp_path: Path) -> None:
    topics = Strings.of(["sport", "news", "sport", "sport", None])
    index = _topic_index(tmp_path, topics, [0, 1, 2, 3, 4], [5, 9, 1, 3, 7], list("abcde"))
    found = index.query(0, 10)
    assert found.rows.tolist() == [3, 2]
    np.testing.assert_allclose(found.scores, np.array([3, 1]) + log(log(1 + 5 / 3)), rtol=1e-6)
    assert index.query(2, 1).rows.tolist() == [0]
    for nothing in (index.query(1, 10), index.query(4, 10), index.query(-1, 10), index.query(5, 10), index.query(0, 0)):
        assert len(nothing.rows) == len(nothing.scores) == 0


def test_sharing_more_and_rarer_topics_counts(tmp_path: Path) -> None:
    topics = StringLists.of([["all", "rare"], ["all"], ["rare"], ["all", "rare", "all"], ["all"], None])
    index = _topic_index(tmp_path, topics, [0, 1, 2, 3, 4, 5], [0] * 6, list("abcdef"))
    found = index.query(0, 10)
    common, rare = log(1 + 6 / 4), log(1 + 6 / 3)
    assert found.rows.tolist() == [3, 2, 1, 4]  # both, the rare one, the common one (tie: by id)
    np.testing.assert_allclose(found.scores, np.log([common + rare, rare, common, common]), rtol=1e-5)


def test_the_tables_last_row_of_a_video_holds(tmp_path: Path) -> None:
    index = _topic_index(tmp_path, Strings.of(["x", "y", "y", "y"]), [0, 0, 1, -1], [0, 0], ["a", "b"])
    assert index.query(1, 5).rows.tolist() == [0]
    assert index.topics.tolist() == [0, 0]


# Co-watch


def _watches(users: list[int], videos: list[int], times: list[int], queries: list[int] | None = None) -> Watches:
    columns = (users, videos, [-1] * len(users) if queries is None else queries, times)
    return Watches().then(Watches(*(np.array(column, np.int64) for column in columns)))


def _all(watches: Watches) -> tuple[np.ndarray, np.ndarray]:
    """The pairs among all of them."""
    return day_pairs(watches, np.ones(len(watches), bool))


def _pairs(keys: np.ndarray) -> list[tuple[int, int]]:
    return [(key >> 32, key & 0xFFFFFFFF) for key in keys.tolist()]


def test_pairs_of_a_day_by_hand() -> None:
    keys, counts = _all(_watches([1, 0, 0, 0, 1], [0, 0, 1, 2, 1], [5, 1, 2, 3, 6]))
    assert _pairs(keys) == [(0, 1), (0, 2), (1, 2)]  # user 0: 0 1 2, user 1: 0 1
    assert counts.tolist() == [2, 0.5, 1]


def test_pairs_need_closeness_and_count_once_per_user_at_the_least_distance() -> None:
    _, counts = _all(_watches([0] * 4, [0, 2, 1, 0], [0, 1, 2, 3]))
    assert counts.tolist() == [1, 1, 1]  # 0-2 and 0-1 at distance 1, although also at 2
    gap = pairs.GAP_MS
    assert _pairs(_all(_watches([0] * 3, [0, 1, 2], [0, gap, 2 * gap + 1]))[0]) == [(0, 1)]
    assert _pairs(_all(_watches([0] * 4, [3] * 4, [0, 1, 2, 3]))[0]) == []
    assert _pairs(_all(Watches())[0]) == []


@pytest.mark.parametrize("together", [1, 7, 60])
def test_pairs_of_some_users_at_a_time_are_those_of_all_to_the_bit(together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(together)
    watches = _watches(*random.integers(0, 12, (3, 200)), random.integers(-1, 12, 200))
    new = random.random(200) < 0.6
    expected = day_pairs(watches, new)
    monkeypatch.setattr(pairs, "TOGETHER", together)
    for found, wanted in zip(day_pairs(watches, new), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_a_query_video_pairs_with_what_was_chosen_from_it() -> None:
    keys, counts = _all(_watches([0], [1], [9], [2]))
    assert (_pairs(keys), counts.tolist()) == ([(1, 2)], [1])


def test_pair_counts_expected_and_lift_by_hand() -> None:
    counted = PairCounts()
    counted.add(_watches([0, 0, 0, 1, 1], [0, 1, 2, 0, 1], [0, 1, 2, 3, 4]), 3)
    assert counted.degrees.tolist() == [2.5, 3, 1.5]
    np.testing.assert_allclose(counted.expected(), [2.5 * 3 / 7, 2.5 * 1.5 / 7, 3 * 1.5 / 7])
    scores = lift(np.array([2, 0.5, 1]), counted.expected())
    np.testing.assert_allclose(scores, [12 / (10 + 7.5 / 7), 10.5 / (10 + 3.75 / 7), 11 / (10 + 4.5 / 7)], rtol=1e-6)


def test_equal_lifts_are_in_the_order_of_ids(tmp_path: Path) -> None:
    order = id_order(["query", "c", "a", "b"])
    zeros = np.zeros(3, np.int64)
    write_co_watch(tmp_path, zeros, np.array([1, 2, 3]), np.ones(3), np.ones(3), order)
    index = CoWatchIndex.load(tmp_path, order)
    assert index.query(0, 9).rows.tolist() == [2, 3, 1]
    assert index.query(0, 2).rows.tolist() == [2, 3]
    assert index.query(1, 9).rows.tolist() == [0]


def test_pairs_reach_over_midnight_and_no_pair_is_counted_on_two_days() -> None:
    counted, whole = (
        PairCounts(),
        _watches([0] * 8 + [1] * 2, [0, 1, 2, 3, 4, 5, 6, 7, 0, 1], [1, 2, 3, 4, 5, 6, 7, 8, 1, 2]),
    )
    counted.add(whole.take(whole.timestamps <= 6), 8)
    assert counted.tail.videos.tolist() == [1, 2, 3, 4, 5, 0, 1]  # five a user
    counted.add(Watches(), 8)
    counted.add(whole.take(whole.timestamps > 6), 8)
    keys, counts = _all(whole)
    assert counted.keys.tolist() == keys.tolist()
    np.testing.assert_allclose(counted.counts, counts, rtol=1e-6)
    counted.add(_watches([2], [0], [10 + pairs.GAP_MS]), 8)
    assert counted.tail.users.tolist() == [2]  # the others' are too old to be paired


def test_the_least_counted_pairs_go_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "MAX_PAIRS", 4)
    monkeypatch.setattr(pairs, "WINDOW", 1)
    counted = PairCounts()
    counted.add(_watches([0] * 6 + [1] * 2, [0, 1, 2, 3, 4, 5, 4, 5], list(range(8))), 6)
    assert _pairs(counted.keys) == [(0, 1), (1, 2), (4, 5)]
    assert counted.degrees.sum() == 2 * 6  # what went still counts for what chance expects


# Nearest


def _nearest(folder: Path, embeddings: np.ndarray, exact_up_to: int = 100) -> NearestIndex:
    write_nearest(folder, embeddings, exact_up_to)
    return NearestIndex.load(folder, id_order([f"{i:06}" for i in range(len(embeddings))]))


def test_nearest_to_the_weighted_mean_without_the_history(tmp_path: Path) -> None:
    index = _nearest(tmp_path, _plane(0, 90, 40, 100, 180) * np.array([[1], [5], [2], [1], [3]], np.float32))
    found = index.query(np.array([0, 1, -1, 99]), None, 2)  # their mean points to 45 degrees
    assert found.rows.tolist() == [2, 3]
    np.testing.assert_allclose(found.scores, np.cos(np.deg2rad([5, 55])), rtol=1e-5)
    weighted = index.query(np.array([0, 1]), np.array([0.0, 2.0], np.float32), 9)
    assert weighted.rows.tolist() == [3, 2, 4]
    np.testing.assert_allclose(weighted.scores, np.cos(np.deg2rad([10, 50, 90])), atol=1e-6)


@pytest.mark.parametrize("history", [[], [-1], [7], [0, 4]])
def test_nearest_to_nothing_is_nothing(tmp_path: Path, history: list[int]) -> None:
    index = _nearest(tmp_path, np.concatenate([_plane(0, 90), np.zeros((1, 2), np.float32), _plane(0, 180)]))
    found = index.query(np.array(history, np.int64), None, 3)
    assert len(found.rows) == len(found.scores) == 0


def test_the_approximate_index_finds_what_the_exact_one_finds(tmp_path: Path) -> None:
    embeddings = np.random.default_rng(1).normal(size=(2_000, 16)).astype(np.float32)
    exact, near = (_nearest(tmp_path / name, embeddings, limit) for name, limit in (("a", 2_000), ("b", 1_999)))
    assert exact.lists is None
    assert near.lists is not None
    shared = 0
    for row in range(50):
        history = np.array([row, row + 1])
        a, b = exact.query(history, None, 20), near.query(history, None, 20)
        assert len(b.rows) == 20
        assert not np.isin(b.rows, history).any()
        assert (np.diff(b.scores) <= 0).all()
        shared += len(np.intersect1d(a.rows, b.rows))
    assert shared >= 0.9 * 50 * 20


def test_lists_of_many_find_most_and_read_little(tmp_path: Path) -> None:
    """As embeddings are, of fewer dimensions than they are wide: 8 of 24, and noise."""
    random = np.random.default_rng(2)
    values = random.normal(size=(20_000, 8)) @ random.normal(size=(8, 24)) + 0.3 * random.normal(size=(20_000, 24))
    exact, near = (_nearest(tmp_path / name, values.astype(np.float32), limit) for name, limit in (("a", 20_000), ("b", 0)))
    assert near.lists is not None
    shared = 0
    for row in range(50):
        a, b = exact.query(np.array([row]), None, 100), near.query(np.array([row]), None, 100)
        assert len(b.rows) == 100
        shared += len(np.intersect1d(a.rows, b.rows))
        read, _ = near.lists.scan(near.embeddings, near.embeddings[near.lists.places[row]])
        assert len(read) < 0.4 * 20_000
    assert shared >= 0.95 * 50 * 100


def test_equal_embeddings_and_zeros_have_lists_too(tmp_path: Path) -> None:
    values = np.concatenate([np.ones((300, 3)), np.zeros((50, 3)), -np.ones((10, 3))]).astype(np.float32)
    index = _nearest(tmp_path, values, exact_up_to=0)
    found = index.query(np.array([0, 7]), None, 400)
    assert found.rows[:298].tolist() == [row for row in range(300) if row not in (0, 7)]  # ties in the order of ids
    assert len(set(found.rows.tolist())) == len(found.rows)
    one = _nearest(tmp_path / "one", values[:1], exact_up_to=0)
    assert one.query(np.array([0]), None, 5).rows.tolist() == []


@pytest.mark.parametrize("name", ["centres", "offsets", "rows", "places"])
def test_cut_off_lists_are_refused_and_those_of_other_embeddings_too(name: str, tmp_path: Path) -> None:
    embeddings = np.random.default_rng(1).normal(size=(200, 4)).astype(np.float32)
    write_nearest(tmp_path, embeddings, exact_up_to=0)
    file = tmp_path / "lists" / f"{name}.npy"
    whole = file.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(BundleError, match=rf"cannot read .*{name}.npy"):
            NearestIndex.load(tmp_path, np.arange(200, dtype=np.int32))
    write_nearest(tmp_path / "other", embeddings[:150], exact_up_to=0)
    file.write_bytes((tmp_path / "other" / "lists" / f"{name}.npy").read_bytes())
    with pytest.raises(BundleError, match="don't fit each other"):
        NearestIndex.load(tmp_path, np.arange(200, dtype=np.int32))
    file.write_bytes(whole)
    shutil.copy(tmp_path / "other" / "embeddings.npy", tmp_path)
    with pytest.raises(BundleError, match="not the lists of the 150 embeddings"):
        NearestIndex.load(tmp_path, np.arange(150, dtype=np.int32))


def test_the_same_embeddings_give_the_same_lists(tmp_path: Path) -> None:
    embeddings = np.random.default_rng(1).normal(size=(500, 4)).astype(np.float32)
    for name in ("a", "b"):
        write_nearest(tmp_path / name, embeddings, exact_up_to=0)
    assert _files(tmp_path / "a") == _files(tmp_path / "b")


def test_embeddings_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="the embedding of video row 1 is not finite"):
        write_nearest(tmp_path, np.array([[1.0], [np.nan], [np.inf]], np.float32), 10)


# Trending


def _trending(folder: Path, scores: list[float], impressions: list[int], since: list[int]) -> TrendingIndex:
    order = id_order([chr(97 + i) for i in range(len(scores))])
    write_trending(folder, np.array(scores, np.float32), np.array(impressions), np.array(since), order)
    return TrendingIndex.load(folder)


def test_trending_has_its_share_of_fresh_videos(tmp_path: Path) -> None:
    now = 100 * DAY_MS
    scores = [float(i) for i in range(10)] + [0.5, 0.25, 0.0]
    index = _trending(tmp_path, scores, [1000] * 10 + [0, 7, 101], [UNKNOWN_TIME] * 10 + [now - 2, now - 1, now])
    found = index.query(10, now)
    assert found.rows.tolist() == [9, 8, 11, 7, 6, 10, 5, 4, 3, 2]  # 11 is newer than 10; 12 has been shown too often
    assert found.scores[2] == 0.25
    assert index.query(3, now).rows.tolist() == [9, 8, 11]
    assert index.query(0, now).rows.tolist() == []


def test_fresh_is_relative_to_now(tmp_path: Path) -> None:
    now = 100 * DAY_MS
    index = _trending(tmp_path, [0.0] * 4, [0] * 4, [now + 1, now, now - 7 * DAY_MS, UNKNOWN_TIME])
    assert index.query(9, now).rows.tolist() == [1]
    assert index.query(9, now - 1).rows.tolist() == [2]
    assert index.query(9, now + 1).rows.tolist() == [0, 1]


def test_never_the_same_video_twice(tmp_path: Path) -> None:
    index = _trending(tmp_path, [3.0, 2.0, 1.0], [50, 50, 50], [1000, 1001, 1000])
    assert index.query(9, 2000).rows.tolist() == [1, 0, 2]


# The whole


VIDEO_IDS = ["b", "a", "c", "never shown", "d"]


def _days() -> list[Batch]:
    start = 20_000 * DAY_MS
    first = [("u", "a", start, 1.0), ("u", "b", start + 1, 1.0), ("v", "a", start, 1.0), ("v", "c", start + 5, 0.0)]
    second = [("u", "d", 1, 1.0), ("v", "gone", 2, 1.0), ("v", "b", 3, 1.0), ("w", "c", 4, np.nan)]
    third = [("w", "b", 1, 1.0), ("w", "d", 2, 1.0)]
    return [
        _day(first),
        _day([(u, v, start + DAY_MS + t, y) for u, v, t, y in second], [None, None, "gone", None]),
        _day([(u, v, start + 2 * DAY_MS + t, y) for u, v, t, y in third]),
    ]


def _videos() -> Batch:
    topics = StringLists.of([["x"], ["x", "y"], None, ["y"], ["y"]])
    return Batch({"video_id": Strings.of(["a", "b", "c", "elsewhere", "never shown"]), "topic": topics})


def _files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_built_from_days_by_hand(tmp_path: Path) -> None:
    build_indexes(tmp_path, _config(topic_column="topic"), _days(), _videos(), VIDEO_IDS, _plane(0, 10, 20, 30, 40))
    indexes = Indexes.load(tmp_path)
    assert indexes.topic is not None
    assert indexes.topic.query(0, 9).rows.tolist() == [1, 3]  # two videos have x, two y; a is liked, the other never shown
    co_watched = indexes.co_watch.query(0, 9)
    assert co_watched.rows.tolist() == [4, 1]
    # Half-life 14 days; b, a: u on the first day, v on the second at distance 2; b, d: u on the second, w on the third.
    one, two = 0.5 ** (1 / 14), 0.5 ** (2 / 14)
    a, b, d = two + 2 * one, two + 2.5 * one + 1, 1.5 * one + 1  # degrees; of "gone", 2 * one
    ends = a + b + d + 2 * one
    lifts = [(one + 1 + 10) / (b * d / ends + 10), (two + 0.5 * one + 10) / (a * b / ends + 10)]
    np.testing.assert_allclose(co_watched.scores, lifts, rtol=1e-6)
    assert indexes.co_watch.query(3, 9).rows.tolist() == indexes.co_watch.query(-1, 9).rows.tolist() == []
    assert indexes.nearest.query(np.array([0]), None, 2).rows.tolist() == [1, 2]
    now = 20_003 * DAY_MS
    assert set(indexes.trending.query(9, now).rows.tolist()) == {0, 1, 2, 4}
    assert indexes.trending.fresh.tolist() == [4]  # the others may have been there before the log's first day


def test_saved_and_restored_it_goes_on_as_if_never_stopped(tmp_path: Path) -> None:
    config, days = _config(topic_column="topic"), _days()
    builder = IndexBuilder(config)
    for number, day in enumerate(days):
        builder.add_day(day)
        builder.save(tmp_path / f"checkpoint{number}")
        builder = IndexBuilder.load(config, tmp_path / f"checkpoint{number}")
    builder.write(tmp_path / "resumed", VIDEO_IDS, _videos(), _plane(0, 10, 20, 30, 40))
    build_indexes(tmp_path / "whole", config, days, _videos(), VIDEO_IDS, _plane(0, 10, 20, 30, 40))
    assert _files(tmp_path / "resumed") == _files(tmp_path / "whole")


def test_nothing_depends_on_the_catalogues_order_or_on_ids_outside_it(tmp_path: Path) -> None:
    config = _config(topic_column="topic")
    build_indexes(tmp_path / "a", config, _days(), _videos(), VIDEO_IDS, _plane(0, 10, 20, 30, 40))
    build_indexes(tmp_path / "b", config, _days(), _videos(), VIDEO_IDS[::-1], _plane(40, 30, 20, 10, 0))
    one, other = Indexes.load(tmp_path / "a"), Indexes.load(tmp_path / "b")
    assert one.topic is not None
    assert other.topic is not None
    for row in range(5):
        for left, right in ((one.topic, other.topic), (one.co_watch, other.co_watch)):
            assert left.query(row, 9).rows.tolist() == [4 - r for r in right.query(4 - row, 9).rows.tolist()]
    assert one.trending.query(9, 0).rows.tolist() == [4 - r for r in other.trending.query(9, 0).rows.tolist()]


def test_without_topics_logs_or_more_than_one_video(tmp_path: Path) -> None:
    build_indexes(tmp_path / "empty", _config(), [Batch({})], None, ["only"], _plane(0))
    build_indexes(
        tmp_path / "one", _config(topic_column="topic"), [_day([("u", "only", 5, 1.0)])], None, ["only"], _plane(0)
    )
    build_indexes(tmp_path / "none", _config(), [], None, [], np.zeros((0, 2), np.float32))
    for folder, shown in (("empty", []), ("one", [0]), ("none", [])):
        indexes = Indexes.load(tmp_path / folder)
        assert indexes.topic is None
        assert indexes.trending.query(5, 10).rows.tolist() == shown
        assert len(indexes.co_watch.query(0, 5).rows) == len(indexes.nearest.query(np.array([0]), None, 5).rows) == 0


def test_valid_from_says_when_a_video_appeared(tmp_path: Path) -> None:
    now = 20_003 * DAY_MS
    valid = np.array([now - 5, now - 9, np.nan, now - 7])
    videos = Batch({"video_id": Strings.of(["c", "c", "a", "never shown"]), "valid_from": valid})
    build_indexes(tmp_path, _config(), _days(), videos, VIDEO_IDS, _plane(0, 10, 20, 30, 40))
    trending = Indexes.load(tmp_path).trending
    assert trending.fresh.tolist() == [3, 2, 4]
    assert trending.fresh_since.tolist()[:2] == [now - 7, now - 9]


def test_days_come_in_order_and_once() -> None:
    builder, (before, day, _) = IndexBuilder(_config()), _days()
    late = 20_001 * DAY_MS + CROSSING_MS + 10
    builder.add_day(day)
    builder.add_day(_day([("u", "a", late, 1.0)]))
    for again in (before, day):
        with pytest.raises(ValueError, match="before what has been taken in"):
            builder.add_day(again)


def test_a_day_may_end_after_the_next_begins_where_a_request_crosses_midnight() -> None:
    midnight = 20_000 * DAY_MS
    first = [("u", "a", midnight - 3, 1.0), ("u", "b", midnight + 5, 1.0), ("v", "b", midnight - 1, 1.0)]
    second = [("u", "c", midnight + 2, 1.0), ("v", "a", midnight + 9, 1.0)]
    builder = IndexBuilder(_config())
    builder.add_day(_day(first))
    builder.add_day(_day(second))
    assert builder.popular.as_of == midnight + 9
    assert builder.impressions.tolist() == [2, 2, 1]
    assert _pairs(builder.pairs.keys) == [(0, 1), (0, 2), (1, 2)]
    # u: a, b on the first day, not counted again when c turns out to have come between them; v: b, a.
    np.testing.assert_allclose(builder.pairs.counts, [2, 1, 1], rtol=1e-6)


def test_which_label_makes_a_watch() -> None:
    assert positive_label(_config((LIKED, WATCHED, ENGAGED))) == "click"
    assert positive_label(_config((LIKED, WATCHED))) == "like"
    assert positive_label(_config((LIKED, WATCHED), positive="watch")) == "seconds"
    with pytest.raises(ConfigError, match="unknown objective 'likes': expected one of like, watch"):
        positive_label(_config((LIKED, WATCHED), positive="likes"))


def test_a_topic_column_of_numbers_and_a_wrong_count_are_refused(tmp_path: Path) -> None:
    videos = Batch({"video_id": Strings.of(["a"]), "age": np.zeros(1)})
    with pytest.raises(ConfigError, match="'age' should be category or categories"):
        build_indexes(tmp_path, _config(topic_column="age"), [], videos, ["a"], _plane(0))
    with pytest.raises(BundleError, match="each of the 2 videos, got 1"):
        build_indexes(tmp_path, _config(), [], None, ["a", "b"], _plane(0))


def test_damage_is_refused_with_the_file_named(tmp_path: Path) -> None:
    build_indexes(tmp_path / "a", _config(topic_column="topic"), _days(), _videos(), VIDEO_IDS, _plane(0, 10, 20, 30, 40))
    for name, whole in _files(tmp_path / "a").items():
        path = tmp_path / "a" / name
        path.unlink()
        with pytest.raises(BundleError, match=path.name):
            Indexes.load(tmp_path / "a")
        path.write_bytes(whole[:-1] if path.suffix == ".npy" else b"{")
        with pytest.raises(BundleError, match=path.name):
            Indexes.load(tmp_path / "a")
        path.write_bytes(whole)
    Indexes.load(tmp_path / "a")
    np.save(tmp_path / "a" / "order.npy", np.zeros(4, np.int32))
    with pytest.raises(BundleError, match=r"about.json says 5"):
        Indexes.load(tmp_path / "a")


def test_a_checkpoint_of_another_label_is_refused(tmp_path: Path) -> None:
    IndexBuilder(_config()).save(tmp_path)
    with pytest.raises(BundleError, match="counts 'click' as a watch, the configuration 'like'"):
        IndexBuilder.load(_config((LIKED,)), tmp_path)
