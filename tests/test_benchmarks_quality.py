"""Quality against peers: arrays that others can read, a search that resumes, and a table that says who is ahead."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from benchmarks import quality_kuairand as benchmark
from benchmarks.quality_peers import networks as peers_networks
from benchmarks.quality_peers.inputs import chosen_tasks, inputs, keep, prepared
from benchmarks.quality_peers.networks import networks
from benchmarks.quality_peers.table import OURS, Scores, against, judge, outcome, show
from benchmarks.quality_peers.trees import Trees, matrix
from benchmarks.quality_peers.trials import Between, OneOf, Trial, best, draw, read, search, value
from benchmarks.quality_peers.window import PARTS, Window, build, columns, save, scaled, standard
from data.features.layout import PADDING, Block, FloatField, IntField, Layout, SideLayout
from data.home import Home
from tests.compare_log import CONFIG, ORDER, fill
from training.compare_cell import Judged

OBJECTIVES = ("click", "like")
SPACE = {"rate": Between(1e-3, 1e-1, log=True), "leaves": Between(4, 9, whole=True), "ids": OneOf((False, True))}
USERS, ROWS, TRAINED = 60, 1200, 900


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Window:
    """Rows whose labels follow the first number, of 60 users in slates of 4; the numbers are the same at slate time."""
    rng = np.random.default_rng(1)
    folder = tmp_path_factory.mktemp("windows") / "key"
    parts = {}
    for part, n in (("train", TRAINED), ("rows", ROWS), ("slates", ROWS)):
        parts[part] = {
            "categories": rng.integers(1, 5, (n, 2)).astype(np.int32),
            "numbers": rng.normal(size=(n, 3)).astype(np.float32),
            "sequences": rng.integers(0, 5, (n, 4)).astype(np.int32),
        }
    parts["slates"] = parts["rows"]
    targets = {p: labels(rng, parts[p]["numbers"][:, 0]) for p in ("train", "rows")}
    parts["train"] |= {"targets": targets["train"], "day": np.repeat([0, 1, 2], TRAINED // 3)}
    for part, arrays in parts.items():
        save(folder / part, arrays)
    fields = {
        "categories": [field("video", "video_id", 1), field("tab", "tab", 1)],
        "sequences": [field("watched", "video_id", 3), field("tags", "tags", 1)],
        "numbers": ["a", "b", "c"],
        "tasks": [{"name": name, "kind": "binary", "column": k} for k, name in enumerate(OBJECTIVES)],
    }
    (folder / "fields.json").write_text(json.dumps(fields))
    judged = Judged(targets["rows"], np.arange(ROWS) % USERS, np.arange(ROWS) // 4)
    return Window(folder, folder, OBJECTIVES, judged)


def field(name: str, table: str, width: int) -> dict[str, Any]:
    return {"name": name, "table": table, "rows": 5, "width": width}


def labels(rng: np.random.Generator, truth: np.ndarray) -> np.ndarray:
    return (truth[:, None] + rng.normal(size=(len(truth), 2)) > [0, 1]).astype(np.float32)


def scores(window: Window, noise: float, seed: int) -> Scores:
    truth = window.arrays("rows")["numbers"][:, :1]
    found = truth + noise * np.random.default_rng(seed).normal(size=(ROWS, 2))
    return found, found


def test_columns_are_rows_of_tables_from_one_on() -> None:
    sides = {
        "user": SideLayout((IntField("age", "age", 0, 1, False),), (FloatField("count", 0, ("count",)),)),
        "video": SideLayout((IntField("tags", "tags", 0, 3, True),)),
        "training_only": SideLayout((), (FloatField("position", 0, ("position",)),)),
    }
    layout = Layout({side: sides.get(side, SideLayout()) for side in ("user", "context", "video", "cross", "training_only")})
    none = Block(np.zeros((2, 0), np.int32), np.zeros((2, 0), np.float32))
    blocks = {
        **dict.fromkeys(layout.sides, none),
        "user": Block(np.array([[3], [4]], np.int32), np.array([[0.5], [2]], np.float32)),
        "video": Block(np.array([[2, 0, PADDING], [9, PADDING, PADDING]], np.int32), none.floats),
        "training_only": Block(none.ints, np.ones((2, 1), np.float32)),
    }
    found = columns(blocks, layout, {"age": 4, "tags": 9})
    assert found["categories"].tolist() == [[4], [1]]  # 4 is a row that training had not: that of the unseen
    assert found["sequences"].tolist() == [[3, 1, 0], [1, 0, 0]]
    assert found["numbers"].tolist() == [[0.5], [2.0]]


def test_numbers_are_standardised_by_the_training_rows() -> None:
    scale = standard(np.array([[1.0, 7.0], [3.0, 7.0]]))
    found = scaled({"numbers": np.array([[4.0, 7.5]])}, scale)
    assert found["numbers"].tolist() == [[2.0, 0.5]]


def test_a_window_of_a_log_is_written_once_and_read_back(tmp_path: Path) -> None:
    home = fill(tmp_path)
    names = [o.name for o in CONFIG.objectives if o.kind == "binary"]
    made = build(CONFIG, home, tmp_path / "peers", ORDER[:2], ORDER[2:3], names)
    again = build(CONFIG, home, tmp_path / "peers", ORDER[:2], ORDER[2:3], names)
    assert again.folder == made.folder
    rows, train = made.arrays("rows"), made.arrays("train")
    assert len(rows["numbers"]) == len(made.judged.user) == len(made.arrays("slates")["numbers"])
    assert set(train) == {*PARTS, "targets", "day"}
    assert sorted(set(train["day"].tolist())) == [0, 1]
    widths = {part: sum(f["width"] for f in made.fields[part]) for part in ("categories", "sequences")}
    assert {part: rows[part].shape[1] for part in widths} == widths
    for part in widths:
        limit = np.repeat([f["rows"] for f in made.fields[part]], [f["width"] for f in made.fields[part]])
        assert (rows[part] < limit).all()
        assert (train[part] < limit).all()


def test_a_peer_is_fed_by_name(window: Window) -> None:
    fields, arrays = keep(dict(window.fields), True), window.arrays("rows")
    found = inputs(window.folder / "rows", fields)
    assert set(found) == {"video", "tab", "watched", "tags", "numbers"}
    assert np.array_equal(found["tab"], arrays["categories"][:, 1])
    assert np.array_equal(found["tags"], arrays["sequences"][:, 3:])
    without = inputs(window.folder / "rows", keep(dict(window.fields), False))
    assert set(without) == {"tab", "tags", "numbers"}
    assert np.array_equal(without["tags"], found["tags"])
    assert np.array_equal(without["tab"], found["tab"])


def test_a_regressions_loss_is_weighed_by_its_targets_scale() -> None:
    tasks = [
        {"name": "click", "kind": "binary", "column": 0},
        {"name": "watch", "kind": "regression", "column": 1},
        {"name": "hate", "kind": "binary", "column": 2},
    ]
    found = prepared(np.array([[1, 0, 0], [0, np.expm1(2), 0]]), tasks[:2], 0.25)
    assert found.tolist() == [[1.0, -0.5], [0.0, 0.5]]
    chosen = {which: [t["name"] for t in chosen_tasks(tasks, ["click"], which)] for which in ("judged", "binary", "all")}
    assert chosen == {"judged": ["click"], "binary": ["click", "hate"], "all": ["click", "watch", "hate"]}


def test_a_trial_is_drawn_from_its_number_alone() -> None:
    drawn = [draw(SPACE, {"rate": 1.0}, 7, number) for number in range(30)]
    assert drawn[0] == {"rate": 1.0}
    assert drawn == [draw(SPACE, {"rate": 1.0}, 7, number) for number in range(30)]
    assert {d["leaves"] for d in drawn[1:]} == {4, 5, 6, 7, 8, 9}
    assert {d["ids"] for d in drawn[1:]} == {False, True}
    rates = [d["rate"] for d in drawn[1:]]
    assert 1e-3 <= min(rates) < 1e-2 < max(rates) <= 1e-1


def test_a_search_resumes_after_its_last_whole_trial(tmp_path: Path) -> None:
    asked: list[Any] = []

    def evaluate(settings: Any) -> dict[str, dict[str, float]]:
        asked.append(settings)
        return {"click": {"auc": 0.5 + settings.get("rate", 0), "gauc": 0.5}}

    path = tmp_path / "peer.jsonl"
    first = list(search(path, SPACE, {}, 7, 3, evaluate))
    path.write_text(path.read_text()[:-20])  # killed while it wrote the third
    assert len(read(path)) == 2
    asked.clear()
    again = list(search(path, SPACE, {}, 7, 4, evaluate))
    assert len(asked) == 2
    assert [t.settings for t in again[:3]] == [t.settings for t in first]
    assert [trial.number for trial in read(path)] == [0, 1, 2, 3]


def test_the_best_trial_is_chosen_by_auc_and_gauc_and_never_one_that_failed() -> None:
    trials = [
        Trial(0, {"a": 0}, None, 1.0),
        Trial(1, {"a": 1}, {"click": {"auc": 0.7, "gauc": 0.6}, "like": {"auc": 0.6, "gauc": 0.5}}, 1.0),
        Trial(2, {"a": 2}, {"click": {"auc": 0.8, "gauc": 0.4}, "like": {"auc": 0.7, "gauc": 0.6}}, 1.0),
    ]
    assert best(trials, ["click"]).number == 1
    assert best(trials, ["like"]).number == 2
    assert best(trials, OBJECTIVES).number == 2
    assert value(trials[2], OBJECTIVES) == pytest.approx(1.25)
    with pytest.raises(ValueError, match="none of 1 trials"):
        best(trials[:1], ["click"])


def test_trees_learn_each_objective_with_their_own_settings(window: Window) -> None:
    trees = Trees(1)
    settings = {**trees.first, "learning_rate": 0.2}
    figures = trees.trial(window, settings, 1)
    assert figures["click"]["auc"] > 0.75
    assert figures["like"]["trees"] >= 5
    trials = [Trial(0, settings, figures, 1.0), Trial(1, {**settings, "ids": True}, figures, 1.0)]
    chosen = trees.choose(trials, OBJECTIVES)
    assert chosen["click"] == {**settings, "trees": figures["click"]["trees"]}
    made = trees.scores(window, chosen, [1, 2])
    found = judge(window, *made[0])
    assert [found[name]["gauc"] for name in OBJECTIVES] == pytest.approx([figures[name]["gauc"] for name in OBJECTIVES])
    assert not np.array_equal(made[0][0], made[1][0])
    assert [matrix(window, "rows", with_ids)[1] for with_ids in (False, True)] == [[0], [0, 1]]


STUB = """
import json, sys
import numpy as np
job = json.load(open(sys.argv[1] + "/job.json"))
for seed in job["seeds"]:
    for part in ("rows", "slates"):
        numbers = np.load(job["window"] + "/" + part + "/numbers.npy")
        np.save(f"{sys.argv[1]}/{part}-{seed}.npy", numbers[:, :2] * job["settings"]["scale"])
