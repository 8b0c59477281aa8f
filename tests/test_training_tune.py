"""A search: which trials are asked for, pruned, kept and resumed; what is written; what is refused."""

import json
import sqlite3
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from rich.console import Console

from data.config import Config, load_config
from data.errors import ConfigError, LogError
from data.home import Home
from tests.compare_log import CONFIG, ORDER, copied, fill
from training import tune as tuning
from training.compare_features import EncodedDays, encode_days
from training.compare_grid import read_model
from training.tune import open_study, tune
from training.tune_space import Space, choose
from training.tune_trial import run_trial, value_of

QUIET = Console(quiet=True)
SPACE: dict[str, Any] = {
    "name": "tiny",
    "base": "base.toml",
    "seed": 3,
    "trials": 6,
    "train": [str(ORDER[0]), str(ORDER[0])],
    "judge": [str(ORDER[1]), str(ORDER[2])],
    "reported": [str(ORDER[3]), str(ORDER[3])],
    "metrics": ["click.auc", "watch.order_accuracy"],
    "space": {
        "training.learning_rate": {"low": 1e-4, "high": 0.1, "log": True},
        "model.trunk.experts": {"low": 1, "high": 4},
        "model.tower": {"choices": [[4], [8, 4]]},
    },
}


def write_space(home: Home, **changes: Any) -> Path:
    values = {**SPACE, **changes}
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items() if key != "space"]
    for key, dimension in values["space"].items():
        lines += [f"[space.{json.dumps(key)}]", *(f"{k} = {json.dumps(v)}" for k, v in dimension.items())]
    path = home.root / "space.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home whose days are encoded for the search."""
    home = fill(tmp_path_factory.mktemp("home"))
    encode_days(CONFIG, home, home.root / "tune" / "tiny" / "encoded", ORDER[:3], ORDER[1:3])
    return home


class Pretended:
    """In place of training: a trial whose metrics are a function of its learning rate, and that can be interrupted."""

    def __init__(self, die_at: int | None = None, undefined: int | None = None) -> None:
        self.die_at, self.undefined = die_at, undefined
        self.asked: list[tuple[float, int]] = []

    def __call__(
        self, space: Space, config: Config, encoded: EncodedDays
    ) -> Generator[Mapping[str, float | None], None, None]:
        number = len(self.asked)
        self.asked.append((config.training.learning_rate, 0))
        for day in (1, 2):
            if number == self.die_at and day == 2:
                raise KeyboardInterrupt
            self.asked[number] = config.training.learning_rate, day
            good = 1 - abs(config.training.learning_rate - 0.01)
            yield dict.fromkeys(space.metrics, None if number == self.undefined else good)


def searched(home: Home, monkeypatch: pytest.MonkeyPatch, pretended: Pretended, **changes: Any) -> dict[str, Any]:
    monkeypatch.setattr(tuning, "run_trial", pretended)
    found: dict[str, Any] = json.loads(
        (tune(write_space(home, **changes), home, None, QUIET).parent / "trials.json").read_text()
    )
    return found


