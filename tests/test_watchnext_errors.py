"""Bad input on the command line, with a bundle in place: a sentence, an exit code, and nothing changed."""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

import watchnext
from data.columns import Batch, Strings
from data.config import load_config
from data.days import day_start
from data.home import Home
from models.registry import Registry
from tests.small_log import write_home

pytestmark = pytest.mark.slow  # trains and exports with TensorFlow

ROOT = Path(watchnext.__file__).parent
FIRST = date(2024, 3, 1)
DAYS = [FIRST + timedelta(days=i) for i in range(4)]
CONFIG = """
name = "mini"
dataset = "mini"
seed = 1
labels = { click = { type = "binary" } }
features = [{ kind = "category", name = "video", column = "video_id", dim = 2 }]
objectives = [{ name = "click", family = "engagement", label = "click", kind = "binary" }]
model = { trunk = { experts = 2, layers = [4] }, tower = [] }
evaluation = { bootstrap = 5, slices = SLICES }
log = { context = { CONTEXT } }
"""


def write_config(path: Path, context: str = "", slices: str = "[]") -> Path:
    path.write_text(CONFIG.replace("CONTEXT", context).replace("SLICES", slices))
    return path


def rows(day: date, count: int = 40, click: float | None = None) -> Batch:
    """Impressions a minute apart; every third is clicked, or all as ``click`` says."""
    times = day_start(day, "UTC") + 60_000 * np.arange(count)
    clicks = np.arange(count) % 3 == 0 if click is None else np.full(count, click)
    texts = {
        "user_id": Strings.of(f"u{i % 5}" for i in range(count)),
        "video_id": Strings.of(f"v{i % 7}" for i in range(count)),
    }
    return Batch({**texts, "timestamp": times, "visible_at": times, "click": clicks.astype(np.float64)})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with four days of logs, and a champion trained on two."""
    folder = tmp_path_factory.mktemp("trained")
    config = load_config(write_config(folder / "mini.toml"))
    home = Home(folder / "home")
    write_home(home, config, {day: rows(day) for day in DAYS}, {})
    from training.run import train

    train(config, home, None, DAYS[1], False, Console(quiet=True))
    return home.root


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_config(tmp_path / "mini.toml")


@pytest.fixture
def full(trained: Path, home: Path) -> Home:
    """The test's own copy of it."""
    shutil.copytree(trained, home)
    return Home(home)


