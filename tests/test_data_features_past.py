"""Entries by group and time, against counting them one by one; joining the recent past with a day."""

import numpy as np
import pytest

from data.columns import Batch, Strings
from data.features.asof import Timeline
from data.features.ledger import Ledger, begun
from data.features.past import SEEN, Past, join, past_batch
from data.features.view import View
from data.vocabulary import Numbering, Vocabulary
from tests.small_log import small_config, small_days

CONFIG = small_config()


@pytest.mark.parametrize("queries", [20, 2000])
@pytest.mark.parametrize("groups", [7, 100_000])
@pytest.mark.parametrize("origin", [0, 5000])
def test_places_in_a_timeline_count_the_entries(queries: int, groups: int, origin: int) -> None:
    random = np.random.default_rng(queries + groups)
    group, time = random.integers(0, groups, 600), random.integers(0, 10_000, 600)
    asked, when = random.integers(0, groups + 5, queries), random.integers(origin, 12_000, queries)
    timeline = Timeline(group, time, origin)
    np.testing.assert_array_equal(timeline.order, np.lexsort((time, group)))
    earlier = (group < asked[:, None]).sum(axis=1)
    own = group == asked[:, None]
    np.testing.assert_array_equal(timeline.start(asked), earlier)
    np.testing.assert_array_equal(timeline.before(asked, when), earlier + (own & (time < when[:, None])).sum(axis=1))
    for since in (origin, 7000):
        np.testing.assert_array_equal(timeline.start(asked, since), earlier + (own & (time < since)).sum(axis=1))


@pytest.mark.parametrize("keys", [("user_id",), ("video_id",), ("user_id", "video_id"), ("video_id", "user_id")])
@pytest.mark.parametrize("origin", [0, 6000])
def test_a_ledger_adds_what_counts_since(keys: tuple[str, ...], origin: int) -> None:
    """Also where ``since`` lies before the past's origin."""
    random = np.random.default_rng(len(keys))
    n, since = 900, 4000
    users, videos = random.integers(0, 9, n), random.integers(0, 30, n)
    time = random.integers(0, 10_000, n)
    click = np.where(random.random(n) < 0.1, np.nan, random.integers(0, 2, n).astype(float))
    columns = {"user_id": Strings.of(f"u{i}" for i in users), "video_id": Strings.of(f"v{i}" for i in videos)}
    batch = Batch({**columns, "timestamp": time, "visible_at": time, "click": click})
    numberings = {name: Numbering(Vocabulary()) for name in ("user_id", "video_id")}
    view = View(batch, time, {}, numberings)
    past = Past(view, CONFIG, origin, ({"click": 0}, {"click": 0}))
    _, asked = view.keys(keys)
    cutoff = random.integers(max(origin, since - 10), 12_000, n)
    counts, sums = np.ones((n, 1), np.int64), np.ones((n, 1), np.int64)
    Ledger.of(past, keys, ["click"], since).add(asked, cutoff, ["click"], counts, sums)
    among = (asked == asked[:, None]) & (time >= since) & (time < cutoff[:, None]) & ~np.isnan(click)
    np.testing.assert_array_equal(counts[:, 0], 1 + among.sum(axis=1))
    np.testing.assert_array_equal(sums[:, 0], 1 + 1_000_000 * (among * np.nan_to_num(click)).sum(axis=1))
    first = int(time[(time >= since) & ~np.isnan(click)].min())
    assert begun(["click"], past, since, first) == []
    assert begun(["click"], past, since, first + 1) == [["click"]]


def test_times_that_are_null_throughout_are_left_out_and_come_back_where_one_side_has_them() -> None:
    batch = next(iter(small_days().values()))
    rows = np.arange(10)
    plain = past_batch(Batch({n: c for n, c in batch.columns.items() if not n.endswith("_visible_at")}).take(rows), CONFIG)
    assert SEEN not in plain
    assert "like_visible_at" not in plain
    own = past_batch(Batch({**plain.columns, "like_visible_at": np.arange(10.0), SEEN: np.full(10, np.nan)}), CONFIG)
    assert "like_visible_at" in own
    assert SEEN not in own
    for first, second, expected in ((plain, own, [np.nan] * 10 + [*range(10)]), (own, plain, [*range(10)] + [np.nan] * 10)):
        both = join(first, second)
        np.testing.assert_array_equal(both.numbers("like_visible_at"), expected)
        assert both.strings("user_id").tolist() == 2 * plain.strings("user_id").tolist()
    assert join(Batch({}), own) is own
    assert "like_visible_at" not in join(plain, plain)
    assert len(join(plain, plain)) == 20
