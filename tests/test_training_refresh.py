"""training/refresh.py: newer counts under the same weights, and ids that the network has no rows for."""

import json
from pathlib import Path

import numpy as np
import pytest

from data.columns import Batch, Strings, concatenate
from data.days import day_start
from data.errors import BundleError
from data.features.layout import Block
from data.features.request import RequestEncoder
from data.features.state import FeatureState
from data.features.storage import load_array
from data.home import Home
from models.calibration import CALIBRATION_FILE
from models.registry import Registry
from models.scorer import Scorer
from tests.night_log import NOW, QUIET, add_days, day, night_config, night_day, tenth, with_columns
from training.calibration_rows import ROWS
from training.evaluate import evaluate
from training.quarantine import JudgedDay, Quarantine
from training.refresh import _settled, refresh
from training.run import train

CONFIG = night_config()


def with_new_ids(batch: Batch) -> Batch:
    """Every seventh impression is of a video, every ninth of a user, that nobody has met."""
    columns = {}
    for name, every in (("video_id", 7), ("user_id", 9)):
        texts = batch.strings(name).tolist()
        columns[name] = Strings.of(f"new{i % 3}" if i % every == 0 else text for i, text in enumerate(texts))
    return with_columns(batch, columns)


@pytest.fixture(scope="module")
def refreshed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, int, int]:
    """A home, its champion trained on days 0 to 2, and the same refreshed to day 3, which brings new ids."""
    home = Home(tmp_path_factory.mktemp("home"))
    add_days(home, CONFIG, range(3))
    first = train(CONFIG, home, None, None, False, QUIET)
    add_days(home, CONFIG, [3], with_new_ids)
    version = refresh(CONFIG, home, NOW)
    assert version is not None
    return home, first, version


def test_weights_are_the_champions_and_counts_are_newer(refreshed: tuple[Home, int, int]) -> None:
    home, first, version = refreshed
    old, new = (Registry(home).open("night", v) for v in (first, version))
    assert (version, new.manifest.refreshed_from, new.manifest.window) == (2024030401, first, old.manifest.window)
    same = {name for name, facts in old.manifest.files.items() if new.manifest.files.get(name) == facts}
    assert {name for name in old.manifest.files if "/trainer/" in name or "scorer" in name or "variables" in name} <= same
    assert same.isdisjoint({"assets.extra/catalogue/floats.npy", "assets.extra/users/floats.npy"})
    assert "assets.extra/users/floats.npy" in new.manifest.files
    states = [FeatureState.load(bundle.state, CONFIG) for bundle in (old, new)]
    assert [state.boundary for state in states] == sorted({state.boundary for state in states})
    assert states[0].table_sizes() == states[1].table_sizes()


def test_new_ids_have_counts_of_their_own_and_the_learnt_default(refreshed: tuple[Home, int, int]) -> None:
    home, _, version = refreshed
    bundle = Registry(home).open("night", version)
    ids = json.loads((bundle.catalogue / "ids.json").read_text())
    ints, floats = (load_array(bundle.catalogue / f"{part}.npy") for part in ("ints", "floats"))
    row = ids.index("new0")
    np.testing.assert_array_equal(ints[row], ints[-1])  # the last row is the unknown video's
    assert not np.array_equal(floats[row], floats[-1])
    encoder = RequestEncoder(FeatureState.load(bundle.state, CONFIG))
    features = encoder.request("new1", {"tab": "1"}, encoder.state.boundary + 1)
    assert not features.known_user
    rows = np.arange(len(ids))
    scorer = Scorer.load(bundle.extra)
    scores = scorer.score(features.user, features.context, Block(ints[rows], floats[rows]), encoder.cross(features, rows))
    assert np.isfinite(scores.predictions).all()


def test_a_second_refresh_finds_nothing(refreshed: tuple[Home, int, int]) -> None:
    home, _, version = refreshed
    assert refresh(CONFIG, home, NOW) is None
    assert Registry(home).champion("night") == version
    assert Registry(home).pointer("night").previous is None  # type: ignore[union-attr]


def test_a_refreshed_bundle_is_evaluated_as_the_trained_one(refreshed: tuple[Home, int, int]) -> None:
    home, first, version = refreshed
    figures = [evaluate(CONFIG, home, day(3), day(3), v, QUIET) for v in (first, version)]
    assert figures[0]["objectives"] == figures[1]["objectives"]
    assert figures[1]["bundle"] == version
    trained, after = (Registry(home).open("night", v).extra for v in (first, version))
    assert (trained / CALIBRATION_FILE).read_text() == (after / CALIBRATION_FILE).read_text()
    assert [path.name for path in sorted((trained / ROWS).iterdir())] == [f"day={day(n)}" for n in (1, 2)]
    assert not (after / ROWS).exists()


def test_days_in_quarantine_are_passed_over(refreshed: tuple[Home, int, int]) -> None:
    home, _, version = refreshed
    add_days(home, CONFIG, [4], tenth)
    Quarantine(home, "night").put(JudgedDay(day(4), "d", "quarantined", {}, ("rows is 90",)), NOW)
    assert refresh(CONFIG, home, NOW) is None
    Quarantine(home, "night").release(day(4), NOW)
    assert refresh(CONFIG, home, NOW) == 2024030501
    assert Registry(home).open("night").manifest.refreshed_from != version


def test_without_a_champion_there_is_nothing_to_refresh(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="'night' has no champion yet"):
        refresh(CONFIG, Home(tmp_path), NOW)


def test_a_day_held_back_does_not_come_in_by_the_morning_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path)
    add_days(home, CONFIG, [0, 1])
    both = concatenate(night_day(1), night_day(2))
    monkeypatch.setattr("training.refresh.provisional", lambda *_: both)
    start, today = (day_start(day(n), "UTC") for n in (1, 3))
    registry = Registry(home)
    assert len(_settled(registry, CONFIG, home, [day(0), day(1)], start, today)) == len(both)
    without = _settled(registry, CONFIG, home, [day(0)], start, today)
    assert without.strings("request_id").tolist() == night_day(2).strings("request_id").tolist()
    assert len(_settled(registry, CONFIG, home, [day(0)], today, today)) == 0
