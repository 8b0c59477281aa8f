"""The nights: what is promoted, what isn't and why, and that nothing is done twice."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

import watchnext
from data.columns import Batch
from data.config import Config
from data.database import DatabaseError, database_url, open_database, writing
from data.errors import BundleError, ConfigError, WatchNextError
from data.home import Home
from models.registry import Registry
from tests.night_log import NOW, POISONS, QUIET, add_days, copied, day, night_config, shuffled, tenth
from training.learner import Learner
from training.lock import AlreadyRunningError, only_one
from training.nights import Outcome
from training.quarantine import JudgedDay, Quarantine
from training.retrain import retrain
from training.run import train

CONFIG = night_config()
BLIND = night_config(retrain={"band_width": 1e9, "band_least": 1e9}, gate={"least_positives": 60})
"""A quarantine that lets every day pass: what is left is the gate."""

TELLS = {
    "labels shuffled": "champion:click is",
    "a column without values": "null:tab is 1, expected",
    "a column of one value": "other:tab is 0, expected",
    "a tenth of the data": "rows is 90, expected",
}


@pytest.fixture(autouse=True)
def no_saved_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """What TensorFlow Serving loads takes a second to write, and is not what these tests are about."""
    monkeypatch.setattr("training.publish.export_saved_model", lambda _, folder: (folder / "saved_model.pb").touch())


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A champion that was trained on days 0 to 3."""
    home = Home(tmp_path_factory.mktemp("begun"))
    add_days(home, CONFIG, range(4))
    train(CONFIG, home, None, None, False, QUIET)
    return home


@pytest.fixture
def own(begun: Home, tmp_path: Path) -> Home:
    return copied(begun, tmp_path / "own")


def night(home: Home, config: Config = CONFIG, full: bool = False) -> Outcome:
    return retrain(config, home, full, NOW, QUIET)


def window_of(home: Home, version: int | None) -> tuple[Any, Any]:
    window = Registry(home).open("night", version).manifest.window
    return window.first_day, window.last_day


def test_a_night_promotes_judged_on_the_newest_day_and_the_next_learns_from_it(own: Home) -> None:
    add_days(own, CONFIG, [4, 5])
    first = night(own)
    assert (first.status, first.day, first.trained, first.exit_code) == ("promoted", day(5), (day(4),), 0)
    assert window_of(own, first.challenger) == (day(0), day(4))
    decision = json.loads(Path(first.decision or "").read_text())
    assert (decision["promoted"], decision["day"]) == (True, str(day(5)))
    assert next(c for c in decision["checks"] if c["kind"] == "served equals offline")["figures"]["rows"] == 20
    assert Path(first.decision or "").with_suffix(".html").exists()
    again = night(own)
    assert (again.status, again.refreshed, again.exit_code) == ("nothing", None, 0)
    assert str(day(5)) in again.reason
    add_days(own, CONFIG, [6])
    second = night(own)
    assert (second.status, second.day, second.trained) == ("promoted", day(6), (day(5),))
    assert not list((own.root / "runs").rglob("*.npy"))
    assert Registry(own).versions("night")[-1] == second.champion


def test_counts_are_brought_up_to_date_with_the_weights_as_they_are(own: Home) -> None:
    registry, before = Registry(own), Registry(own).champion("night")
    add_days(own, CONFIG, [4], lambda batch: batch)
    outcome = night(own)
    assert (outcome.status, outcome.challenger) == ("nothing", None)
    refreshed = registry.open("night")
    assert (refreshed.version, refreshed.manifest.refreshed_from) == (outcome.refreshed, before)
    assert window_of(own, refreshed.version) == window_of(own, before)
    assert registry.pointer("night").previous is None  # type: ignore[union-attr]
    learners = [Learner.from_bundle(registry.open("night", v), CONFIG) for v in (before, refreshed.version)]
    assert learners[0].state.boundary < learners[1].state.boundary
    assert learners[0].state.table_sizes() == learners[1].state.table_sizes() == learners[1].trainer.network.table_sizes
    add_days(own, CONFIG, [5])
    after = night(own)  # goes on from what was trained, not from the refreshed one
    assert (after.status, after.trained) == ("promoted", (day(4),))
    assert registry.pointer("night").previous == refreshed.version  # type: ignore[union-attr]


def test_a_first_bundle_needs_no_champion_and_two_days(tmp_path: Path) -> None:
    home = Home(tmp_path)
    add_days(home, CONFIG, [0])
    assert "one to learn from and a later one to judge on" in night(home).reason
    add_days(home, CONFIG, [1, 2])
    outcome = night(home)
    assert (outcome.status, outcome.trained) == ("promoted", (day(0), day(1)))
    assert Registry(home).open("night").manifest.refreshed_from == outcome.challenger


