"""The training run: days in order, each scored before it is trained on; interrupted, it goes on where it was."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from data.config import Config
from data.errors import ConfigError, LogError
from data.home import Home
from models.calibration import CALIBRATION_FILE, Calibration
from models.registry import Registry
from tests.small_log import batch_of, rows_of, small_config, small_days, small_tables, write_home
from training.evaluate import evaluate
from training.frozen import Frozen
from training.learner import Learner
from training.metrics import auc
from training.plan import plan_run
from training.run import train

DAYS = small_days(days=5)
ORDER = sorted(DAYS)
CONFIG = small_config(
    model={"trunk": {"kind": "mmoe", "experts": 3, "layers": [8]}, "tower": [4]},
    training={"batch_size": 64, "replay_days": 1},
    evaluation={"bootstrap": 20, "slices": ["tab"]},
)
QUIET = Console(quiet=True)


def fill(home: Home) -> Home:
    write_home(home, CONFIG, DAYS, small_tables())
    return home


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, int]:
    """A home with a bundle trained on all days but the last two."""
    home = fill(Home(tmp_path_factory.mktemp("home")))
    return home, train(CONFIG, home, None, ORDER[2], False, QUIET)


def progressive(home: Home, version: int) -> Mapping[str, Any]:
    figures: Mapping[str, Any] = json.loads(Registry(home).open("small", version).metrics.read_text())
    return figures


def test_days_after_the_fit_days_are_scored_before_they_are_trained_on(trained: tuple[Home, int]) -> None:
    home, version = trained
    assert progressive(home, version)["days"] == [str(day) for day in ORDER[1:3]]
    assert version == int(f"{ORDER[2]:%Y%m%d}01")
    assert Registry(home).champion("small") == version
    assert not list((home.root / "runs").rglob("*.npy"))


def test_days_before_calibrate_and_are_published_with_the_bundle(trained: tuple[Home, int]) -> None:
    home, version = trained
    bundle = Registry(home).open("small", version)
    calibration = Calibration.load(bundle.extra, CONFIG.objective_names)
    assert calibration.days == tuple(str(day) for day in ORDER[1:3])
    assert {curve.kind for curve in calibration.curves} == {"platt", "ratio"}
    assert Learner.from_bundle(bundle, CONFIG).calibration == calibration
    by_day = progressive(home, version)["by_day"]
    first, second = (by_day[str(day)]["watch"] for day in ORDER[1:3])
    assert first["predicted_over_actual"] == first["raw"]["predicted_over_actual"]  # there was nothing to calibrate by
    assert second["predicted_over_actual"] != second["raw"]["predicted_over_actual"]


def test_a_bundle_is_judged_by_what_it_serves_and_its_order_is_the_networks(trained: tuple[Home, int]) -> None:
    model = Frozen(Registry(trained[0]).open("small", trained[1]), CONFIG, trained[0])
    scored = model.score(ORDER[3], [])
    calibration = model.calibration
    np.testing.assert_array_equal(scored.predictions, calibration.apply(scored.raw))
    assert (scored.predictions != scored.raw).any(axis=0).all()
    for k in (0, 2):
        known = ~np.isnan(scored.targets[:, k])
        assert auc(scored.targets[known, k], scored.predictions[known, k]) == auc(
            scored.targets[known, k], scored.raw[known, k]
        )


def test_evaluation_names_bundle_days_and_reasons(trained: tuple[Home, int]) -> None:
    home, version = trained
    figures = evaluate(CONFIG, home, ORDER[3], ORDER[4], None, QUIET)
    assert figures["bundle"] == version
    assert list(figures["by_day"]) == [str(day) for day in ORDER[3:]]
    watch = figures["objectives"]["watch"]
    assert watch["gauc"] is None
    assert "gauc" in watch["undefined"]
    assert figures["objectives"]["click"]["count"] == sum(
        int((~np.isnan(DAYS[d].numbers("click"))).sum()) for d in ORDER[3:]
    )


def test_a_warm_start_learns_the_new_days_only(trained: tuple[Home, int], tmp_path: Path) -> None:
    home, version = trained
    plan = plan_run(CONFIG, home, None, ORDER[3], False)
    assert (plan.start and plan.start.version, plan.days) == (version, (ORDER[3],))
    later = plan_run(CONFIG, home, ORDER[4], None, False)
    assert (later.days, later.skipped) == ((ORDER[4],), (ORDER[3],))
    learner = Learner.from_bundle(Registry(home).open("small", version), CONFIG)
    before = {name: len(v) for name, v in learner.state.knowledge.vocabularies.items()}
    assert learner.state.boundary == Learner.from_bundle(Registry(home).open("small"), CONFIG).state.boundary
    assert all(before[name] == vocabulary.admitted for name, vocabulary in learner.state.knowledge.vocabularies.items())


def test_training_goes_on_from_the_newest_bundle(trained: tuple[Home, int], tmp_path: Path) -> None:
    first = trained[1]
    home = Home(shutil.copytree(trained[0].root, tmp_path / "copy"))
    second = train(CONFIG, home, None, ORDER[3], False, QUIET)
    registry = Registry(home)
    assert registry.pointer("small").previous == first  # type: ignore[union-attr]
    window = registry.open("small", second).manifest.window
    assert (window.first_day, window.last_day) == (ORDER[0], ORDER[3])
    assert progressive(home, second)["days"] == [str(ORDER[3])]
    bundle = registry.open("small", second)
    assert Calibration.load(bundle.extra, CONFIG.objective_names).days == tuple(str(day) for day in ORDER[1:4])
    beside = evaluate(CONFIG, home, ORDER[4], ORDER[4], None, QUIET)["objectives"]["click"]["baselines"]
    assert set(beside) == {"constant", "video_rate", "champion"}


@pytest.mark.parametrize(
    ("changes", "fresh", "since"),
    [({}, True, None), ({}, False, ORDER[2]), ({"model": {"tower": [5]}}, False, None)],
    ids=["asked for", "days seen before", "another network"],
)
def test_otherwise_training_starts_from_scratch(
    trained: tuple[Home, int], changes: dict[str, Any], fresh: bool, since: date | None
) -> None:
    config = small_config(**{**CONFIG.model_dump(include={"model", "training"}), **changes})
    assert plan_run(config, trained[0], since, None, fresh).start is None


def _drop_day(home: Home) -> None:
    (home.day("small", ORDER[2]) / "rows.parquet").unlink()


def _one_class(home: Home) -> None:
    days = {day: batch_of([{**row, "like": 0.0} for row in rows_of(batch)]) for day, batch in DAYS.items()}
    write_home(home, CONFIG, days, {})


@pytest.mark.parametrize(
    ("harm", "since", "until", "error", "says"),
    [
        (_drop_day, None, None, LogError, f"no rows on {ORDER[2]}"),
        (lambda home: None, ORDER[4] + timedelta(days=3), None, LogError, "has days 2024-03-01 to 2024-03-05"),
        (lambda home: None, None, ORDER[4] + timedelta(days=1), LogError, "no rows on 2024-03-06"),
        (_one_class, None, None, ConfigError, "label 'like' has only the value 0"),
    ],
    ids=["a day without rows", "since after the logs", "until after the logs", "one class"],
)
def test_what_cannot_be_trained_on_is_said_before_anything_is_written(
    tmp_path: Path, harm: Callable[[Home], None], since: date | None, until: date | None, error: type[Exception], says: str
) -> None:
    home = fill(Home(tmp_path))
    harm(home)
    with pytest.raises(error, match=says):
        train(CONFIG, home, since, until, False, QUIET)
    assert not (home.root / "registry").exists()
    assert not (home.root / "runs").exists()


def test_no_logs_and_days_of_the_window_are_refused(trained: tuple[Home, int], tmp_path: Path) -> None:
    with pytest.raises(LogError, match="no logs for dataset 'small'"):
        train(CONFIG, Home(tmp_path), None, None, False, QUIET)
    with pytest.raises(LogError, match="was trained on days up to"):
        evaluate(CONFIG, trained[0], ORDER[2], ORDER[3], None, QUIET)
    with pytest.raises(LogError, match="nothing to do"):
        train(CONFIG, trained[0], None, ORDER[2], False, QUIET)


RUN = """
import os, signal, sys
import data.features.merging as merging
import data.features.stretches as stretches
from datetime import date
from pathlib import Path
from rich.console import Console
from data.home import Home
from tests.test_training_run import CONFIG
from training.run import train