def content(home: Home) -> Mapping[str, str]:
    """The hash of every file but the logs, the locks (who ran last) and those that SQLite keeps beside an open database."""
    passing = (".log", ".db-shm", ".db-wal")
    files = [path for path in home.root.rglob("*") if path.is_file() and path.suffix not in passing]
    ours = [path for path in files if path.parent != home.root / "locks"]
    return {str(path.relative_to(home.root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in ours}


def damage(home: Home, name: str = "scorer.onnx") -> None:
    """Flip a bit of one file of the champion."""
    path = next(home.registry("mini").rglob(name))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def drop_logs(home: Home) -> None:
    shutil.rmtree(home.logs("mini"))


def drop_day(home: Home) -> None:
    shutil.rmtree(home.day("mini", DAYS[2]))


def empty_day(home: Home) -> None:
    write_home(home, load_config(home.root.parent / "mini.toml"), {DAYS[2]: rows(DAYS[2], count=0)}, {})


def cut_day(home: Home) -> None:
    path = home.day("mini", DAYS[2]) / "rows.parquet"
    path.write_bytes(path.read_bytes()[:-20])


def one_class(home: Home) -> None:
    write_home(home, load_config(home.root.parent / "mini.toml"), {day: rows(day, click=0.0) for day in DAYS}, {})


def another_context(home: Home) -> None:
    write_config(home.root.parent / "mini.toml", 'tab = { type = "category" }', '["tab"]')


EVALUATE = ["evaluate", "CONFIG", "--days", f"{DAYS[2]}..{DAYS[3]}", "--json", "FIGURES"]
TRAIN = ["train", "CONFIG"]
FRESH = ["train", "CONFIG", "--fresh"]
REPORT = ["report", "CONFIG", "--days", f"{DAYS[2]}..{DAYS[3]}"]


@pytest.mark.parametrize(
    ("command", "harm", "says"),
    [
        (EVALUATE, damage, "scorer.onnx is damaged"),
        (REPORT, damage, "scorer.onnx is damaged"),
        (TRAIN, damage, "scorer.onnx is damaged"),
        (EVALUATE, drop_logs, "no logs"),
        (TRAIN, drop_logs, "no logs for dataset 'mini'"),
        (EVALUATE, drop_day, f"no rows on {DAYS[2]}"),
        (TRAIN, drop_day, f"no rows on {DAYS[2]}"),
        (EVALUATE, empty_day, f"no rows on {DAYS[2]}"),
        (TRAIN, empty_day, f"no rows on {DAYS[2]}"),
        (FRESH, empty_day, f"no rows on {DAYS[2]}"),
        (EVALUATE, cut_day, "cannot read"),
        (TRAIN, cut_day, "cannot read"),
        (EVALUATE, another_context, "lacks the columns tab"),
        (REPORT, another_context, "lacks the columns tab"),
        (TRAIN, another_context, "lacks the columns tab"),
        (FRESH, one_class, "label 'click' has only the value 0"),
    ],
    ids=lambda value: value.__name__ if callable(value) else value[0] if isinstance(value, list) else "",
)
def test_a_sentence_an_exit_code_and_nothing_changed(
    full: Home, config: Path, tmp_path: Path, command: list[str], harm: Callable[[Home], None], says: str
) -> None:
    harm(full)
    before, figures = content(full), tmp_path / "figures.json"
    figures.write_text("of before")
    result = CliRunner().invoke(watchnext.app, [{"CONFIG": str(config), "FIGURES": str(figures)}.get(w, w) for w in command])
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("watchnext: ")
    assert says in result.stderr
    assert "Traceback" not in result.output
    assert content(full) == before
    assert figures.read_text() == "of before"


def test_one_class_in_the_days_evaluated_is_no_error_but_has_its_reason(full: Home, config: Path, tmp_path: Path) -> None:
    one_class(full)
    figures = tmp_path / "figures.json"
    result = CliRunner().invoke(watchnext.app, ["evaluate", str(config), *EVALUATE[2:5], str(figures)])
    assert result.exit_code == 0, result.output
    click = json.loads(figures.read_text())["objectives"]["click"]
    assert (click["auc"], click["gauc"], click["positives"]) == (None, None, 0)
    assert {"auc", "gauc"} <= set(click["undefined"])


def test_in_a_process_of_its_own_stderr_is_that_sentence(full: Home, config: Path, tmp_path: Path) -> None:
    damage(full, "manifest.json")
    before = content(full)
    command = [str(config) if word == "CONFIG" else word for word in EVALUATE[:-1]]
    environment = {**os.environ, "WATCHNEXT_HOME": str(full.root)}
    done = subprocess.run(
        [sys.executable, "-m", "watchnext", *command, str(tmp_path / "figures.json")],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("watchnext: ")
    assert "manifest.json" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert content(full) == before
    assert not (tmp_path / "figures.json").exists()


def test_a_damaged_bundle_is_not_served_and_the_service_says_why(full: Home) -> None:
    damage(full)
    before = content(full)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "watchnext", "serve", "--name", "mini", "--port", str(port)]
    environment = {**os.environ, "WATCHNEXT_HOME": str(full.root)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        detail = _why_not_ready(f"http://127.0.0.1:{port}/readyz", server)
        server.terminate()
        output = b"".join(server.communicate()).decode()
    assert "scorer.onnx is damaged" in detail
    assert "scorer.onnx is damaged" in output
    assert "Traceback" not in output
    kept = content(full)  # the database notes which service ran
    assert {**kept, "watchnext.db": ""} == {**before, "watchnext.db": ""}
    assert Registry(full).champion("mini") == Registry(full).versions("mini")[-1]


def _why_not_ready(url: str, server: "subprocess.Popen[bytes]") -> str:
    while server.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5)
        except urllib.error.HTTPError as error:
            detail: str = json.load(error)["detail"]
            if "being loaded" not in detail:
                return detail
        except OSError:  # not listening yet
            pass
        time.sleep(0.1)
    return "it ended"


def test_a_day_trained_on_is_not_evaluated_on(full: Home, config: Path, tmp_path: Path) -> None:
    days = f"{DAYS[1]}..{DAYS[2]}"
    result = CliRunner().invoke(
        watchnext.app, ["evaluate", str(config), "--days", days, "--json", str(tmp_path / "figures.json")]
    )
    assert result.exit_code == 2
    assert f"was trained on days up to {DAYS[1]}" in result.stderr
    assert Registry(full).versions("mini")


def test_a_bundle_of_its_fit_days_alone_has_nothing_to_report(home: Path, config: Path) -> None:
    write_home(Home(home), load_config(config), {DAYS[0]: rows(DAYS[0])}, {})
    runner = CliRunner()
    assert runner.invoke(watchnext.app, ["train", str(config)]).exit_code == 0
    result = runner.invoke(watchnext.app, ["report", str(config)])
    assert result.exit_code == 2, result.output
    assert "nothing to report" in result.stderr
