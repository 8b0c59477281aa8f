"""A comparison of two designs on a tiny log: its cells, its page, and that an interrupted one ends alike."""

import json
import signal
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from data.errors import ConfigError, LogError, WatchNextError
from data.features.slates import slate_times
from data.home import Home
from data.log import read_day
from tests.compare_log import CONFIG, DAYS, ORDER, copied, fill, write_grid
from training import compare_run
from training.compare import compare_grid, read
from training.compare_cell import Spec
from training.compare_features import encode_days
from training.compare_grid import override
from training.compare_report import render
from training.days import learn_days
from training.lock import only_one
from training.plan import plan_run

QUIET = Console(quiet=True)


def page_of(home: Home, **changes: Any) -> dict[str, Any]:
    return read(compare_grid(write_grid(home, **changes), home, 0, QUIET))


def without_times(page: dict[str, Any]) -> dict[str, Any]:
    result = deepcopy(page)
    for found in (*result["variants"].values(), *result["single_task"].values()):
        for key in ("train_seconds", "examples_per_second", "peak_bytes", "threads"):
            del found["cost"][key]
    return result


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, dict[str, Any]]:
    home = fill(tmp_path_factory.mktemp("home"))
    return home, page_of(home)


def cell_of(home: Home, page: dict[str, Any], design: str) -> Path:
    return home.root / "compare" / "tiny" / "cells" / next(c["key"] for c in page["cells"] if c["design"] == design)


def test_the_page_has_every_design_and_publishes_nothing(compared: tuple[Home, dict[str, Any]]) -> None:
    home, page = compared
    assert list(page["variants"]) == ["mmoe", "one expert"]
    assert not (home.root / "registry").exists()
    sizes = [found["cost"]["dense_parameters"] for found in page["variants"].values()]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.02)
    assert page["variants"]["one expert"]["widths_factor"] > 1
    assert page["objectives"]["click"]["count"] == int((~np.isnan(DAYS[ORDER[3]].numbers("click"))).sum())
    cosines = page["variants"]["mmoe"]["gradient_cosines"]
    assert list(cosines) == [str(day) for day in ORDER[:3]]
    assert np.diag(cosines[str(ORDER[0])]) == pytest.approx(1)


def test_a_cell_is_what_training_and_scoring_would_have_made_to_the_bit(compared: tuple[Home, dict[str, Any]]) -> None:
    home, page = compared
    learner, _ = learn_days(CONFIG, home, plan_run(CONFIG, home, None, ORDER[2], True), QUIET)
    batch = read_day(home, CONFIG, ORDER[3])
    encoded = learner.encode(ORDER[3], batch)
    predictions = learner.trainer.predict(encoded.blocks)[0]
    at_slate = learner.state.encode(batch, ORDER[3], slate_times(batch, encoded.slate))
    slates = learner.trainer.predict(at_slate.blocks)[0]
    assert not np.array_equal(predictions, slates)
    with np.load(cell_of(home, page, "mmoe") / "predictions.npz") as arrays:
        assert (arrays["predictions"] == predictions).all()
        assert (arrays["slate_predictions"] == slates).all()


