"""Our side: the preset trained, published and scored by the very steps of `watchnext train` and `watchnext evaluate`."""

import shutil
from collections.abc import Sequence
from datetime import date

import numpy as np
from rich.console import Console

from benchmarks.quality_peers.table import Scores
from data.config import Config
from data.home import Home
from models.registry import Registry
from training.evaluate import score_days
from training.run import train


def our_scores(
    config: Config,
    home: Home,
    days: Sequence[date],
    judge: Sequence[date],
    objectives: Sequence[str],
    seed: int,
    console: Console,
) -> Scores:
    """Predictions of the judged days by a bundle trained on ``days``; the bundle is removed."""
    seeded = config.model_copy(update={"name": f"quality_{config.name}_{seed}", "seed": seed})
    version = train(seeded, home, days[0], days[-1], True, console)
    bundle = Registry(home).open(seeded.name, version)
    scored = list(score_days(bundle, seeded, home, judge[0], judge[-1], console))
    columns = [config.objective_names.index(name) for name in objectives]
    at_row, at_slate = (
        np.concatenate([getattr(day, key)[:, columns] for day in scored]) for key in ("predictions", "slate_predictions")
    )
    shutil.rmtree(home.registry(seeded.name))
    return at_row, at_slate