def test_an_interrupted_search_asks_for_the_same_trials(
    filled: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet, died, resumed = Pretended(), Pretended(die_at=3), Pretended()
    whole = searched(copied(filled, tmp_path / "whole"), monkeypatch, quiet)
    home = copied(filled, tmp_path / "died")
    with pytest.raises(KeyboardInterrupt):
        searched(home, monkeypatch, died)
    again = searched(home, monkeypatch, resumed)
    assert [rate for rate, _ in died.asked[:3] + resumed.asked] == [rate for rate, _ in quiet.asked]
    assert len(again["trials"]) == len(whole["trials"]) == 6
    assert [t["value"] for t in again["trials"]] == [t["value"] for t in whole["trials"]]
    assert len({rate for rate, _ in quiet.asked}) == 6


def test_a_finished_search_goes_on_only_if_more_is_asked_for(
    filled: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = copied(filled, tmp_path / "copy")
    searched(home, monkeypatch, Pretended(), trials=2)
    nothing, more = Pretended(), Pretended()
    searched(home, monkeypatch, nothing, trials=2)
    assert nothing.asked == []
    assert len(searched(home, monkeypatch, more, trials=3)["trials"]) == 3
    assert len(more.asked) == 1


def test_bad_trials_are_pruned_after_a_day_and_the_best_is_written_whole(
    filled: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, pretended = copied(filled, tmp_path / "copy"), Pretended(undefined=1)
    found = searched(home, monkeypatch, pretended, trials=14)
    states = [trial["state"] for trial in found["trials"]]
    assert states[1] == "pruned"  # undefined: there is no value to go by
    assert found["trials"][1]["value"] is None
    stopped = [i for i, state in enumerate(states) if state == "pruned" and i != 1]
    assert stopped
    assert min(stopped) >= tuning.STARTUP
    assert {pretended.asked[i][1] for i in stopped} == {1}
    complete = {t["number"]: t["value"] for t in found["trials"] if t["state"] == "complete"}
    assert found["best"] == max(complete, key=complete.__getitem__)
    best = next(trial["choices"] for trial in found["trials"] if trial["number"] == found["best"])
    written = load_config(home.root / "tune" / "tiny" / "best.toml")
    assert written.training.learning_rate == best["training.learning_rate"]
    assert list(written.model.tower) == best["model.tower"]
    assert written.objectives == CONFIG.objectives


def test_each_judged_day_is_scored_before_it_is_trained_on_and_no_later_day_is_read(filled: Home, tmp_path: Path) -> None:
    home = copied(filled, tmp_path / "copy")
    (home.day("small", ORDER[3]) / "rows.parquet").write_bytes(b"no day that this search may read")
    found = json.loads((tune(write_space(home, trials=1), home, None, QUIET).parent / "trials.json").read_text())
    (trial,) = found["trials"]
    assert list(trial["days"]) == [str(ORDER[1]), str(ORDER[2])]
    assert trial["value"] == pytest.approx(value_of(list(trial["days"].values())))
    space = read_model(write_space(home), Space)
    encoded = encode_days(CONFIG, home, home.root / "tune" / "tiny" / "encoded", ORDER[:3], ORDER[1:3])
    first = next(run_trial(space, space.config(CONFIG, trial["choices"]), encoded))
    assert first == trial["days"][str(ORDER[1])]


def test_the_study_is_kept_as_numbers_and_texts(filled: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = copied(filled, tmp_path / "copy")
    searched(home, monkeypatch, Pretended(), trials=2)
    with sqlite3.connect(home.root / "tune" / "tiny" / "study.db") as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        kinds = {type(value) for name in tables for row in database.execute(f"SELECT * FROM {name}") for value in row}
    database.close()
    assert kinds <= {str, int, float, type(None)}


def test_a_kept_search_of_another_protocol_is_refused(filled: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = copied(filled, tmp_path / "copy")
    searched(home, monkeypatch, Pretended(), trials=1)
    with pytest.raises(ConfigError, match="begun with other days, rows, metrics, base or space"):
        searched(home, monkeypatch, Pretended(), trials=1, metrics=["like.auc"])
    study = open_study(read_model(write_space(home), Space), home.root / "tune" / "tiny", _kept(home))
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE]


def _kept(home: Home) -> str:
    space = read_model(write_space(home, trials=1), Space)
    return tuning._protocol(space, CONFIG, home)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"judge": [str(ORDER[2]), str(ORDER[2])]}, "judge: expected to begin on the day after 2024-03-01"),
        ({"judge": [str(ORDER[0]), str(ORDER[2])]}, "judge: expected days after"),
        ({"reported": [str(ORDER[2]), str(ORDER[3])]}, "reported: expected days after"),
        ({"metrics": ["likes.auc"]}, "metrics: unknown objective 'likes'"),
        ({"metrics": ["watch.auc"]}, "'watch.auc': expected one of mse, mae"),
        ({"space": {"model.trunk.exprets": {"low": 1, "high": 2}}}, "model.trunk.mmoe.exprets: unknown key"),
        ({"space": {"dataset": {"choices": ["other"]}}}, "not 'dataset'"),
        ({"space": {"model.dropout": {"low": 0.5, "high": 0.1}}}, "expected low below high"),
        ({"space": {"model.dropout": {"low": 0.5}}}, "expected low and high, or choices"),
        ({"space": {"model.dropout": {"low": 0, "high": 1, "choices": [1]}}}, "not both"),
        ({"space": {}}, "space"),
        ({"pruner": "axe"}, "pruner"),
    ],
)
def test_a_wrong_space_is_named(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    home = fill(tmp_path)
    with pytest.raises(ConfigError, match=says):
        tune(write_space(home, **changes), home, 1, QUIET)


def test_days_without_rows_are_said(filled: Home, tmp_path: Path) -> None:
    home = copied(filled, tmp_path / "copy")
    with pytest.raises(LogError, match="no rows on 2024-03-05"):
        tune(write_space(home, judge=[str(ORDER[1]), "2024-03-05"], reported=["2024-03-06", "2024-03-06"]), home, 1, QUIET)


def test_values_are_means_over_days_and_metrics_the_larger_the_better() -> None:
    days = [{"a.auc": 0.6, "b.mae": 3.0}, {"a.auc": 0.8, "b.mae": None}]
    assert value_of(days) == pytest.approx((0.7 - 3.0) / 2)
    assert value_of([{"a.auc": None}]) is None


def test_choices_come_back_as_what_they_were() -> None:
    class First:
        def suggest_categorical(self, name: str, choices: Any) -> Any:
            return choices[-1]

        def suggest_int(self, name: str, low: int, high: int, **how: Any) -> int:
            return high

        def suggest_float(self, name: str, low: float, high: float, **how: Any) -> float:
            return high

    found = choose(Space.model_validate(SPACE), First())  # type: ignore[arg-type]
    assert found == {"training.learning_rate": 0.1, "model.trunk.experts": 4, "model.tower": [8, 4]}