def test_poisoned_days_are_held_back_and_the_next_clean_night_promotes_without_them(own: Home) -> None:
    """Each poison as the newest day; and, a night later, as a day that would be trained on."""
    before = Registry(own).champion("night")
    add_days(own, CONFIG, [4])
    for number, poison in enumerate(POISONS, 5):
        add_days(own, CONFIG, [number], POISONS[poison])
        held = night(own)
        assert (held.status, held.quarantined, held.exit_code, held.challenger) == ("quarantined", (day(number),), 5, None)
        assert TELLS[poison] in held.reason
        assert Registry(own).open("night").manifest.refreshed_from == before
    assert night(own).status == "nothing"
    add_days(own, CONFIG, [9])
    clean = night(own)
    assert (clean.status, clean.day, clean.trained) == ("promoted", day(9), (day(4),))
    assert json.loads(Path(clean.decision or "").read_text())["quarantined"] == [str(day(n)) for n in (5, 6, 7, 8)]


def test_a_poisoned_day_before_the_newest_is_not_trained_on(own: Home) -> None:
    add_days(own, CONFIG, [4, 5, 6])
    add_days(own, CONFIG, [5], shuffled)
    outcome = night(own)
    assert (outcome.status, outcome.day, outcome.trained, outcome.quarantined) == ("promoted", day(6), (day(4),), (day(5),))


def test_a_released_day_is_taken_as_it_is(own: Home) -> None:
    add_days(own, CONFIG, [4])
    add_days(own, CONFIG, [5], tenth)
    assert night(own).quarantined == (day(5),)
    Quarantine(own, "night").release(day(5), NOW)
    released = night(own)
    assert (released.day, released.trained) == (day(5), (day(4),))


@pytest.mark.parametrize(
    ("spoilt", "spoil", "says"),
    [(4, shuffled, "against the champion"), (5, shuffled, "0 of 2 decided"), (5, tenth, "0 of 2 decided")],
    ids=["shuffled, trained on", "shuffled, judged on", "a tenth, judged on"],
)
def test_the_gate_alone_keeps_poison_out(own: Home, spoilt: int, spoil: Callable[[Batch], Batch], says: str) -> None:
    before = Registry(own).champion("night")
    add_days(own, BLIND, [4, 5])
    add_days(own, BLIND, [spoilt], spoil)
    outcome = night(own, BLIND)
    assert (outcome.status, outcome.exit_code, outcome.quarantined) == ("kept", 3, ())
    assert says in outcome.reason
    assert outcome.challenger in Registry(own).versions("night")
    assert Registry(own).open("night").manifest.refreshed_from == before
    again = night(own, BLIND)
    assert (again.status, again.reason) == ("nothing", f"{day(5)} has been judged already")
    assert window_of(own, Registry(own).open("night").manifest.refreshed_from) == (day(0), day(3))


def test_a_full_retrain_competes_when_it_is_asked_for_and_when_it_is_due(own: Home) -> None:
    due = night_config(retrain={"full_every": 2, "full_days": 3})
    add_days(own, CONFIG, [4, 5])
    first = night(own, due)
    assert json.loads(Path(first.decision or "").read_text())["full"] is None  # the interval begins with the first night
    add_days(own, CONFIG, [6, 7])
    second = night(own, due)
    decision = json.loads(Path(second.decision or "").read_text())
    assert decision["full"] in (True, False)
    assert decision["trained"] == [str(day(n)) for n in ((4, 5, 6) if decision["full"] else (5, 6))]


def test_champions_of_other_objectives_are_not_replaced_unjudged(own: Home) -> None:
    objectives = [objective.model_dump() for objective in CONFIG.objectives][:1]
    with pytest.raises(ConfigError, match=r"predicts click, like, the configuration asks for click: .* --fresh"):
        night(own, night_config(objectives=objectives))


def test_a_second_one_says_who_runs_and_leaves(own: Home) -> None:
    with only_one(own, "night", "retrain"):
        for second in (lambda: night(own), lambda: train(CONFIG, own, None, None, True, QUIET)):
            with pytest.raises(AlreadyRunningError, match=r"`watchnext retrain` \(process \d+, since .*\) is running"):
                second()
    with only_one(own, "night", "train"), only_one(own, "other", "train"):
        pass