def die(event, arguments):  # the interpreter announces every file that it opens, renames, makes or lists
    if event in ("open", "os.rename", "os.mkdir", "os.scandir") and any(
        isinstance(path, (str, os.PathLike)) and Path(path).match(sys.argv[3]) for path in arguments
    ):
        os.kill(os.getpid(), signal.SIGKILL)

if os.environ.get("ALL_IN_FILES"):
    merging.MEMORY_ROWS, merging.BLOCK_ROWS, stretches.STRETCH_ROWS = 0, 100, 50
if len(sys.argv) > 3:
    sys.addaudithook(die)
print("version", train(CONFIG, Home(Path(sys.argv[1])), None, date.fromisoformat(sys.argv[2]), False, Console(quiet=True)))
"""


def run(home: Home, *kill_at: str, files: bool = False) -> subprocess.CompletedProcess[str]:
    """A run in a process of its own, which kills itself when it touches a path that matches ``kill_at``; with ``files``
    nothing is small enough for memory."""
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "TF_CPP_MIN_LOG_LEVEL": "3", "ALL_IN_FILES": "1" * files}
    command = [sys.executable, "-c", RUN, str(home.root), str(ORDER[3]), *kill_at]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def figures_after(home: Home, files: bool = False) -> dict[str, Any]:
    done = run(home, files=files)
    assert done.returncode == 0, done.stdout + done.stderr
    registry = Registry(home)
    assert registry.versions("small") == [registry.champion("small")]
    assert not list(home.registry("small").glob(".tmp*"))
    calibration = (registry.open("small").extra / CALIBRATION_FILE).read_text()
    return {**progressive(home, registry.versions("small")[0]), "later": later(home), "calibration": calibration}


def later(home: Home) -> Any:
    return evaluate(CONFIG, home, ORDER[4], ORDER[4], None, QUIET)["objectives"]


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_figures_to_the_bit(tmp_path: Path) -> None:
    """Killed while it merges totals, writes a checkpoint, trains and publishes, with the features' state in files; and
    once not at all, with all in memory."""
    quiet = figures_after(fill(Home(tmp_path / "quiet")))
    home = fill(Home(tmp_path / "killed"))
    for pattern, half_done in (
        ("runs/small/*/shelf/totals/user_tab/1/sums.npy", f"runs/small/*/after={ORDER[0]}"),
        (f"runs/small/*/.tmp-after={ORDER[1]}/trainer/*", f"runs/small/*/.tmp-after={ORDER[1]}"),
        (f"runs/small/*/after={ORDER[2]}", f"runs/small/*/.tmp-after={ORDER[2]}"),
        ("registry/small/.tmp-*/assets.extra/scorer.onnx", "registry/small/.tmp-*/saved_model.pb"),
    ):
        died = run(home, pattern, files=True)
        assert died.returncode == -signal.SIGKILL, died.stdout + died.stderr
        assert list(home.root.glob(half_done))
        assert Registry(home).versions("small") == []
    assert figures_after(home, files=True) == quiet


def test_the_seed_is_required() -> None:
    values = {key: value for key, value in CONFIG.model_dump(mode="json").items() if key != "seed"}
    with pytest.raises(ValueError, match="seed"):
        Config.model_validate(values)
