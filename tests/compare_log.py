"""A tiny log and configuration for comparisons and searches: few features, so that a training takes a second."""

import shutil
import tomllib
from pathlib import Path
from typing import Any

from data.config import Config
from data.home import Home
from tests.small_log import small_config, small_days, small_tables, write_home
from training.tune_toml import config_text

DAYS = small_days(days=4, requests=40)
ORDER = sorted(DAYS)
KEPT = ("user", "video", "video_rate", "user_now", "duration", "position")


def tiny_config(**changes: Any) -> Config:
    features = [f for f in small_config().model_dump(mode="json")["features"] if f["name"] in KEPT]
    values: dict[str, Any] = {
        "features": features,
        "model": {"trunk": {"kind": "mmoe", "experts": 2, "layers": [40]}, "tower": [4]},
        "training": {"batch_size": 64},
        "evaluation": {"bootstrap": 20},
    }
    return small_config(**{**values, **changes})


CONFIG = tiny_config()


def fill(folder: Path) -> Home:
    """A home with the log, ``folder/base.toml`` and nothing else."""
    home = Home(folder)
    write_home(home, CONFIG, DAYS, small_tables())
    (folder / "base.toml").write_text(config_text(CONFIG, ["The tests' configuration."]))
    return home


def copied(home: Home, folder: Path) -> Home:
    return Home(shutil.copytree(home.root, folder))


GRID = f"""
name = "tiny"
base = "base.toml"
seeds = [1]
train = ["{ORDER[0]}", "{ORDER[2]}"]
report = ["{ORDER[3]}", "{ORDER[3]}"]
baseline = "mmoe"
match = "parameters"
bootstrap = 40

[[variants]]
name = "mmoe"

[[variants]]
name = "one expert"
overrides = {{ "model.trunk.experts" = 1 }}
"""


def write_grid(home: Home, **changes: Any) -> Path:
    """The grid's file, some of its keys changed."""
    import json

    values = {**tomllib.loads(GRID), **changes}
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items() if key not in ("variants", "single_task")]
    for variant in values["variants"]:
        pairs = ", ".join(f"{json.dumps(k)} = {json.dumps(v)}" for k, v in variant.get("overrides", {}).items())
        lines += ["[[variants]]", f"name = {json.dumps(variant['name'])}", f"overrides = {{ {pairs} }}"]
    if "single_task" in values:
        lines.append("[single_task]")
    path = home.root / "grid.toml"
    path.write_text("\n".join(lines) + "\n")
    return path
