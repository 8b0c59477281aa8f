"""training/waiting.py: labels whose windows are open are masked, kept, and trained on when they close."""

import json
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from data.database import database_url, open_database, upsert, writing
from data.features.layout import Block
from data.feedback.schema import exports
from data.home import Home
from models.registry import Registry
from tests.night_log import NOW, QUIET, add_days, day, night_config, night_day, with_columns
from tests.small_log import small_config
from training.learner import Learner
from training.plan import trained
from training.retrain import retrain
from training.run import train
from training.waiting import Waiting, closes_before, mask, newly_closed, open_labels, row_keys

CONFIG = night_config()
NAN = np.nan


def equal(found: np.ndarray, expected: list[list[float]]) -> None:
    np.testing.assert_array_equal(found, np.array(expected, np.float32))


def test_open_labels_are_masked_also_where_they_are_given() -> None:
    config = small_config()  # click; watch, given click; like
    rows = np.array([[1, 5, 0], [0, NAN, 1]], np.float32)
    equal(mask(rows, config, {"like"}), [[1, 5, NAN], [0, NAN, NAN]])
    equal(mask(rows, config, {"click"}), [[NAN, NAN, 0], [NAN, NAN, 1]])  # who clicked is not known for all
    assert mask(rows, config, ()) is rows


def test_only_what_has_just_closed_is_trained_on() -> None:
    config = small_config()
    rows = np.array([[1, 5, 0]], np.float32)
    equal(newly_closed(rows, config, {"like"}, ()), [[NAN, NAN, 0]])
    equal(newly_closed(rows, config, {"click", "like"}, {"like"}), [[1, 5, NAN]])
    equal(newly_closed(rows, config, {"click", "watch"}, {"watch"}), [[1, NAN, NAN]])


def test_rows_are_found_again_whatever_their_order() -> None:
    batch = night_day(0)
    order = np.random.default_rng(0).permutation(len(batch))
    keys = row_keys(batch)
    assert len(np.unique(keys)) == len(batch)
    np.testing.assert_array_equal(row_keys(batch.take(order)), keys[order])
    twice = batch.take(np.array([3, 3, 4]))
    assert len(np.unique(row_keys(twice))) == 3
    waiting = Waiting(date(2024, 3, 1), {}, np.zeros(len(batch), np.int64), keys, frozenset({"like"}))
    targets = np.arange(len(batch), dtype=np.float32)[:, None]
    later = order[1:]  # a row is gone
    aligned = waiting.align(batch.take(later), targets[later])
    assert np.isnan(aligned[order[0]]).all()
    np.testing.assert_array_equal(np.delete(aligned, order[0], 0), np.delete(targets, order[0], 0))


def test_a_window_must_have_closed_before_the_judged_day() -> None:
    hours = night_config(objectives=[{**o.model_dump(), "window": 3600.0 * 20} for o in CONFIG.objectives])
    assert not closes_before("like", day(0), day(1), hours)
    assert closes_before("like", day(0), day(2), hours)
    assert closes_before("like", day(0), None, hours)


def test_waiting_rows_survive_a_save(tmp_path: Path) -> None:
    blocks = {side: Block(np.ones((2, 1), np.int32), np.ones((2, 3), np.float32)) for side in ("user", "context")}
    blocks |= {side: Block(np.zeros((2, 0), np.int32), np.zeros((2, 0), np.float32)) for side in ("video", "cross")}
    blocks["training_only"] = blocks["video"]
    waiting = Waiting(day(0), blocks, np.array([4, 5]), np.array([1, 2]), frozenset({"like"}))  # type: ignore[arg-type]
    waiting.save(tmp_path / f"day={day(0)}")
    found = Waiting.load(tmp_path / f"day={day(0)}")
    assert (found.day, found.open_labels, found.video.tolist()) == (day(0), {"like"}, [4, 5])
    np.testing.assert_array_equal(found.blocks["user"].floats, blocks["user"].floats)


def exported(home: Home, number: int, closed: list[str]) -> None:
    """As if the service had served the day: labels that are not closed are masked in its partition."""
    masked = {label: np.full(900, NAN) for label in CONFIG.labels if label not in closed}
    add_days(home, CONFIG, [number], lambda batch: with_columns(batch, masked))
    values = {"revision": 1, "rows": 900, "path": "", "closed": json.dumps(closed), "sha256": None, "exported_at": NOW}
    engine = open_database(database_url(home))
    insert = upsert(engine, exports).values(dataset="night", day=str(day(number)), **values)
    with writing(engine) as connection:
        connection.execute(insert.on_conflict_do_update(index_elements=["dataset", "day"], set_=values))


def test_a_day_is_trained_on_label_by_label_as_they_close(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.publish.export_saved_model", lambda _, folder: (folder / "saved_model.pb").touch())
    monkeypatch.setattr("training.retrain.export_days", lambda *_: [])  # nothing was served in truth
    home, registry = Home(tmp_path), Registry(Home(tmp_path))
    add_days(home, CONFIG, range(4))
    train(CONFIG, home, None, None, False, QUIET)
    exported(home, 4, ["click"])
    exported(home, 5, ["click"])
    assert open_labels(home, CONFIG) == {day(4): {"like"}, day(5): {"like"}}

    def learner() -> Learner:
        return Learner.from_bundle(trained(registry, registry.open("night")), CONFIG)

    before = learner().rates._rows
    first = retrain(CONFIG, home, False, NOW, QUIET)
    assert (first.status, first.trained) == ("promoted", (day(4),))
    checks = json.loads(Path(first.decision or "").read_text())["checks"]
    assert {c["on"]: c["verdict"] for c in checks if c["kind"] == "order"} == {"click": "pass", "like": "undecided"}
    half = learner()
    assert [(kept.day, kept.open_labels) for kept in half.waiting] == [(day(4), {"like"})]
    assert [int((~np.isnan(rows.targets)).sum()) for rows in half.scored] == [1800, 1800, 1800, 900]
    assert (half.rates._rows - before).tolist() == [900, 0]  # clicks were learnt from, likes were not
    assert not (registry.open("night").extra / "waiting").exists()  # the refreshed one needs them not

    exported(home, 4, ["click", "like"])
    exported(home, 5, ["click", "like"])
    add_days(home, CONFIG, [6])
    second = retrain(CONFIG, home, False, NOW, QUIET)
    assert (second.status, second.trained) == ("promoted", (day(5),))
    whole = learner()
    assert whole.waiting == []
    assert [int((~np.isnan(rows.targets)).sum()) for rows in whole.scored] == [1800] * 5
    np.testing.assert_array_equal(whole.scored[3].predictions, half.scored[3].predictions)  # of before the day was learnt
    assert [curve.rows for curve in whole.calibration.curves] == [4500, 4500]
    assert (whole.rates._rows - half.rates._rows).tolist() == [900, 1800]
    steps = int(whole.trainer.steps) - int(half.trainer.steps)
    assert steps == 2 * -(-900 // CONFIG.training.batch_size)  # day 5, and the likes of day 4
    assert night_day(4).numbers("like").sum() > 0
