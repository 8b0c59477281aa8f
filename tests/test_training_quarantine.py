"""training/quarantine.py and facts.py: which days look broken, and that they stay held until somebody releases them."""

from pathlib import Path

import numpy as np
import pytest

from data.columns import Batch
from data.config import RetrainConfig
from data.errors import LogError
from data.features.tables import EntityTable, Tables
from data.home import Home
from tests.night_log import POISONS, as_it_is, day, night_config, night_day, videos_table, with_columns
from training.facts import Figure, auc_error, day_figures
from training.metrics import auc
from training.quarantine import JudgedDay, Quarantine, judge

CONFIG, SETTINGS = night_config(), RetrainConfig()
TABLES: Tables = {"videos": EntityTable("video_id", videos_table())}


def figures(batch: Batch) -> dict[str, Figure]:
    return day_figures(batch, CONFIG, TABLES, frozenset())


def days(*values: float, error: float = 0.0, name: str = "rows") -> list[dict[str, Figure]]:
    return [{name: Figure(value, error)} for value in values]


def broken(good: list[dict[str, Figure]], value: float, settings: RetrainConfig = SETTINGS) -> bool:
    (name,) = good[0]
    return bool(judge({name: Figure(value, good[0][name].error)}, good, settings))


def test_the_figures_of_a_day_by_hand() -> None:
    batch = night_day(0).take(np.arange(4))
    click, like = np.array([1.0, 0.0, np.nan, 1.0]), np.array([0.0, 0.0, 1.0, 0.0])
    batch = with_columns(
        batch, {"click": click, "like": like, "tab": night_day(0).strings("tab").take(np.array([0, 0, 0, 0]))}
    )
    found = figures(batch)
    assert found["rows"].value == 4
    assert (found["null:click"].value, found["rate:click"].value) == (0.25, pytest.approx(2 / 3))
    assert (found["null:tab"].value, found["other:tab"].value) == (0.0, 0.0)
    assert found["rate:like"] == (0.25, pytest.approx(np.sqrt(3 / 16) / 2))
    assert "rate:like" not in day_figures(batch, CONFIG, TABLES, frozenset({"like"}))


def test_columns_of_the_tables_are_looked_at_as_joined() -> None:
    found = figures(night_day(0))
    assert (found["null:author"].value, found["other:author"].value) == (0.0, pytest.approx(0.8, abs=0.05))
    assert day_figures(night_day(0), CONFIG, {"videos": EntityTable("video_id", videos_table(3))}, frozenset())[
        "null:author"
    ].value == pytest.approx(0.9, abs=0.05)


def test_the_error_of_an_auc_is_that_of_repeated_draws() -> None:
    rng = np.random.default_rng(0)
    targets = np.repeat([1.0, 0.0], [100, 400])
    values = [auc(targets, rng.normal(targets, 1)) for _ in range(300)]
    assert auc_error(0.76, 100, 400) == pytest.approx(np.std(values), rel=0.2)


def test_three_good_days_are_needed_to_call_a_fourth_odd() -> None:
    assert not broken(days(1000, 1010), 5)
    assert broken(days(1000, 1010, 990), 5)
    assert "rows is 5, expected" in judge(days(5)[0], days(1000, 1010, 990), SETTINGS)[0]


def test_few_good_days_that_agree_by_chance_make_no_narrow_band() -> None:
    assert not broken(days(1000, 1000, 1000), 600)  # half of the median either way
    assert not broken(days(0.30, 0.30, 0.30, error=0.02, name="rate:click"), 0.37)  # a fifth, and the sampling error
    assert not broken(days(0.0, 0.0, 0.0, name="null:tab"), 0.019)  # two points of nulls
    assert broken(days(0.0, 0.0, 0.0, name="null:tab"), 0.021)


def test_days_that_vary_widen_the_band() -> None:
    varied = days(0.1, 0.2, 0.3, 0.25, 0.15, name="rate:click")
    assert not broken(varied, 0.45)
    assert broken(varied, 0.6)


def test_one_odd_day_among_the_good_ones_moves_nothing() -> None:
    assert broken([*days(1000, 1010, 990, 1005), *days(90_000)], 3000)


def test_only_the_last_band_days_count() -> None:
    grown = days(10, 10, 10, 10, 1000, 1000, 1000)
    assert broken(grown, 1000)
    assert not broken(grown, 1000, RetrainConfig(band_days=3))


def test_an_easy_day_for_the_champion_is_no_broken_one() -> None:
    before = days(0.70, 0.71, 0.69, error=0.005, name="champion:click")
    assert not broken(before, 0.95)
    assert broken(before, 0.60)


@pytest.mark.parametrize("poison", [name for name in POISONS if name != "labels shuffled"])
def test_each_poison_is_told_from_clean_days(poison: str) -> None:
    good = [figures(night_day(number)) for number in range(3)]
    assert judge(figures(night_day(3)), good, SETTINGS) == ()
    assert judge(figures(POISONS[poison](night_day(3))), good, SETTINGS)


def test_clean_days_are_good_ones_with_any_number_of_days_before() -> None:
    """Twenty days in a row: nothing is held back by chance."""
    every = [figures(night_day(number)) for number in range(20)]
    assert [number for number in range(20) if judge(every[number], every[:number], SETTINGS)] == []


def test_a_day_is_held_until_it_is_released(home: Path) -> None:
    home.mkdir()
    held = JudgedDay(day(1), "d", "quarantined", figures(as_it_is(night_day(1))), ("rows is 5",))
    quarantine = Quarantine(Home(home), "night")
    quarantine.put(JudgedDay(day(0), "c", "good", {}), 1)
    quarantine.put(held, 1)
    again = Quarantine(Home(home), "night")
    assert again.days() == {day(0): JudgedDay(day(0), "c", "good", {}), day(1): held}
    assert Quarantine(Home(home), "other").days() == {}
    with pytest.raises(LogError, match="2024-03-01 of 'night' is not in quarantine; there: 2024-03-02"):
        again.release(day(0), 2)
    assert again.release(day(1), 2).reasons == ("rows is 5",)
    assert quarantine.days()[day(1)].status == "released"
    with pytest.raises(LogError, match="there: none"):
        again.release(day(1), 2)
