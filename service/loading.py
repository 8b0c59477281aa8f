"""From the registry to something that can answer: load the champion, check it, warm it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import structlog

from data.errors import BundleError, WatchNextError
from data.features.layout import Block
from data.features.request import RequestEncoder
from data.features.settled import SettledUsers
from data.features.state import FeatureState
from data.features.storage import load_array
from models.bundle import Bundle
from models.leases import Lease
from models.ranking import Ranking
from models.registry import Registry
from models.scorer import Scorer
from service.generators.sources import load_sources
from service.precision import in_bfloat16, ranking_scores
from service.serving import Serving
from service.settings import Settings

log = structlog.get_logger()

WARM_SIZES = (1, 20, 200, 500, 2000)
"""Numbers of candidates that are scored once before the service says it is ready."""


class Loader(Protocol):
    """Loads what is to serve; tests bring their own."""

    def __call__(self, settings: Settings) -> Serving: ...


def load_champion(settings: Settings) -> Serving:
    """The champion of the settings' name, or the last good version where the champion is refused.

    Raises:
        WatchNextError: there is none, or it does not fit; the text says what to do.
    """
    name, registry = served_name(settings), Registry(settings.home_folder())
    if not registry.versions(name):
        folder = settings.home_folder().registry(name)
        raise WatchNextError(f"there is no bundle in {folder} yet: run `watchnext train` first")
    return serve_bundle(registry.open_serving(name), settings.bfloat16_calls)


def serve_bundle(bundle: Bundle, bfloat16: int = 0) -> Serving:
    """Everything of a bundle that requests need. ``bfloat16``: score in it (:mod:`service.precision`), in so many threads at
    once; 0: in float32."""
    config, lease = bundle.config, Lease(bundle.folder)
    state = FeatureState.load(bundle.state, config)
    features = RequestEncoder(state, load_users(bundle, state))
    scorer = Scorer.load(bundle.extra)
    if scorer.objectives != config.objective_names:
        raise BundleError(f"{bundle.extra}: the scorer predicts {scorer.objectives}, expected {config.objective_names}")
    catalogue = load_catalogue(bundle, features)
    encode = scorer.keeping(len(catalogue))
    ranking = Ranking.of(config.ranking, config.objectives, bundle.manifest.reference_means)
    warn_of_gaps(ranking, {**bundle.manifest.reference_means, **config.ranking.reference_means})
    serving = Serving(
        name=bundle.name,
        version=bundle.version,
        window=(bundle.manifest.window.first_day, bundle.manifest.window.last_day),
        config=config,
        features=features,
        scorer=scorer,
        catalogue=encode(catalogue),
        sources=load_sources(bundle, features),
        ranking=ranking,
        encode=encode,
        lease=lease,
    )
    return in_bfloat16(serving, bundle.extra, bfloat16) if bfloat16 else serving


def load_version(settings: Settings, name: str, version: int) -> Serving:
    """One version, every file compared with its checksum. Raises BundleError where it is refused."""
    return serve_bundle(Registry(settings.home_folder()).open(name, version), settings.bfloat16_calls)


def load_catalogue(bundle: Bundle, features: RequestEncoder) -> Block:
    """The videos' features as the bundle has them, mapped into memory so that worker processes share them."""
    block = Block(load_array(bundle.catalogue / "ints.npy"), load_array(bundle.catalogue / "floats.npy"))
    expected = len(features.video_ids) + 1
    if (len(block.ints), len(block.floats)) != (expected, expected):
        raise BundleError(f"{bundle.catalogue} has {len(block.ints)} rows, expected {expected}")
    return block


def load_users(bundle: Bundle, state: FeatureState) -> SettledUsers | None:
    """What is settled of users as the bundle has it, mapped; None where it was made before bundles had that, so that every
    request goes over the user's entries."""
    if not bundle.users.is_dir():
        return None
    settled = SettledUsers.load(bundle.users)
    expected = len(state.knowledge.vocabularies["user_id"]) + 1
    if {len(settled), len(settled.ints), len(settled.floats)} != {expected}:
        raise BundleError(f"{bundle.users} has {len(settled)} rows, expected {expected}")
    return settled


def warn_of_gaps(ranking: Ranking, means: Mapping[str, float | None]) -> None:
    """Say which objectives don't move the score, and which do so without a scale (``means`` by objective)."""
    for name in ranking.unweighted:
        log.warning("objective has no ranking weight: it is predicted but moves no score", objective=name)
    for name in ranking.objectives:
        if name not in ranking.unweighted and not (means.get(name) or 0) > 0:
            log.warning("objective has no reference mean: its predictions count unscaled", objective=name)


def warm(serving: Serving) -> None:
    """Score once in every usual size, so that no user waits for what is done only the first time."""
    videos = len(serving.features.video_ids)
    for size in WARM_SIZES:
        ranking_scores(serving, "", np.resize(np.arange(videos + 1), size) - 1)


def served_name(settings: Settings) -> str:
    """The settings' name, or the only one in the registry."""
    if settings.name is not None:
        return settings.name
    folder = settings.home_folder().root / "registry"
    names = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    if not names:
        raise WatchNextError(f"there is no bundle under {folder} yet: run `watchnext train` first")
    if len(names) > 1:
        raise WatchNextError(f"the registry holds {', '.join(names)}: say which to serve with WATCHNEXT_NAME or --name")
    return names[0]


def read_blocked(path: Path | None) -> frozenset[str]:
    """Video ids, one a line; empty lines and the space around an id don't count."""
    if path is None:
        return frozenset()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise WatchNextError(f"cannot read WATCHNEXT_BLOCKED_FILE {path}: {error}") from None
    return frozenset(filter(None, map(str.strip, lines)))
