"""Features against a plain reading of their definitions, row by row."""

import math
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.features.history import history_batch
from data.features.layout import NULL, PADDING, UNSEEN
from data.features.request import RequestEncoder
from data.features.state import Encoded, FeatureState
from tests.small_log import batch_of, rows_of, small_config, small_days, small_tables, state_before

CONFIG = small_config()
DAYS = small_days()
TABLES = small_tables()
LAST = sorted(DAYS)[-1]


@pytest.fixture(scope="module")
def state() -> FeatureState:
    return state_before(CONFIG, DAYS, TABLES, LAST)


@pytest.fixture(scope="module")
def encoded(state: FeatureState) -> Encoded:
    return state.encode(DAYS[LAST], LAST)


class Plain:
    """The definitions, read naively over all rows of the log."""

    def __init__(self) -> None:
        self.rows = [row for day in sorted(DAYS) for row in rows_of(DAYS[day])]
        self.videos = rows_of(TABLES["videos"].batch)
        self.users = {row["user_id"]: row for row in rows_of(TABLES["users"].batch)}
        self.first: dict[str, int] = {}
        for row in self.rows:
            if row["request_id"]:
                self.first[row["request_id"]] = min(row["timestamp"], self.first.get(row["request_id"], 1 << 62))

    def time(self, row: dict[str, Any]) -> int:
        return self.first[row["request_id"]] if row["request_id"] else row["timestamp"]

    def video(self, row: dict[str, Any], time: int) -> dict[str, Any]:
        held = [v for v in self.videos if v["video_id"] == row["video_id"] and v["valid_from"] < time]
        return held[-1] if held else {"author": None, "tags": [], "duration": math.nan}

    def visible(self, row: dict[str, Any], label: str) -> float:
        if label == "like":
            own = row["like_visible_at"]
            return row["visible_at"] if math.isnan(own) else own
        return row["visible_at"] + 30_000

    def outcomes(self, label: str, cutoff: int, same: Any) -> list[float]:
        found = [
            (self.visible(row, label), place, row[label])
            for place, row in enumerate(self.rows)
            if not math.isnan(row[label]) and self.visible(row, label) < cutoff and same(row)
        ]
        return [value for _, _, value in sorted(found, key=lambda f: f[:2])]

    def usual(self, name: str, label: str, cutoff: int) -> float:
        """The mean count of all videos or authors; a user's counts stand for themselves."""
        key = {"video_rate": lambda o: o["video_id"], "author_rate": lambda o: self.video(o, o["timestamp"])["author"]}.get(
            name
        )
        if key is None:
            return 0.0
        labels = next(f for f in CONFIG.features if f.name == name).labels  # type: ignore[union-attr]
        met = {
            key(row)
            for row in self.rows
            for each in labels
            if not math.isnan(row[each]) and self.visible(row, each) < cutoff
        }
        return len(self.outcomes(label, cutoff, lambda o: key(o) is not None)) / len(met - {None})


def floats(encoded: Encoded, state: FeatureState, name: str, side: str) -> np.ndarray:
    for field in state.layout.sides[side].floats:
        if name in field.names:
            return encoded.blocks[side].floats[:, field.offset + field.names.index(name)]
    raise KeyError(name)


def ints(encoded: Encoded, state: FeatureState, name: str, side: str) -> np.ndarray:
    field = next(field for field in state.layout.sides[side].ints if field.feature == name)
    return encoded.blocks[side].ints[:, field.offset : field.offset + field.width]


RATES = [
    ("video_rate", "video", "like", lambda p, r, t: lambda o: o["video_id"] == r["video_id"]),
    ("video_rate", "video", "click", lambda p, r, t: lambda o: o["video_id"] == r["video_id"]),
    (
        "author_rate",
        "video",
        "click",
        lambda p, r, t: lambda o: p.video(o, p.time_of(o))["author"] == p.video(r, t)["author"] != None,  # noqa: E711
    ),
    ("user_day", "user", "click", lambda p, r, t: lambda o: o["user_id"] == r["user_id"]),
    ("user_now", "user", "like", lambda p, r, t: lambda o: o["user_id"] == r["user_id"]),
    ("user_now", "user", "click", lambda p, r, t: lambda o: o["user_id"] == r["user_id"]),
    (
        "user_tab",
        "context",
        "click",
        lambda p, r, t: lambda o: o["user_id"] == r["user_id"] and o["tab"] == r["tab"] and r["tab"] is not None,
    ),
]


