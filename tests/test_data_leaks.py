"""No feature of a row sees anything at or after the row's feature time; and the check that says so can fail."""

from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import numpy as np
import pytest

from data.columns import Batch
from data.config import Config
from data.days import day_start
from data.features import state as state_module
from data.features.past import Past
from data.features.slates import feature_times
from data.features.state import FeatureState
from data.features.tables import EntityTable
from tests.small_log import batch_of, rows_of, small_config, small_days, small_tables, state_before

CONFIG = small_config()
Make = Callable[[Config, dict[date, Batch], dict[str, EntityTable], date], FeatureState]


def leaks(seed: int, cutoffs: int, make: Make = state_before, requests: int = 60) -> tuple[int, int]:
    """Rows checked, and rows of which a feature changed when everything at or after their feature time was removed
    or randomised. Rows of one request, and rows of equal times, are checked together."""
    days, tables = small_days(seed, requests=requests), small_tables(seed)
    rng = np.random.default_rng(seed)
    times = {day: feature_times(batch) for day, batch in days.items()}
    scored = sorted(days)[1:]
    moments = [(day, int(time)) for day in scored for time in np.unique(times[day])]
    chosen = [moments[i] for i in rng.choice(len(moments), min(cutoffs, len(moments)), replace=False)]
    states = {day: make(CONFIG, days, tables, day) for day in scored}
    encoded = {day: _values(states[day], days[day], day) for day in scored}
    checked = broken = 0
    for number, (day, time) in enumerate(chosen):
        now = times[day] == time
        changed, kept = _without_future(days, times, day, time, rng, randomise=number % 2 == 1)
        again = _values(make(CONFIG, changed, tables, day), changed[day], day)[kept]
        checked += int(now.sum())
        broken += int((again != encoded[day][now]).any(axis=1).sum())
    return checked, broken


def _values(state: FeatureState, batch: Batch, day: date) -> np.ndarray[Any, Any]:
    """All features [n, width] but the training-only ones; floats by their bits. Rows are numbered alike by tests."""
    encoded = state.encode(batch, day)
    blocks = [block for side, block in encoded.blocks.items() if side != "training_only"]
    return np.concatenate([b.ints for b in blocks] + [b.floats.view(np.int32) for b in blocks], axis=1)


def _without_future(
    days: dict[date, Batch], times: dict[date, Any], day: date, time: int, rng: np.random.Generator, randomise: bool
) -> tuple[dict[date, Batch], np.ndarray[Any, Any]]:
    """The log as known just before ``time``, with the rows of that time, their outcomes randomised; and where, among
    the day's rows, these now are. With ``randomise`` later rows become other rows instead of none."""
    result: dict[date, Batch] = {}
    for other, batch in days.items():
        rows, kept = [], []
        for place, row in enumerate(rows_of(batch)):
            asked = other == day and times[other][place] == time
            if row["timestamp"] < time or asked:
                rows.append(_forget(row, time, rng))
            elif randomise:
                rows.append(_other(_forget(row, time, rng), rng))
            else:
                continue
            kept.append(asked)
        if other == day:
            where = np.array(kept)
        if rows:
            result[other] = batch_of(rows)
    return result, where


def _forget(row: dict[str, Any], time: int, rng: np.random.Generator) -> dict[str, Any]:
    """The row with the outcomes that could be known only at or after ``time`` replaced."""
    row = dict(row)
    if row["visible_at"] >= time:
        row["watch"] = float(rng.integers(0, 100))
        row["visible_at"] = max(time, row["timestamp"]) + int(rng.integers(0, 10_000))
        row["click"] = float(rng.integers(0, 2))
    own = row["like_visible_at"]
    if (row["visible_at"] if np.isnan(own) else own) >= time:
        row["like"] = float(rng.integers(0, 2))
        row["like_visible_at"] = float(max(time, row["timestamp"]) + int(rng.integers(0, 10_000)))
    return row


def _other(row: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    return {**row, "user_id": f"u{rng.integers(15)}", "video_id": f"v{rng.integers(30)}", "tab": str(rng.integers(4))}


def test_no_row_sees_its_future() -> None:
    checked, broken = leaks(seed=3, cutoffs=60)
    assert (checked > 100, broken) == (True, 0)


@pytest.mark.slow
def test_a_thousand_rows_see_nothing_of_their_future() -> None:
    results = [leaks(seed, cutoffs=120) for seed in (11, 12, 13, 14)]
    assert sum(checked for checked, _ in results) >= 1000
    assert sum(broken for _, broken in results) == 0


def _refit(last: int) -> Make:
    """Scales, priors and vocabularies fitted on days that include the day asked about."""

    def make(config: Config, days: dict[date, Batch], tables: dict[str, EntityTable], day: date) -> FeatureState:
        state = state_before(config, days, tables, day)
        future = FeatureState.fit(config, tables, [(d, days[d]) for d in sorted(days) if d <= day + timedelta(days=last)])
        state.knowledge = replace(state.knowledge, scales=future.knowledge.scales, priors=future.knowledge.priors)
        return state

    return make


def _future_vocabulary(config: Config, days: dict[date, Batch], tables: dict[str, EntityTable], day: date) -> FeatureState:
    state = state_before(config, days, tables, day)
    for vocabulary in state.knowledge.vocabularies.values():
        vocabulary.admit()
    for name, vocabulary in state.knowledge.vocabularies.items():
        if name in ("user_id", "video_id"):
            texts = [text for later in sorted(days) if later >= day for text in days[later].strings(name).in_order()]
            vocabulary.add(reversed(texts))
            vocabulary.admit()
    return state


def _own_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    """An outcome counts from before its impression."""
    monkeypatch.setattr(Past, "visible", lambda self, label: self.view.batch.numbers("timestamp") - 1)


def _own_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row is encoded as of its own time, so it sees the rows of its request above it."""
    monkeypatch.setattr(state_module, "feature_times", lambda batch: batch.numbers("timestamp"))


def _own_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts "up to the previous day" reach to the end of the row's day."""

    def ends(self: FeatureState, time: Any) -> Any:
        return np.full(len(time), day_start(date(2030, 1, 1), "UTC") * 0 + int(time.max()) + 86_400_000, np.int64)

    monkeypatch.setattr(FeatureState, "day_starts", ends)


@pytest.mark.parametrize("plant", [_own_outcome, _own_request, _own_day])
def test_a_planted_leak_of_time_is_found(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    assert leaks(seed=3, cutoffs=30)[1] > 0


@pytest.mark.parametrize("make", [_refit(0), _future_vocabulary], ids=["future scale", "future vocabulary"])
def test_a_planted_leak_of_fitting_is_found(make: Make) -> None:
    assert leaks(seed=3, cutoffs=20, make=make)[1] > 0
