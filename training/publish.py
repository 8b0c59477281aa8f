"""Write a learner as a bundle."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from data.config import Config
from data.features.request import RequestEncoder
from data.features.settled import SettledUsers
from data.features.storage import save_arrays
from data.home import Home
from models.bundle import EXTRA
from models.cost import cost_figures
from models.export import export_saved_model, export_scorer
from models.registry import Registry
from models.scorer import SCORER_FILE
from training.learner import Learner
from training.plan import Plan

RUN_FILE = "run.json"


def publish(config: Config, home: Home, plan: Plan, learner: Learner, figures: Mapping[str, Any]) -> int:
    """Publish the learner as it stands, unless this run already has before it was killed. Returns the version. Not
    promoted."""
    registry = Registry(home)
    found = published_by(home, config.name, plan.key)
    if found is not None:
        return found
    means = dict(zip(config.objective_names, learner.rates.means.tolist(), strict=True))
    utilisation = (figures.get("gates") or {}).get("utilisation") or {}
    return registry.publish(
        config.name,
        plan.days[-1],
        lambda folder: write_bundle(folder, learner, figures, plan.key),
        config=config,
        first_day=plan.first_day,
        reference_means=means,
        utilisation=utilisation,
    )


def published_by(home: Home, name: str, run: str) -> int | None:
    """The version that the run with this key has published, or None."""
    for version in reversed(Registry(home).versions(name)):
        try:
            key = json.loads((home.registry(name) / str(version) / EXTRA / RUN_FILE).read_text())["key"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if key == run:
            return version
    return None


def write_bundle(folder: Path, learner: Learner, figures: Mapping[str, Any], run: str) -> None:
    """Everything of a bundle but its configuration and manifest; ``run`` is the key of the run that it came from."""
    extra = folder / EXTRA
    extra.mkdir(parents=True)
    try:
        with learner.trainer.averaged() as network:
            export_saved_model(network, folder)
            export_scorer(network, extra / SCORER_FILE)
            figures = {**figures, "cost": cost_figures(network)}
    except tf.errors.OpError as error:  # TensorFlow's writers have errors of their own for a full disk
        raise OSError(error.message) from error
    learner.save(extra, replay=False)
    learner.calibration.save(extra)
    write_counts(extra, learner)
    (extra / "metrics.json").write_text(json.dumps(figures, indent=1))
    (extra / RUN_FILE).write_text(json.dumps({"key": run}))


def write_counts(extra: Path, learner: Learner) -> None:
    """The videos' side, what is settled of users, and the indexes, as of the boundary of the learner's features."""
    with learner.trainer.averaged() as network:
        embeddings = write_catalogue(extra / "catalogue", learner, network)
    SettledUsers.write(learner.state, extra / "users")
    encoder = RequestEncoder(learner.state)
    videos = learner.state.tables.get("videos")
    learner.indexes.write(extra / "generators", encoder.video_ids, videos.batch if videos else None, embeddings)


def write_catalogue(folder: Path, learner: Learner, network: Any) -> np.ndarray[Any, Any]:
    """The video side of every known video and, as the last row, of an unknown one.

    Returns the videos' embeddings [V, D]: those of their categories, side by side, for the nearest-video index.
    """
    encoder = RequestEncoder(learner.state)
    block = encoder.catalogue()
    save_arrays({"ints": block.ints, "floats": block.floats, "valid_from": encoder.valid_from}, folder)
    (folder / "ids.json").write_text(json.dumps(encoder.video_ids, ensure_ascii=False), encoding="utf-8")
    embedded = block.ints.shape[1] and sum(network.layout.tables[f.table] for f in network.layout.sides["video"].ints)
    return np.asarray(network.embed("video", block)[:-1, : embedded or None], np.float32)
