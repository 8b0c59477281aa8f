"""What the day loop adds to training: gradient cosines that survive a kill; and what stops a warm start."""

import shutil
from datetime import date
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from data.home import Home
from models.step import Predicted, Trainer
from tests.small_log import small_config, small_days, small_tables, write_home
from training import days
from training.days import COSINE_ROWS, learn_days, run_folder
from training.figures import evaluate
from training.learner import Learner
from training.plan import differences, plan_run

DAYS = small_days(days=4)
SMALL = {"trunk": {"kind": "mmoe", "experts": 2, "layers": [4]}, "tower": [4]}
CONFIG = small_config(model=SMALL, evaluation={"bootstrap": 0, "gradient_cosines": True})
QUIET = Console(quiet=True)


def test_cosines_of_each_scored_day_before_training_on_it_outlive_a_kill(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training and cosines are stood in for: what is asked when, and what is kept, is the day loop's."""
    k = len(CONFIG.objectives)
    happened: list[str] = []
    killed = {sorted(DAYS)[2]}

    def cosines(_: Trainer, blocks: Any, targets: Any) -> Any:
        assert len(targets) == len(blocks["video"]) <= COSINE_ROWS
        happened.append("cosines")
        return np.where(np.eye(k) > 0, 1.0, np.nan)

    def predict(_: Trainer, blocks: Any) -> Predicted:
        return Predicted(np.full((len(blocks["video"]), k), 0.5, "f4"), np.ones((k, 1)), np.zeros(k), np.zeros((0, 0), bool))

    def train(_: Learner, day: date, *__: object) -> Any:
        if day in killed:
            raise KeyboardInterrupt
        happened.append(str(day))
        return np.zeros(k)

    monkeypatch.setattr(Trainer, "gradient_cosines", cosines)
    monkeypatch.setattr(Trainer, "predict_with_gates", predict)
    monkeypatch.setattr(Learner, "train", train)
    where = Home(home)
    write_home(where, CONFIG, DAYS, small_tables())
    plan = plan_run(CONFIG, where, None, None, True)
    with pytest.raises(KeyboardInterrupt):
        learn_days(CONFIG, where, plan, QUIET)
    killed.clear()
    _, scored = learn_days(CONFIG, where, plan, QUIET)
    first, second, third, fourth = (str(day) for day in sorted(DAYS))
    assert happened == [first, "cosines", second, "cosines", "cosines", third, "cosines", fourth]
    found = evaluate(scored, CONFIG)["gradient_cosines"]
    assert list(found) == [second, third, fourth]
    assert found[second] == [[1.0 if i == j else None for j in range(k)] for i in range(k)]

    files = run_folder(where, CONFIG, plan) / "scored"
    assert [file.stem for file in sorted(files.iterdir())] == [second, third, fourth]
    for limit, kept in ((1, [fourth]), (len(scored[-1].targets) + len(scored[-2].targets), [third, fourth])):
        monkeypatch.setattr(days, "SCORED_ROWS", limit)
        _, last = learn_days(CONFIG, where, plan, QUIET)
        assert [str(day.day) for day in last] == kept

    monkeypatch.setattr(days, "SCORED_ROWS", 1)
    shutil.rmtree(files.parent)
    _, last = learn_days(CONFIG, where, plan, QUIET)
    assert [str(day.day) for day in last] == [file.stem for file in files.iterdir()] == [fourth]


def test_a_network_does_not_go_on_across_another_balance_or_tower() -> None:
    assert differences(CONFIG, small_config(model=SMALL, training={"passes": 3, "balancing": {"kind": "fixed"}})) == []
    balanced = small_config(model=SMALL, training={"balancing": {"kind": "famo", "rate": 0.1}})
    assert differences(CONFIG, balanced) == ["training.balancing.kind"]
    assert differences(balanced, small_config(model=SMALL, training={"balancing": {"kind": "famo"}})) == []
    assert differences(CONFIG, small_config(model={**SMALL, "tower": [7]})) == ["model.tower"]