@pytest.mark.parametrize(("name", "side", "label", "same"), RATES)
def test_rates_are_counts_and_smoothed_means_of_what_was_visible(
    state: FeatureState, encoded: Encoded, name: str, side: str, label: str, same: Any
) -> None:
    plain = Plain()
    plain.time_of = lambda row: row["timestamp"]  # type: ignore[attr-defined]
    until = next(f for f in CONFIG.features if f.name == name).until  # type: ignore[union-attr]
    count = floats(encoded, state, f"{name}:count:{label}", side)
    mean = floats(encoded, state, f"{name}:mean:{label}", side)
    prior = state.knowledge.priors[label]
    for i, row in enumerate(rows_of(DAYS[LAST])):
        time = plain.time(row)
        found = plain.outcomes(label, time if until == "moment" else state.boundary, same(plain, row, time))
        usual = plain.usual(name, label, state.boundary)
        assert count[i] == pytest.approx(math.log10((1 + len(found)) / (1 + usual)), abs=1e-6)
        p = (sum(found) + prior * 20) / (len(found) + 20)
        assert mean[i] == pytest.approx(math.log(p / (1 - p)) - math.log(prior / (1 - prior)), abs=1e-5)


def test_a_video_of_several_tags_adds_their_counts(state: FeatureState, encoded: Encoded) -> None:
    plain = Plain()
    count = floats(encoded, state, "user_tag:count:click", "cross")
    for i, row in enumerate(rows_of(DAYS[LAST])):
        time = plain.time(row)
        total = sum(
            len(
                plain.outcomes(
                    "click",
                    time,
                    lambda o, r=row, t=tag: o["user_id"] == r["user_id"] and t in plain.video(o, o["timestamp"])["tags"],
                )
            )
            for tag in plain.video(row, time)["tags"]
        )
        assert count[i] == pytest.approx(math.log10(1 + total), abs=1e-6)


@pytest.mark.parametrize("label", ["click", "like"])
@pytest.mark.parametrize("n", [1, 3])
def test_recent_means_are_of_the_last_visible_outcomes(state: FeatureState, encoded: Encoded, label: str, n: int) -> None:
    plain = Plain()
    mean = floats(encoded, state, f"recent:mean:{label}:{n}", "user")
    null = floats(encoded, state, f"recent:null:{label}:{n}", "user")
    for i, row in enumerate(rows_of(DAYS[LAST])):
        last = plain.outcomes(label, plain.time(row), lambda o, r=row: o["user_id"] == r["user_id"])[-n:]
        assert null[i] == (not last)
        expected = sum(last) / len(last) - state.knowledge.priors[label] if last else 0
        assert mean[i] == pytest.approx(expected, abs=1e-6)


def test_activity_counts_impressions_of_the_last_hour(state: FeatureState, encoded: Encoded) -> None:
    plain = Plain()
    since = floats(encoded, state, "activity:minutes_since", "user")
    hour = floats(encoded, state, "activity:last_1h", "user")
    for i, row in enumerate(rows_of(DAYS[LAST])):
        time = plain.time(row)
        earlier = [o["timestamp"] for o in plain.rows if o["user_id"] == row["user_id"] and o["timestamp"] < time]
        assert hour[i] == pytest.approx(math.log10(1 + sum(t >= time - 3_600_000 for t in earlier)), abs=1e-6)
        assert since[i] == pytest.approx(math.log10(1 + (time - max(earlier)) / 60_000) if earlier else 0, abs=1e-5)


