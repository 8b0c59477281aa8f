"""Features of what we served ourselves, against a plain reading of their definitions: rates wait for the window, histories
don't, activity goes by when an item was seen. Rows of files stand between."""

import math
from datetime import date
from typing import Any

import numpy as np
import pytest

from data.columns import Batch
from data.features.layout import PADDING, UNSEEN
from data.features.slates import feature_times
from data.features.state import Encoded, FeatureState
from tests.feedback_world import HOUR, feedback_config
from tests.small_log import rows_of, small_config, small_days, small_tables, state_before

CONFIG = small_config(objectives=feedback_config().model_dump(mode="json")["objectives"][:3])
WINDOWS = {"click": HOUR, "watch": 2 * HOUR, "like": 6 * HOUR}
DELAYS = {"click": 30_000, "watch": 30_000, "like": 0}


def served_days() -> dict[date, Batch]:
    """:func:`tests.small_log.small_days`, three quarters of the rows as if they were served, some seen after midnight."""
    rng = np.random.default_rng(5)
    days = {}
    for day, batch in small_days().items():
        timestamp = batch.numbers("timestamp")
        seen = timestamp + rng.choice([1, 1000, HOUR, 5 * HOUR], len(batch)).astype(float)
        ours = rng.random(len(batch)) < 0.75
        like = np.where(np.isnan(batch.numbers("like_visible_at")), timestamp + 6 * HOUR, batch.numbers("like_visible_at"))
        late = np.where(ours, np.maximum(like, seen), batch.numbers("like_visible_at"))
        visible = np.where(ours, np.maximum(batch.numbers("visible_at"), seen), batch.numbers("visible_at")).astype(np.int64)
        own = {"seen_at": np.where(ours, seen, np.nan), "like_visible_at": late, "visible_at": visible}
        days[day] = Batch({**batch.columns, **own})
    return days


DAYS = served_days()
LAST = sorted(DAYS)[-1]
ROWS = [row for day in sorted(DAYS) for row in rows_of(DAYS[day])]
TIMES = feature_times(DAYS[LAST]).tolist()
TODAY = rows_of(DAYS[LAST])


@pytest.fixture(scope="module")
def state() -> FeatureState:
    return state_before(CONFIG, DAYS, small_tables(), LAST)


@pytest.fixture(scope="module")
def encoded(state: FeatureState) -> Encoded:
    return state.encode(DAYS[LAST], LAST)


def visible(row: dict[str, Any], label: str) -> float:
    own = row["like_visible_at"] if label == "like" else math.nan
    return (row["visible_at"] if math.isnan(own) else own) + DELAYS[label]


def counts(row: dict[str, Any], label: str) -> float:
    if math.isnan(row["seen_at"]):
        return visible(row, label)
    return max(visible(row, label), row["timestamp"] + WINDOWS[label] + DELAYS[label])


def floats(encoded: Encoded, state: FeatureState, name: str, side: Any) -> np.ndarray[Any, Any]:
    field = next(field for field in state.layout.sides[side].floats if name in field.names)
    return encoded.blocks[side].floats[:, field.offset + field.names.index(name)]


def test_some_rows_are_seen_or_count_after_midnight(state: FeatureState) -> None:
    before = [row for row in ROWS if row not in TODAY]
    assert sum(row["seen_at"] >= state.boundary for row in before) > 5
    assert sum(visible(row, "like") < state.boundary <= counts(row, "like") for row in before) > 5


def usual_count(label: str, until: int) -> float:
    """The mean count of a video, over those that any label counts for."""
    counted = {each: [o for o in ROWS if not math.isnan(o[each]) and counts(o, each) < until] for each in WINDOWS}
    return len(counted[label]) / len({o["video_id"] for rows in counted.values() for o in rows})


@pytest.mark.parametrize("label", ["click", "like"])
@pytest.mark.parametrize(("name", "side", "key"), [("user_now", "user", "user_id"), ("video_rate", "video", "video_id")])
def test_rates_take_an_impression_in_when_its_window_has_closed(
    state: FeatureState, encoded: Encoded, label: str, name: str, side: str, key: str
) -> None:
    count, mean = (floats(encoded, state, f"{name}:{what}:{label}", side) for what in ("count", "mean"))
    prior = state.knowledge.priors[label]
    for i, row in enumerate(TODAY):
        until = TIMES[i] if name == "user_now" else state.boundary
        found = [o[label] for o in ROWS if o[key] == row[key] and not math.isnan(o[label]) and counts(o, label) < until]
        p = (sum(found) + prior * 20) / (len(found) + 20)
        usual = 0.0 if name == "user_now" else usual_count(label, state.boundary)
        assert count[i] == pytest.approx(math.log10((1 + len(found)) / (1 + usual)), abs=1e-6)
        assert mean[i] == pytest.approx(math.log(p / (1 - p)) - math.log(prior / (1 - prior)), abs=1e-5)


