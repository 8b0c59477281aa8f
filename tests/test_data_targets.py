import json

import numpy as np
import pytest
from small_log import FIRST_DAY, small_config, small_days, small_tables

from data.config import Config, Objective
from data.errors import ConfigError
from data.features.layout import NULL
from data.features.state import FeatureState
from data.features.targets import LEVELS, TargetStats
from data.objectives import targets

NAN = np.nan
WATCH = Objective(name="watch", family="engagement", label="watch", kind="regression")
BINS = WATCH.model_copy(update={"head": "discretised", "bins": 4})
QUANTILE = WATCH.model_copy(update={"head": "duration_quantile", "duration": "length"})
LENGTH = {"kind": "number", "name": "length", "column": "duration", "scaling": "buckets", "buckets": 4}


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def watched(*more: dict[str, object], **keys: object) -> Config:
    """The small log's configuration with a bucketed duration and other keys of the objective watch."""
    plain = small_config().model_dump(mode="json", exclude_none=True)
    own = {"name": "watch", "family": "engagement", "label": "watch", "kind": "regression", **keys}
    return small_config(features=[*plain["features"], LENGTH], objectives=[own, *more])


def test_the_default_fits_what_it_did() -> None:
    stats = TargetStats.fit(WATCH, floats(np.e - 1, 0, NAN, -3))
    assert stats.facts() == {"mean": pytest.approx(1 / 3), "std": pytest.approx(np.sqrt(2) / 3), "count": 3}


def test_thresholds_by_hand() -> None:
    """Levels (1 - e^-2z) / (1 - e^-2) at z = 1/4, 1/2, 3/4: 0.455, 0.731, 0.899 of eight targets."""
    stats = TargetStats.fit(BINS, floats(0, 0, 0, 0, 1, 2, 3, 4, NAN))
    assert stats.thresholds == (0.0, 2.0)  # the fourth and the sixth; the eighth has nothing above it
    assert stats.above == (0.5, 0.25)
    assert stats.means == (0.0, 1.5, 3.5)


def test_a_group_with_few_targets_has_the_quantiles_of_all() -> None:
    values, groups = np.concatenate([np.arange(60), np.full(10, 1000)]), np.repeat([2, 3], [60, 10])
    stats = TargetStats.fit(QUANTILE, values.astype(np.float32), groups.astype(np.int32), 5)
    grid = np.array(stats.grid)
    assert grid.shape == (5, LEVELS)
    assert grid[2, [0, 50, 100]].tolist() == [0, 29.5, 59]
    assert (grid[[1, 3, 4]] == grid[0]).all()
    assert grid[0, -1] == 1000


def test_weighted_logistic_knows_the_mean_and_the_share() -> None:
    stats = TargetStats.fit(WATCH.model_copy(update={"head": "weighted_logistic"}), floats(0, 0, 30, -5, NAN))
    assert (stats.natural_mean, stats.positive) == (7.5, 0.25)


@pytest.mark.parametrize("head", ["value", "weighted_logistic", "duration_quantile", "discretised"])
def test_what_was_fitted_is_read_back(head: str, tmp_path) -> None:  # type: ignore[no-untyped-def]
    config = watched(head=head, duration="length")
    state = FeatureState.fit(config, small_tables(), [*small_days(requests=200).items()][:1])
    state.save(tmp_path)
    assert FeatureState.load(tmp_path, config).target_stats == state.target_stats
    assert TargetStats.of(json.loads(json.dumps(state.target_stats[0].facts()))) == state.target_stats[0]
    grid = state.target_stats[0].grid
    assert len(grid) == (state.table_sizes()["length"] if head == "duration_quantile" else 0)
    assert not grid or grid[2] != grid[0]  # enough rows for quantiles of its own