def test_history_holds_the_last_watched_newest_first(state: FeatureState, encoded: Encoded) -> None:
    plain = Plain()
    history = ints(encoded, state, "watched", "user")
    vocabulary = state.knowledge.vocabularies["video_id"]
    for i, row in enumerate(rows_of(DAYS[LAST])):
        found = [
            (plain.visible(o, "watch"), place, o["video_id"])
            for place, o in enumerate(plain.rows)
            if o["user_id"] == row["user_id"] and o["watch"] > 5 and plain.visible(o, "watch") < plain.time(row)
        ]
        numbers = [vocabulary.get(video) for _, _, video in sorted(found)][::-1][:4]
        rows = [UNSEEN if number is None or number >= vocabulary.admitted else 2 + number for number in numbers]
        assert history[i].tolist() == rows + [PADDING] * (4 - len(rows))


def test_unseen_null_and_known_categories_have_their_rows(state: FeatureState, encoded: Encoded) -> None:
    tab, user = ints(encoded, state, "tab", "context")[:, 0], ints(encoded, state, "user", "user")[:, 0]
    before = {row["user_id"] for day in sorted(DAYS)[:-1] for row in rows_of(DAYS[day])}
    for i, row in enumerate(rows_of(DAYS[LAST])):
        assert (tab[i] == NULL) == (row["tab"] is None)
        assert (user[i] == UNSEEN) == (row["user_id"] not in before) == encoded.new_user[i]


def test_targets_respect_population_given_and_nulls(encoded: Encoded) -> None:
    for target, row in zip(encoded.targets, rows_of(DAYS[LAST]), strict=True):
        expected = [
            row["click"],
            row["watch"] if row["click"] > 0 else math.nan,
            row["like"] if row["tab"] != "2" else math.nan,
        ]
        np.testing.assert_array_equal(target, np.array(expected, np.float32))


def test_a_saved_state_encodes_alike(state: FeatureState, encoded: Encoded, tmp_path: Path) -> None:
    state.save(tmp_path)
    again = FeatureState.load(tmp_path, CONFIG).encode(DAYS[LAST], LAST)
    for side, block in encoded.blocks.items():
        np.testing.assert_array_equal(block.ints, again.blocks[side].ints)
        np.testing.assert_array_equal(block.floats, again.blocks[side].floats)