@pytest.mark.parametrize("n", [1, 3])
def test_recent_means_are_of_the_last_that_count(state: FeatureState, encoded: Encoded, n: int) -> None:
    mean = floats(encoded, state, f"recent:mean:like:{n}", "user")
    for i, row in enumerate(TODAY):
        found = sorted(
            (counts(o, "like"), place, o["like"])
            for place, o in enumerate(ROWS)
            if o["user_id"] == row["user_id"] and not math.isnan(o["like"]) and counts(o, "like") < TIMES[i]
        )
        last = [value for _, _, value in found[-n:]]
        expected = sum(last) / len(last) - state.knowledge.priors["like"] if last else 0
        assert mean[i] == pytest.approx(expected, abs=1e-6)


def test_histories_read_a_positive_as_soon_as_it_is_known(state: FeatureState, encoded: Encoded) -> None:
    field = next(field for field in state.layout.sides["user"].ints if field.feature == "liked_author")
    rows = encoded.blocks["user"].ints[:, field.offset : field.offset + field.width]
    authors, videos = state.knowledge.vocabularies["author"], rows_of(small_tables()["videos"].batch)

    def author(row: dict[str, Any]) -> int:
        held = [v for v in videos if v["video_id"] == row["video_id"] and v["valid_from"] < row["timestamp"]]
        number = authors.get(held[-1]["author"]) if held else None
        return 1 if not held else UNSEEN if number is None or number >= authors.admitted else 2 + number

    waiting = 0
    for i, row in enumerate(TODAY):
        found = sorted(
            (visible(o, "like"), place, author(o), counts(o, "like") >= TIMES[i])
            for place, o in enumerate(ROWS)
            if o["user_id"] == row["user_id"] and o["like"] > 0 and visible(o, "like") < TIMES[i]
        )[::-1][:3]
        assert rows[i].tolist() == [number for _, _, number, _ in found] + [PADDING] * (3 - len(found))
        waiting += any(open_ for *_, open_ in found)
    assert waiting > 5


def test_activity_goes_by_when_an_item_was_seen(state: FeatureState, encoded: Encoded) -> None:
    since, hour = (floats(encoded, state, f"activity:{what}", "user") for what in ("minutes_since", "last_1h"))
    seen = [(o["user_id"], o["timestamp"] if math.isnan(o["seen_at"]) else o["seen_at"]) for o in ROWS]
    for i, row in enumerate(TODAY):
        earlier = [time for user, time in seen if user == row["user_id"] and time < TIMES[i]]
        assert hour[i] == pytest.approx(math.log10(1 + sum(time >= TIMES[i] - HOUR for time in earlier)), abs=1e-6)
        minutes = (TIMES[i] - max(earlier)) / 60_000 if earlier else 0
        assert since[i] == pytest.approx(math.log10(1 + minutes), abs=1e-5)


def test_priors_wait_for_the_windows_of_the_fit_days_unless_all_are_open() -> None:
    first = sorted(DAYS)[0]
    fitted = FeatureState.fit(CONFIG, small_tables(), [(first, DAYS[first])])
    end = fitted.boundary + 24 * HOUR
    known = [row["like"] for row in rows_of(DAYS[first]) if counts(row, "like") < end and not math.isnan(row["like"])]
    assert fitted.knowledge.priors["like"] == pytest.approx(sum(known) / len(known))
    late = Batch({**DAYS[first].columns, "seen_at": np.full(len(DAYS[first]), float(end))})
    long = [{**o, "window": 1e6} for o in CONFIG.model_dump(mode="json")["objectives"]]
    fitted = FeatureState.fit(small_config(objectives=long), small_tables(), [(first, late)])
    every = late.numbers("like")
    assert fitted.knowledge.priors["like"] == pytest.approx(float(np.nanmean(every)))
