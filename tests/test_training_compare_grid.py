"""The grid's file: overrides by dotted keys, single-task configurations, and what is refused, by name."""

from pathlib import Path
from typing import Any

import pytest

from data.config import load_config
from data.errors import ConfigError
from tests.compare_log import CONFIG, ORDER, fill, tiny_config, write_grid
from training.compare_grid import base_config, designs, load_grid, override, single_task
from training.tune_toml import config_text

GRIDS = sorted((Path(__file__).resolve().parent.parent / "training" / "grids").glob("*.toml"))


def test_overrides_set_keys_of_tables_and_of_named_items() -> None:
    changed = override(
        CONFIG, {"training.learning_rate": 0.5, "features.user.dim": 7, "objectives.like.loss_weight": 3.0}, "here"
    )
    assert changed.training.learning_rate == 0.5
    assert {f.name: getattr(f, "dim", None) for f in changed.features}["user"] == 7
    assert [o.loss_weight for o in changed.objectives] == [1, 1, 3]
    assert override(changed, {"training.learning_rate": 1e-3}, "").training == CONFIG.training


def test_a_kind_starts_its_table_anew_wherever_it_stands() -> None:
    changed = override(CONFIG, {"model.trunk.layers": [3], "model.trunk.kind": "shared_bottom"}, "here").model.trunk
    assert (changed.kind, changed.layers) == ("shared_bottom", (3,))
    same = override(CONFIG, {"model.trunk.kind": "mmoe"}, "here").model.trunk
    assert same == CONFIG.model.trunk


def test_features_come_and_go_by_name() -> None:
    hour = {"kind": "clock", "part": "hour"}
    changed = override(CONFIG, {"features.user": False, "features.hour": hour}, "here")
    assert [f.name for f in changed.features] == ["video", "duration", "video_rate", "user_now", "position", "hour"]


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"model.trunk.exprets": 4}, "model.trunk.mmoe.exprets: unknown key"),
        ({"model.trnk.kind": "ple"}, r"unknown key 'model.trnk.kind': there is no 'trnk'"),
        ({"training.passes.more": 1}, r"unknown key 'training.passes.more'"),
        ({"features.nobody": False}, r"there is no 'nobody' to take out"),
        ({"features.user": 3}, "expected a table, or false"),
        ({"dataset": "other"}, "may change features, objectives, model, training, not 'dataset'"),
        ({"log.files": ["/secret"]}, "not 'log.files'"),
        ({"training.passes": 0}, "training.passes"),
    ],
)
def test_a_wrong_override_is_named(overrides: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match="variant 'x'") as error:
        override(CONFIG, overrides, "variant 'x'")
    assert error.match(says)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"baseline": "ple"}, "expected one of the variants mmoe, one expert, got 'ple'"),
        ({"seeds": [1, 1]}, "seeds: expected each once"),
        ({"report": [str(ORDER[2]), str(ORDER[3])]}, "report: expected days after"),
        ({"train": ["yesterday", str(ORDER[1])]}, "yesterday"),
        ({"colour": "red"}, "colour: unknown key"),
        ({"name": "../up"}, "name"),
        ({"variants": [{"name": "mmoe"}, {"name": "mmoe"}]}, "two variants of one name"),
    ],
)
def test_a_wrong_grid_is_named(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_grid(write_grid(fill(tmp_path), **changes))


@pytest.mark.parametrize("base", ["/etc/hosts", "../base.toml", "nothing.toml", "../presets/kuairand"])
def test_a_base_from_elsewhere_is_refused(tmp_path: Path, base: str) -> None:
    folder = tmp_path / "grids"
    folder.mkdir()
    (tmp_path / "base.toml").write_text(config_text(CONFIG, []))
    with pytest.raises(ConfigError, match="base: expected"):
        base_config(base, folder)


def test_a_single_task_network_has_its_objective_and_nothing_of_the_others() -> None:
    factors = [{"objectives": [o], "request": ["user"], "video": ["video"]} for o in ("click", "like")]
    whole = tiny_config(
        model={**CONFIG.model.model_dump(mode="json"), "factors": factors},
        ranking={"weights": {"click": 1.0, "like": 2.0}},
        gate={"margins": {"like": -0.1}},
        generators={"positive": "click"},
    )
    watch = single_task(whole, "watch")
    assert [(o.name, o.given) for o in watch.objectives] == [("watch", None)]
    assert watch.model.factors == ()
    assert [f.objectives for f in single_task(whole, "like").model.factors] == [("like",)]
    assert watch.features == whole.features


def test_tables_keyed_by_objective_keep_the_one_that_is_left() -> None:
    metadata = {"click": [1.0, 0.0], "watch": [0.0, 1.0], "like": [1.0, 1.0]}
    trunk = {"kind": "conditioned", "layers": [4], "metadata": metadata}
    whole = tiny_config(model={"trunk": trunk, "tower": [4]})
    alone = single_task(whole, "like").model.trunk
    assert alone.metadata == {"like": (1.0, 1.0)}  # type: ignore[union-attr]


@pytest.mark.parametrize("path", GRIDS, ids=lambda path: path.stem)
def test_a_shipped_grid_is_headed_by_its_command_and_stands_for_valid_designs(path: Path) -> None:
    assert "watchnext compare" in path.read_text().split("\n\n")[0]
    grid = load_grid(path)
    made = designs(grid, base_config(grid.base, path.parent))
    assert [design.name for design in made if design.only is None] == [variant.name for variant in grid.variants]
    assert {design.only for design in made if design.only} == set(made[0].whole.objective_names)


def test_a_written_configuration_reads_back_the_same(tmp_path: Path) -> None:
    for base in (CONFIG, base_config("kuairand", tmp_path), base_config("simulator", tmp_path)):
        path = tmp_path / "written.toml"
        path.write_text(config_text(base, ["A head."]))
        assert load_config(path) == base
