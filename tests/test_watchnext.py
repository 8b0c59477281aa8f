"""The command-line door: what a person sees when something is wrong, and the commands that scripts rely on."""

import json
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import watchnext
from data.errors import ConfigError, WatchNextError

ROOT = Path(watchnext.__file__).parent

CONFIG = """
name = "mini"
dataset = "mini"
seed = 1
log = {}
labels = { click = { type = "binary" } }
features = [{ kind = "category", name = "video", column = "video_id" }]
objectives = [{ name = "click", family = "engagement", label = "click", kind = "binary" }]
"""


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(watchnext.app, [str(argument) for argument in arguments])


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "mini.toml"
    path.write_text(CONFIG)
    return path


def says(result: Result, *parts: str) -> None:
    """Exit code 2, one message with these parts, and no traceback."""
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    for part in parts:
        assert part in result.stderr


def test_a_missing_configuration_is_named_with_the_presets() -> None:
    says(run("train", "nosuch"), "no configuration 'nosuch'", "kuairand")


def test_a_preset_is_found_by_its_name_only() -> None:
    assert watchnext.read_config("kuairand").name == "kuairand"
    with pytest.raises(ConfigError, match="no configuration"):
        watchnext.read_config("../presets/kuairand")


def test_an_unknown_key_is_named_with_its_file(config: Path) -> None:
    config.write_text(CONFIG.replace("seed = 1", "seed = 1\nsede = 2"))
    says(run("ingest", config, config.parent), str(config), "sede: unknown key")


def test_invalid_toml_is_one_sentence(config: Path) -> None:
    config.write_text("name = ")
    says(run("train", config), "is not valid TOML")


@pytest.mark.parametrize("option", ["--since", "--until"])
def test_a_bad_day_is_quoted(config: Path, option: str) -> None:
    says(run("train", config, option, "yesterday"), "expected a day as YYYY-MM-DD, got 'yesterday'")


@pytest.mark.parametrize(
    ("days", "what"),
    [
        ("2022-05-03", "expected days as FIRST..LAST"),
        ("2022-05-03..tomorrow", "expected a day as YYYY-MM-DD, got 'tomorrow'"),
        ("2022-05-05..2022-05-03", "the earlier day first"),
    ],
)
def test_bad_days_are_quoted_and_nothing_is_written(config: Path, tmp_path: Path, days: str, what: str) -> None:
    figures = tmp_path / "figures.json"
    says(run("evaluate", config, "--days", days, "--json", figures), what)
    assert not figures.exists()


def test_training_without_logs_is_one_sentence_and_publishes_nothing(config: Path, home: Path) -> None:
    says(run("train", config), "ingest")
    assert not (home / "registry").exists()


def test_ingesting_a_source_that_is_not_there_is_one_sentence(config: Path, tmp_path: Path) -> None:
    says(run("ingest", config, tmp_path / "nowhere"), "nowhere")


def test_a_name_without_bundles_is_one_sentence() -> None:
    says(run("models", "list", "mini"), "no bundle of 'mini'")
    says(run("models", "promote", "mini"), "no bundle of 'mini'")


def test_wrong_usage_exits_with_2(config: Path) -> None:
    assert run("evaluate", config).exit_code == 2
    assert run("nosuch").exit_code == 2


def test_a_bad_setting_of_the_service_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHNEXT_THREADS", "many")
    says(run("serve", "--port", "0"), "WATCHNEXT_THREADS", "'many'")


def test_an_interrupt_exits_with_130_and_says_how_to_go_on(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(watchnext, "read_config", interrupt)
    result = run("train", config)
    assert result.exit_code == 130
    assert "the same command goes on from there" in result.stderr


def test_a_defect_keeps_its_traceback() -> None:
    code = "import watchnext; watchnext.read_config = lambda text: 1 / 0; watchnext.main()"
    done = subprocess.run([sys.executable, "-c", code, "train", "x"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ZeroDivisionError" in done.stderr


def test_every_command_leaves_a_line_in_the_log(config: Path, home: Path) -> None:
    run("train", config)
    events = [json.loads(line) for line in (home / "watchnext.log").read_text().splitlines()]
    assert [(event["command"], event["event"]) for event in events] == [("train", "started"), ("train", "stopped")]


def test_days_are_both_inclusive() -> None:
    assert watchnext.parse_days("2022-05-03..2022-05-05") == (date(2022, 5, 3), date(2022, 5, 5))


def test_figures_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    watchnext.write_json(tmp_path / "new" / "figures.json", {"auc": None})
    assert json.loads((tmp_path / "new" / "figures.json").read_text()) == {"auc": None}
    with pytest.raises(ValueError, match="JSON compliant"):
        watchnext.write_json(tmp_path / "new" / "figures.json", {"auc": float("nan")})
    assert json.loads((tmp_path / "new" / "figures.json").read_text()) == {"auc": None}


def test_figures_that_cannot_be_written_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WatchNextError, match="cannot write"):
        watchnext.write_json(tmp_path / "file" / "figures.json", {})


@pytest.mark.slow
def test_the_demo_goes_round_the_whole_loop(home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "watchnext", "demo", "--rows", "20000"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "should watch next" in done.stdout
    assert list((home / "reports").glob("*.html"))
