"""The MMoE of DeepCTR-Torch and of torch-rechub: arrays out, predictions in; learnt by their own environment's Python."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.quality_peers.table import Scores, judge
from benchmarks.quality_peers.trials import Between, Figures, OneOf, Settings, Space, Trial, best
from benchmarks.quality_peers.window import Window
from benchmarks.rivals import environment, python_of

WORKER = Path(__file__).with_name("torch_worker.py")
LAYERS = OneOf(([64], [64, 32], [128, 64], [256, 128]))
SHARED: Space = {
    "experts": Between(2, 6, whole=True),
    "layers": LAYERS,
    "tower": OneOf(([], [32], [64])),
    "dropout": Between(0.0, 0.4),
    "dim": OneOf((4, 8, 16)),
    "init": OneOf((1e-4, 1e-2, 5e-2)),
    "learning_rate": Between(3e-4, 1e-2, log=True),
    "weight_decay": Between(1e-7, 1e-3, log=True),
    "batch_size": OneOf((256, 512, 1024)),
    "epochs": Between(1, 2, whole=True),
    "order": OneOf(("days", "shuffled")),
    "tasks": OneOf(("judged", "binary", "all")),
    "regression_weight": OneOf((0.2, 1.0)),
    "ids": OneOf((False, True)),
}
"""``order``: day after day as ours learns, or all days shuffled. ``ids``: with the video's id and what shares its table, or
without. ``tasks``: the judged objectives, all binary ones, or the regression too, its loss weighed by its target's scale
(neither library has weights of losses)."""
FIRST: Settings = {
    "experts": 6,
    "layers": [128, 64],
    "tower": [32],
    "dropout": 0.1,
    "dim": 8,
    "init": 1e-4,
    "learning_rate": 1e-3,
    "weight_decay": 1e-5,
    "batch_size": 256,
    "epochs": 1,
    "order": "shuffled",
    "tasks": "all",
    "regression_weight": 0.2,
    "ids": True,
}


class Network:
    """One of the two libraries."""

    def __init__(self, name: str, title: str, own: Space, first: Settings, threads: int) -> None:
        self.name, self.title, self.threads = name, title, threads
        self.space: Space = {**SHARED, **own}
        self.first: Settings = {**FIRST, **first}

    def trial(self, window: Window, settings: Settings, seed: int) -> Figures | None:
        at_row, at_slate = self.scores(window, settings, [seed])[0]
        if not (np.isfinite(at_row).all() and np.isfinite(at_slate).all()):
            return None
        return judge(window, at_row, at_slate)

    def choose(self, trials: Sequence[Trial], objectives: Sequence[str]) -> Settings:
        """One network for all objectives."""
        return best(trials, objectives).settings

    def scores(self, window: Window, chosen: Settings, seeds: Sequence[int]) -> list[Scores]:
        with TemporaryDirectory(dir=window.folder.parent) as scratch:
            job = {
                "library": self.name,
                "window": str(window.folder),
                "objectives": window.objectives,
                "settings": chosen,
                "seeds": list(seeds),
                "threads": self.threads,
            }
            run(Path(scratch), job)
            return [
                (np.load(Path(scratch) / f"rows-{seed}.npy"), np.load(Path(scratch) / f"slates-{seed}.npy"))
                for seed in seeds
            ]


def run(folder: Path, job: Mapping[str, Any]) -> None:
    """Do a job in the peers' environment; its predictions are in ``folder`` then.

    Raises:
        RuntimeError: it failed, with the end of what it said.
    """
    (folder / "job.json").write_text(json.dumps(job))
    command = [str(python_of("torch")), str(WORKER), str(folder)]
    # Output as bytes: their progress bars are no text to rely on.
    done = subprocess.run(command, capture_output=True, env={**environment(), "OMP_NUM_THREADS": str(job["threads"])})
    if done.returncode:
        raise RuntimeError(
            f"{job['library']} with {job['settings']} failed:\n{done.stderr.decode(errors='replace')[-2000:]}"
        )


def networks(threads: int) -> list[Network]:
    """Both, with what only one of them has: gates with a layer of their own; losses weighed by their uncertainty."""
    return [
        Network(
            "deepctr_torch",
            "DeepCTR-Torch MMoE",
            {"embedding_l2": Between(1e-6, 1e-1, log=True), "gate": OneOf(([], [64]))},
            {"embedding_l2": 1e-5, "gate": [64]},
            threads,
        ),
        Network(
            "torch_rechub",
            "torch-rechub MMoE",
            {"embedding_l2": Between(1e-8, 1e-3, log=True), "balancing": OneOf((None, "uwl"))},
            {"embedding_l2": 0.0, "balancing": None},
            threads,
        ),
    ]