def test_an_interrupted_comparison_goes_on_and_ends_alike(
    compared: tuple[Home, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an interruption in the second cell leaves: its folder without a result, and a half-written file."""
    whole, page = compared
    home = copied(whole, tmp_path / "copy")
    unfinished = cell_of(home, page, "one expert")
    for name in ("result.json", "samples.npz"):
        (unfinished / name).unlink()
    (unfinished / ".tmp-result.json").write_text('{"objectives": ')
    for name in ("index.html", "index.json"):
        (home.root / "compare" / "tiny" / name).unlink()
    ran: list[Path] = []
    run = compare_run.run_cell
    monkeypatch.setattr(compare_run, "run_cell", lambda folder: (ran.append(folder), run(folder)))
    assert without_times(page_of(home)) == without_times(page)
    assert ran == [unfinished]


def test_a_finished_comparison_computes_nothing_again(
    compared: tuple[Home, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare_run, "run_cell", lambda folder: pytest.fail("ran again"))
    assert page_of(compared[0]) == compared[1]


def test_a_cells_key_changes_with_its_configuration_and_its_days(
    compared: tuple[Home, dict[str, Any]], tmp_path: Path
) -> None:
    home, page = compared
    keys = {cell["key"] for cell in page["cells"]}
    assert len(keys) == 2

    def planned(home: Home, **changes: Any) -> set[str]:
        grid = compare_run.Grid.model_validate({**grid_values(home), **changes})
        return {cell.folder.name for cell in compare_run.plan_cells(grid, CONFIG, home, QUIET).cells}

    other = copied(home, tmp_path / "copy")
    assert planned(other) == keys
    assert planned(other, bootstrap=41).isdisjoint(keys)
    assert planned(other, overrides={"training.learning_rate": 0.1}).isdisjoint(keys)
    assert planned(other, name="another") == keys
    rows = other.day("small", ORDER[3]) / "rows.parquet"
    rows.write_bytes((other.day("small", ORDER[2]) / "rows.parquet").read_bytes())
    with pytest.raises(LogError, match="holds rows from before it"):
        planned(other)


def grid_values(home: Home) -> dict[str, Any]:
    import tomllib

    return tomllib.loads(write_grid(home).read_text())


def test_days_are_encoded_once_for_networks_that_differ(compared: tuple[Home, dict[str, Any]]) -> None:
    home, _ = compared
    root = home.root / "compare" / "tiny" / "encoded"
    assert len(list(root.iterdir())) == 1
    wider = override(CONFIG, {"features.user.dim": 9, "model.tower": [3], "objectives.like.loss_weight": 2.0}, "")
    again = encode_days(wider, home, root, ORDER[:3], ORDER[3:], lambda day: pytest.fail("encoded again"))
    assert again.slate_blocks(ORDER[3]) is not None
    assert again.slate_blocks(ORDER[2]) is None


def test_the_page_shows_no_script_and_escapes_names(compared: tuple[Home, dict[str, Any]]) -> None:
    page = deepcopy(compared[1])
    page["name"] = "<script>x</script>"
    page["variants"]["mmoe"]["against_single_task"] = {}
    text = render(page)
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "http" not in text.replace("http://www.w3.org", "")


def test_days_without_rows_and_a_comparison_at_work_are_said(compared: tuple[Home, dict[str, Any]]) -> None:
    home, _ = compared
    with pytest.raises(LogError, match="no rows on 2024-03-05"):
        page_of(home, name="later", report=[str(ORDER[3]), "2024-03-05"])
    with only_one(home, "compare-tiny", "compare"), pytest.raises(WatchNextError, match="this one leaves"):
        page_of(home)
    with pytest.raises(ConfigError, match=r"variant 'mmoe'.*no 'nothing'"):
        page_of(home, variants=[{"name": "mmoe", "overrides": {"model.nothing.here": 1}}])


def test_a_cells_specification_reads_back_the_same(compared: tuple[Home, dict[str, Any]], tmp_path: Path) -> None:
    spec = Spec.load(cell_of(*compared, "one expert") / "spec.json")
    spec.save(tmp_path / "spec.json")
    assert Spec.load(tmp_path / "spec.json") == spec


@pytest.mark.slow
def test_a_worker_makes_the_cell_that_this_process_would_have_made(
    compared: tuple[Home, dict[str, Any]], tmp_path: Path
) -> None:
    home = copied(compared[0], tmp_path / "copy")
    (cell_of(home, compared[1], "one expert") / "result.json").unlink()
    page = read(compare_grid(write_grid(home), home, 1, QUIET))
    assert without_times(page) == without_times(compared[1])
    result = json.loads((cell_of(home, page, "one expert") / "result.json").read_text())
    assert result["cost"]["peak_bytes"] > 1e8


def worker(folder: Path, *lines: str) -> str:
    """A program that takes the place of the interpreter that workers run."""
    path = folder / "worker.sh"
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o700)
    return str(path)


def test_workers_that_fail_are_told_of_when_all_others_are_done(
    compared: tuple[Home, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = copied(compared[0], tmp_path / "copy")
    for cell in compared[1]["cells"]:
        (cell_of(home, compared[1], cell["design"]) / "result.json").unlink()
    lines = [
        """grep -q '"experts": 1' $3/spec.json && echo no memory && exit 7""",
        """echo '{"cost": {"train_seconds": 1}}' > $3/result.json""",
    ]
    monkeypatch.setattr(sys, "executable", worker(tmp_path, *lines))
    with pytest.raises(compare_run.CellsFailedError, match=r"1 of 2 cells failed") as error:
        compare_grid(write_grid(home), home, 2, QUIET)
    assert error.match(r"one expert, seed 1:\nno memory\n\(exit code 7;")
    assert not (cell_of(home, compared[1], "one expert") / "result.json").exists()
    assert (cell_of(home, compared[1], "mmoe") / "result.json").exists()


def test_an_interruption_ends_the_workers(
    compared: tuple[Home, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = copied(compared[0], tmp_path / "copy")
    (cell_of(home, compared[1], "one expert") / "result.json").unlink()
    monkeypatch.setattr(sys, "executable", worker(tmp_path, "exec sleep 60"))
    started: list[subprocess.Popen[bytes]] = []
    start = compare_run._start
    monkeypatch.setattr(compare_run, "_start", lambda *a: (started.append(start(*a)), started[-1])[1])

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(compare_run.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        compare_grid(write_grid(home), home, 1, QUIET)
    assert [process.returncode for process in started] == [-signal.SIGTERM]