assert job["settings"]["scale"], "no scale"
"""


def test_a_networks_predictions_come_back_from_another_interpreter(
    window: Window, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = tmp_path / "worker.py"
    worker.write_text(STUB)
    monkeypatch.setattr(peers_networks, "WORKER", worker)
    monkeypatch.setattr(peers_networks, "python_of", lambda name: Path(sys.executable))
    network = networks(1)[0]
    found = network.scores(window, {"scale": 2.0}, [4, 5])
    assert len(found) == 2
    assert np.array_equal(found[1][0], window.arrays("rows")["numbers"][:, :2] * 2)
    assert network.trial(window, {"scale": float("nan")}, 4) is None
    with pytest.raises(RuntimeError, match="no scale"):
        network.scores(window, {"scale": 0.0}, [4])
    assert list(window.folder.parent.iterdir()) == [window.folder]  # no scratch is left


def test_ours_is_set_against_the_best_peer_of_each_objective(window: Window) -> None:
    def seeds(click: float, like: float) -> list[Any]:
        made = []
        for seed in (1, 2, 3):
            a, b = scores(window, click, seed)[0], scores(window, like, seed)[0]
            both = np.stack([a[:, 0], b[:, 1]], axis=1)
            made.append(outcome(window, (both, both), 200))
        return made

    outcomes = {OURS: seeds(0.2, 0.2), "one": seeds(0.5, 4.0), "two": seeds(4.0, 0.5)}
    figures = against(outcomes, OBJECTIVES)
    assert figures["best"] == {"click": {"auc": "one", "gauc": "one"}, "like": {"auc": "two", "gauc": "two"}}
    gaps = [figures["differences"][peer][name]["auc"]["mean"] for name, peer in (("click", "one"), ("like", "two"))]
    assert figures["mean_auc"]["mean"] == pytest.approx(np.mean(gaps))
    low, high = figures["mean_auc"]["interval"]
    assert 0 < low < figures["mean_auc"]["mean"] < high
    assert figures["target"]["mean_auc_above_interval"]
    assert all(figures["target"]["auc_above_best"].values())
    worse = against({**outcomes, OURS: outcomes["one"], "one": outcomes[OURS]}, OBJECTIVES)
    assert not worse["target"]["auc_above_best"]["click"]
    assert not worse["target"]["mean_auc_above_interval"]
    assert worse["target"]["gauc_within_margin"] == {"click": False, "like": False}
    console = Console(record=True, width=200)
    show(figures, {OURS: "ours", "one": "One", "two": "Two"}, OBJECTIVES, console)
    text = console.export_text()
    assert "like: AUC above the best peer's (Two)" in text
    assert "more than its interval" in text


class Stub:
    """A peer whose scores are the truth with noise, less of it with a larger ``power``."""

    def __init__(self, name: str) -> None:
        self.name = self.title = name
        self.space, self.first = {"power": Between(1.0, 9.0)}, {"power": 0.1}

    def trial(self, window: Window, settings: Any, seed: int) -> Any:
        return judge(window, *scores(window, 1 / settings["power"], seed))

    def choose(self, trials: Sequence[Trial], objectives: Sequence[str]) -> Any:
        return best(trials, objectives).settings

    def scores(self, window: Window, chosen: Any, seeds: Sequence[int]) -> list[Scores]:
        return [scores(window, 1 / chosen["power"], seed) for seed in seeds]


def test_tuning_writes_what_each_peer_chose(window: Window, tmp_path: Path) -> None:
    quiet = Console(quiet=True)
    benchmark.tune(window, [Stub("a")], 4, tmp_path, quiet)
    benchmark.tune(window, [Stub("b")], 2, tmp_path, quiet)
    chosen = json.loads((tmp_path / "chosen.json").read_text())
    drawn = [draw({"power": Between(1.0, 9.0)}, {"power": 0.1}, benchmark.SEARCH_SEED, n)["power"] for n in range(4)]
    assert chosen["a"]["settings"] == {"power": max(drawn)}
    assert chosen["a"]["trials"] == 4
    assert chosen["b"]["settings"] == {"power": max(drawn[:2])}


def test_reported_days_are_not_tuned_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert benchmark.TUNING[2] < benchmark.REPORTED[2]
    assert benchmark.TUNING[2] == benchmark.REPORTED[1]
    monkeypatch.setattr(sys, "argv", ["quality_kuairand.py", "--tune", "--report"])
    with pytest.raises(SystemExit):
        benchmark.main()
    assert Home.from_environment().root.exists() is False
