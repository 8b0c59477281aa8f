"""LightGBM: one model per objective, of every feature that is one column; sequences are left out."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from benchmarks.quality_peers.table import Scores, judge_one
from benchmarks.quality_peers.trials import Between, Figures, OneOf, Settings, Space, Trial, best
from benchmarks.quality_peers.window import Window

TREES, PATIENCE, STEP = 1000, 40, 5
FIXED = {"objective": "binary", "metric": "auc", "bagging_freq": 1, "verbose": -1, "feature_pre_filter": False}
ID = "video_id"
"""The table of the category that is tried with and without: most of its values are seen a few times."""

SPACE: Space = {
    "learning_rate": Between(0.03, 0.15, log=True),
    "num_leaves": Between(7, 63, log=True, whole=True),
    "min_data_in_leaf": Between(20, 500, log=True, whole=True),
    "feature_fraction": Between(0.2, 1.0),
    "bagging_fraction": Between(0.5, 1.0),
    "lambda_l1": Between(1e-3, 10.0, log=True),
    "lambda_l2": Between(1e-3, 100.0, log=True),
    "cat_smooth": Between(10.0, 300.0, log=True),
    "ids": OneOf((False, True)),
}
FIRST: Settings = {
    "learning_rate": 0.05,
    "num_leaves": 31,
    "min_data_in_leaf": 50,
    "feature_fraction": 0.7,
    "bagging_fraction": 0.8,
    "lambda_l1": 0.0,
    "lambda_l2": 0.0,
    "cat_smooth": 50.0,
    "ids": False,
}


class Trees:
    """Settings are chosen per objective; so is the number of trees, by AUC + GAUC of the search's judged days. A fit ends
    when AUC has not grown for some trees."""

    name = "lightgbm"
    title = "LightGBM"

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.space, self.first = SPACE, FIRST

    def trial(self, window: Window, settings: Settings, seed: int) -> Figures:
        data = dataset(window, settings["ids"])
        parts = [matrix(window, part, settings["ids"])[0] for part in ("rows", "slates")]
        valid = data.create_valid(parts[0], np.zeros(len(parts[0])))
        figures = {}
        for k, name in enumerate(window.objectives):
            stop = lgb.early_stopping(PATIENCE, verbose=False)
            data.set_label(labels(window, name))
            valid.set_label(np.ascontiguousarray(window.judged.targets[:, k]))
            model = lgb.train(self._settings(settings, seed), data, TREES, [valid], callbacks=[stop])
            figures[name] = best_trees(model, window, k, parts)
        return figures

    def choose(self, trials: Sequence[Trial], objectives: Sequence[str]) -> dict[str, Any]:
        """By objective its own best settings with their trees."""
        chosen = {}
        for name in objectives:
            found = best(trials, [name])
            assert found.figures is not None
            chosen[name] = {**found.settings, "trees": int(found.figures[name]["trees"])}
        return chosen

    def scores(self, window: Window, chosen: Mapping[str, Settings], seeds: Sequence[int]) -> list[Scores]:
        by_objective = [self._scores(window, name, chosen[name], seeds) for name in window.objectives]
        return [
            (np.stack([own[s][0] for own in by_objective], 1), np.stack([own[s][1] for own in by_objective], 1))
            for s in range(len(seeds))
        ]

    def _scores(self, window: Window, name: str, chosen: Settings, seeds: Sequence[int]) -> list[Scores]:
        rows, slates = (matrix(window, part, chosen["ids"])[0] for part in ("rows", "slates"))
        models = self._models(window, name, chosen, seeds)
        return [(model.predict(rows), model.predict(slates)) for model in models]

    def _models(self, window: Window, name: str, chosen: Settings, seeds: Sequence[int]) -> Iterator[Any]:
        data = dataset(window, chosen["ids"])
        data.set_label(labels(window, name))
        return (lgb.train(self._settings(chosen, seed), data, chosen["trees"]) for seed in seeds)

    def _settings(self, settings: Settings, seed: int) -> dict[str, Any]:
        own = {key: value for key, value in settings.items() if key not in ("ids", "trees")}
        return {**own, **FIXED, "seed": seed, "num_threads": self.threads}


class StoppedTrees(Trees):
    """The settings that a search starts from with every column there is, ids too, stopped early on the last of the training
    days, as one would begin: not searched."""

    name = "lightgbm_stopped"
    title = "LightGBM, not searched"

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        self.space = {}

    def scores(self, window: Window, chosen: Mapping[str, Settings], seeds: Sequence[int]) -> list[Scores]:
        return super().scores(window, {name: {**FIRST, "ids": True} for name in window.objectives}, seeds)

    def _models(self, window: Window, name: str, chosen: Settings, seeds: Sequence[int]) -> Iterator[Any]:
        values, categories = matrix(window, "train", chosen["ids"])
        day, target = window.arrays("train")["day"], labels(window, name)
        last = day == day.max()
        options = {"categorical_feature": categories, "free_raw_data": False, "params": FIXED}
        data = lgb.Dataset(values[~last], target[~last], **options)
        valid = data.create_valid(values[last], target[last])
        stop = lgb.early_stopping(PATIENCE, verbose=False)
        return (lgb.train(self._settings(chosen, seed), data, TREES, [valid], callbacks=[stop]) for seed in seeds)


def best_trees(model: Any, window: Window, k: int, parts: Sequence[NDArray[Any]]) -> dict[str, float]:
    """AUC and GAUC of an objective with the number of trees, a multiple of STEP, whose sum of both is the largest."""
    scores = [np.zeros(len(part)) for part in parts]
    found = []
    for start in range(0, model.current_iteration() - STEP + 1, STEP):
        for score, part in zip(scores, parts, strict=True):
            score += model.predict(part, start_iteration=start, num_iteration=STEP, raw_score=True)
        found.append({**judge_one(window, k, *scores), "trees": start + STEP})
    return max(found, key=lambda figures: figures["auc"] + figures["gauc"])


def dataset(window: Window, with_ids: bool) -> Any:
    """The training rows, binned; whose label it is, is set later."""
    values, categories = matrix(window, "train", with_ids)
    return lgb.Dataset(values, np.zeros(len(values)), categorical_feature=categories, free_raw_data=False, params=FIXED)


def labels(window: Window, name: str) -> NDArray[Any]:
    return np.ascontiguousarray(window.arrays("train")["targets"][:, task_column(window, name)])


def matrix(window: Window, part: str, with_ids: bool) -> tuple[NDArray[np.float32], list[int]]:
    """Columns [n, m], categories first, and the places of these."""
    arrays = window.arrays(part)
    kept = [i for i, field in enumerate(window.fields["categories"]) if with_ids or field["table"] != ID]
    values = np.concatenate([arrays["categories"][:, kept].astype(np.float32), arrays["numbers"]], axis=1)
    return values, list(range(len(kept)))


def task_column(window: Window, name: str) -> int:
    """The place of an objective's targets.

    Raises:
        ValueError: some training row has no label of it.
    """
    found = {task["name"]: int(task["column"]) for task in window.fields["tasks"]}
    if name not in found:
        raise ValueError(f"{name} is no task of {window.folder}: {', '.join(found)}")
    return found[name]
