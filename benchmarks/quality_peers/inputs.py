"""What a peer's network is fed of a window's arrays; numpy alone, for the peers' interpreter has no module of ours."""

import math
from pathlib import Path
from typing import Any

import numpy as np

ID = "video_id"
"""The table that settings may leave out, with the histories that share it."""


def keep(fields: dict[str, Any], with_ids: bool) -> dict[str, Any]:
    """The fields with the place of each in its array, those of the ids' table only ``with_ids``."""
    result = dict(fields)
    for part in ("categories", "sequences"):
        offset, kept = 0, []
        for field in fields[part]:
            if with_ids or field["table"] != ID:
                kept.append({**field, "offset": offset})
            offset += field["width"]
        result[part] = kept
    return result


def chosen_tasks(tasks: list[dict[str, Any]], objectives: list[str], which: str) -> list[dict[str, Any]]:
    return [
        task
        for task in tasks
        if task["name"] in objectives or which == "all" or (which == "binary" and task["kind"] == "binary")
    ]


def inputs(folder: Path, fields: dict[str, Any]) -> dict[str, np.ndarray]:
    """By name: a category [n], a sequence [n, w], all numbers [n, m]."""
    arrays = {name: np.load(folder / f"{name}.npy") for name in ("categories", "numbers", "sequences")}
    found = {f["name"]: arrays["categories"][:, f["offset"]] for f in fields["categories"]}
    for f in fields["sequences"]:
        found[f["name"]] = arrays["sequences"][:, f["offset"] : f["offset"] + f["width"]]
    return {**found, "numbers": arrays["numbers"]}


def prepared(targets: np.ndarray, tasks: list[dict[str, Any]], weight: float) -> np.ndarray:
    """[n, tasks]; a regression's are standardised logs, times the root of its weight: that weighs its squared error."""
    found = []
    for task in tasks:
        values = targets[:, task["column"]].astype(np.float32)
        if task["kind"] == "regression":
            values = np.log1p(values)
            values = (values - values.mean()) / values.std() * math.sqrt(weight)
        found.append(values)
    return np.stack(found, axis=1)