def test_a_champion_chosen_meanwhile_is_not_replaced(own: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    add_days(own, CONFIG, [4])
    night(own)
    first, refreshed = Registry(own).versions("night")
    add_days(own, CONFIG, [5])
    monkeypatch.setattr("training.retrain.write_decision", lambda *_: Registry(own).promote("night", first))
    with pytest.raises(BundleError, match=f"not promoted: 'night' has another champion than {refreshed} now"):
        night(own)
    assert Registry(own).champion("night") == first


def test_a_disk_that_is_full_while_publishing_is_a_sentence_and_the_night_goes_on(
    own: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Registry(own).champion("night")
    add_days(own, CONFIG, [4, 5])

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def full_for_tensorflow(*_: Any) -> None:
        raise tf.errors.ResourceExhaustedError(None, None, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("training.learner.Learner.save", full)
        with pytest.raises(WatchNextError, match=r"cannot read or write .*No space left on device"):
            night(own)
    with monkeypatch.context() as patch:
        patch.setattr("training.publish.export_saved_model", full_for_tensorflow)
        with pytest.raises(BundleError, match=r"cannot publish 'night' in .*No space left on device"):
            night(own)
        assert Registry(own).champion("night") == before
    with monkeypatch.context() as patch:
        patch.setattr("training.decision.write_text", full)
        with pytest.raises(BundleError, match=r"cannot write the decision .*No space left on device"):
            night(own)
    assert Registry(own).champion("night") == before
    outcome = night(own)
    assert outcome.status == "promoted"
    assert len(Registry(own).versions("night")) == 3  # trained, challenger, refreshed: nothing was published twice


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
def test_a_registry_that_is_read_only_is_a_sentence_and_the_night_goes_on(own: Home) -> None:
    before = Registry(own).champion("night")
    add_days(own, CONFIG, [4, 5])
    folder = own.root / "registry"
    mounted = subprocess.run(["mount", "--bind", folder, folder], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"cannot mount: {mounted.stderr.decode().strip()}")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", folder, folder], check=True)
        with pytest.raises(BundleError, match=r"cannot publish 'night' in .*Read-only file system"):
            night(own)
        assert Registry(own).open_serving("night").version == before
    finally:
        subprocess.run(["umount", folder], check=True)
    assert night(own).status == "promoted"


def test_a_locked_database_is_a_sentence(own: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    add_days(own, CONFIG, [4])
    monkeypatch.setattr("data.database.BUSY_TIMEOUT_MS", 1)
    engine = open_database(database_url(own))
    with writing(engine), pytest.raises(DatabaseError, match="database is locked"):
        night(own)
    assert night(own).refreshed is not None


def test_the_command_says_all_in_one_line(
    own: Home, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("watchnext.read_config", lambda _: CONFIG)
    monkeypatch.setenv("WATCHNEXT_HOME", str(own.root))
    add_days(own, CONFIG, [4])
    add_days(own, CONFIG, [5], tenth)
    with only_one(own, "night", "retrain"):
        running = watchnext.retrain_once("night", False, NOW)
    codes = [running, watchnext.retrain_once("night", False, NOW), watchnext.retrain_once("night", False, NOW)]
    (own.day("night", day(4)) / "rows.parquet").write_bytes(b"damaged")
    codes.append(watchnext.retrain_once("night", False, NOW))
    printed, said = capfd.readouterr()
    lines = [json.loads(line) for line in printed.splitlines()]
    assert [line["status"] for line in lines] == ["running", "quarantined", "nothing", "error"]
    assert codes == [line["exit_code"] for line in lines] == [4, 5, 0, 2]
    assert lines[1]["quarantined"] == [str(day(5))]
    assert "rows.parquet" in lines[3]["reason"]
    assert "watchnext: quarantined: 2024-03-06: " in said


def test_a_defect_is_a_line_too_and_a_traceback(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("watchnext.read_config", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        watchnext.retrain_once("night", False, NOW)
    line = json.loads(capfd.readouterr().out)
    assert (line["status"], line["exit_code"]) == ("error", 1)


def test_the_quarantine_is_listed_and_released_by_command(
    home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    home.mkdir()
    monkeypatch.setattr("watchnext.read_config", lambda _: CONFIG)
    Quarantine(Home(home), "night").put(JudgedDay(day(5), "d", "quarantined", {}, ("rows is 5",)), NOW)
    watchnext.list_quarantine("night")
    watchnext.release_day("night", str(day(5)))
    watchnext.list_quarantine("night")
    printed = capfd.readouterr().out
    assert "rows is 5" in printed
    assert "2024-03-06 of 'night' is released" in printed
    assert "no day of 'night' is in quarantine" in printed


@pytest.mark.slow
def test_killed_nights_end_as_they_do_without_kills(home: Path) -> None:
    """What benchmarks/kill_retrain.py does hundreds of times, a few times."""
    root = Path(__file__).parent.parent
    command = [sys.executable, str(root / "benchmarks" / "kill_retrain.py"), "--kills", "4", "--seed", "2"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    result = json.loads(done.stdout)
    assert (result["kills"], result["failures"]) == (4, [])