@pytest.mark.parametrize("part", [7, 10_000])
def test_rows_encoded_part_by_part_into_files_are_the_same(
    state: FeatureState, encoded: Encoded, part: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data.features.parts.PART_ROWS", part)
    found = state.encode(DAYS[LAST], LAST, folder=tmp_path)
    for side, block in encoded.blocks.items():
        assert isinstance(found.blocks[side].ints.base, np.memmap) or not block.ints.size
        np.testing.assert_array_equal(found.blocks[side].ints, block.ints)
        np.testing.assert_array_equal(found.blocks[side].floats, block.floats)
    for name in ("targets", "user", "video", "slate", "time", "new_user", "new_video"):
        np.testing.assert_array_equal(getattr(found, name), getattr(encoded, name))
    none = state.encode(DAYS[LAST].take(np.zeros(0, np.int64)), LAST, folder=tmp_path / "none")
    assert {len(block) for block in none.blocks.values()} == {0}


@pytest.mark.parametrize("threads", [1, 2])
def test_large_days_take_other_ways_to_the_same_features(
    encoded: Encoded, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is done for more than a few rows (searches of sorted needles, tables of groups, shared look-ups, parts in
    threads) is done for these few, from the first day on."""
    for module in ("asof", "ledger", "rates", "sorting"):
        monkeypatch.setattr(f"data.features.{module}.FEW", 0)
    monkeypatch.setattr("data.vocabulary.FEW", 0)
    monkeypatch.setattr("data.features.parts.PART_ROWS", 11)
    monkeypatch.setattr("data.features.threads.THREADS", threads)
    found = state_before(CONFIG, DAYS, TABLES, LAST).encode(DAYS[LAST], LAST)
    for side, block in encoded.blocks.items():
        np.testing.assert_array_equal(found.blocks[side].ints, block.ints)
        np.testing.assert_array_equal(found.blocks[side].floats, block.floats)
    for name in ("targets", "user", "video", "slate", "time", "new_user", "new_video"):
        np.testing.assert_array_equal(getattr(found, name), getattr(encoded, name))


def test_old_ids_keep_their_rows_when_vocabularies_grow() -> None:
    rows: dict[str, int] = {}
    for day in sorted(DAYS)[1:]:
        vocabulary = state_before(CONFIG, DAYS, TABLES, day).knowledge.vocabularies["user_id"]
        now = {text: number for number, text in enumerate(vocabulary.texts)}
        assert rows.items() <= now.items()
        rows = now


@pytest.mark.parametrize("stored", [True, False])
def test_a_request_gets_the_features_of_the_log(stored: bool) -> None:
    """With the history since the state's boundary (or all of it, replacing what is stored)."""
    days = small_days(late=0.0)
    state = state_before(CONFIG, days, TABLES, LAST)
    encoded = state.encode(days[LAST], LAST)
    encoder = RequestEncoder(state)
    catalogue = encoder.catalogue()
    today, all_days = rows_of(days[LAST]), [row for day in sorted(days) for row in rows_of(days[day])]
    for i in range(0, len(today), 3):
        row, time = today[i], int(encoded.time[i])
        earlier = [o for o in (today if stored else all_days) if o["user_id"] == row["user_id"] and o["timestamp"] < time]
        items = [
            {
                "video_id": o["video_id"],
                "timestamp": o["timestamp"],
                "outcomes": {label: o[label] for label in CONFIG.labels if not math.isnan(o[label])},
                "context": {"tab": o["tab"], "battery": o["battery"]},
            }
            for o in earlier
        ]
        context = {"tab": row["tab"], "battery": None if math.isnan(row["battery"]) else row["battery"]}
        history = history_batch(CONFIG, row["user_id"], items)
        features = encoder.request(row["user_id"], context, time, history, history_replaces=not stored)
        _same(features.user, encoded.blocks["user"], i)
        _same(features.context, encoded.blocks["context"], i)
        video = np.array([encoder.video_row(row["video_id"])])
        _same(encoder.cross(features, np.concatenate([video, [-1, 0]])), encoded.blocks["cross"], i)
        _same(catalogue.take(video), encoded.blocks["video"], i)


def _same(block: Any, day: Any, row: int) -> None:
    np.testing.assert_array_equal(block.ints[0], day.ints[row])
    np.testing.assert_array_equal(block.floats[0], day.floats[row])


def test_no_rows_make_empty_blocks(state: FeatureState) -> None:
    encoded = state.encode(DAYS[LAST].take(np.zeros(0, np.int64)), LAST)
    assert len(encoded) == len(encoded.slate) == len(encoded.new_video) == 0
    encoder = RequestEncoder(state)
    requests = [encoder.request("u1", {}, state.boundary, h) for h in (None, history_batch(CONFIG, "u1", []))]
    crosses = [encoder.cross(request, np.zeros(0, np.int64)) for request in requests]
    for side, layout in state.layout.sides.items():
        for block in (encoded.blocks[side], *(crosses if side == "cross" else ())):
            assert (block.ints.shape, block.ints.dtype) == ((0, layout.int_width), np.int32)
            assert (block.floats.shape, block.floats.dtype) == ((0, layout.float_width), np.float32)


def test_ids_that_come_after_midnight_are_admitted_a_day_later() -> None:
    """The last request of a day goes on after it; a row of the next day may come before its last one."""
    first, second, third = sorted(DAYS)[:3]
    midnight = state_before(CONFIG, DAYS, TABLES, second).boundary
    late = {**rows_of(DAYS[first])[-1], "video_id": "brand new", "timestamp": midnight + 5}
    days = {**DAYS, first: batch_of([*rows_of(DAYS[first]), late])}
    vocabulary = state_before(CONFIG, days, TABLES, second).knowledge.vocabularies["video_id"]
    assert vocabulary.get("brand new") == vocabulary.admitted == len(vocabulary) - 1
    vocabulary = state_before(CONFIG, days, TABLES, third).knowledge.vocabularies["video_id"]
    assert vocabulary.get("brand new") < vocabulary.admitted  # type: ignore[operator]


def test_encoding_a_day_already_taken_in_is_refused(state: FeatureState) -> None:
    earlier: date = sorted(DAYS)[0]
    with pytest.raises(Exception, match="already taken in"):
        state.encode(DAYS[earlier], earlier)