def test_a_duration_of_nothing_is_unknown() -> None:
    """0 and null alike: the bucket of null, no cap; and edges are fitted on the others."""
    tables, days = small_tables(), small_days()
    duration = tables["videos"].batch.numbers("duration")
    duration[:] = np.where(np.arange(len(duration)) % 3 == 0, 0, np.where(np.arange(len(duration)) % 3 == 1, NAN, 50.0))
    config = watched(head="duration_quantile", duration="length", cap=2.0, duration_scale=0.1)
    state = FeatureState.fit(config, tables, [(FIRST_DAY, days[FIRST_DAY])])
    encoded = state.encode(days[FIRST_DAY], FIRST_DAY)
    field = next(f for f in state.layout.sides["video"].ints if f.feature == "length")
    unknown = encoded.blocks["video"].ints[:, field.offset] == NULL
    watch = days[FIRST_DAY].numbers("watch")
    assert 0.4 < unknown.mean() < 0.9
    assert state.knowledge.scales["length"].edges == (50.0,)
    np.testing.assert_array_equal(encoded.targets[unknown, 0], watch[unknown])
    np.testing.assert_array_equal(encoded.targets[~unknown, 0], np.minimum(watch[~unknown], 10.0))  # 2 * 50 * 0.1
    assert (watch[unknown] > 10).any()
    assert (watch[~unknown] > 10).any()
    plain = watched()
    before = FeatureState.fit(plain, tables, [(FIRST_DAY, days[FIRST_DAY])])
    assert before.knowledge.scales["length"].edges == (0.0, 50.0)  # where no objective calls it a duration, 0 is a number


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, [5.0, 500.0, 500.0, 500.0, NAN]),
        ({"cap": 3.0, "duration": "length"}, [5.0, 300.0, 500.0, 500.0, NAN]),
        ({"cap_seconds": 400.0}, [5.0, 400.0, 400.0, 400.0, NAN]),
        ({"cap": 3.0, "cap_seconds": 400.0, "duration": "length"}, [5.0, 300.0, 400.0, 400.0, NAN]),
    ],
    ids=["kept", "by duration", "by seconds", "the lower"],
)
def test_play_time_beyond_the_duration(keys: dict[str, object], expected: list[float]) -> None:
    batch = small_days()[FIRST_DAY].take(np.arange(5))
    batch.columns["watch"][:] = [5, 500, 500, 500, NAN]
    duration = np.array([100.0, 100.0, 0.0, NAN, 100.0])
    columns = {**batch.columns, "duration": duration}
    np.testing.assert_array_equal(targets(batch, watched(**keys), columns.__getitem__)[:, 0], expected)


CLICK = {"name": "click", "family": "engagement", "label": "click", "kind": "binary"}


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"head": "duration_quantile"}, "objective 'watch': head = 'duration_quantile' needs duration"),
        ({"cap": 3.0}, "objective 'watch': cap needs duration, the name of a number feature of the video"),
        ({"cap": 3.0, "duration": "age"}, "duration 'age' should be a number feature of the video"),
        ({"cap": 3.0, "duration": "minutes"}, "duration 'minutes' should be a number feature of the video"),
        ({"head": "duration_quantile", "duration": "duration"}, "expected scaling = 'buckets', got 'log'"),
        ({"head": "discretised", "loss": "huber"}, "loss 'huber' is of head = 'value': 'discretised' has its own"),
        ({"bins": 8}, "bins is of head = 'discretised', the head is 'value'"),
        ({"head": "discretised", "negatives": "others"}, "negatives is of head = 'weighted_logistic'"),
        ({"head": "weighted_logistic", "negatives": "others", "given": "click"}, "given 'click' leaves none, use 'all'"),
        ({"head": "odds"}, "head"),
        ({"cap_seconds": 0}, "cap_seconds"),
    ],
)
def test_what_does_not_fit_is_named(keys: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        watched(**keys)


@pytest.mark.parametrize("keys", [{"head": "discretised"}, {"cap_seconds": 5.0}])
def test_binary_objectives_have_no_such_head(keys: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=f"objective 'click': {next(iter(keys))} is of a regression"):
        watched({**CLICK, **keys})
