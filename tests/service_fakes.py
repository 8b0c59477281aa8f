"""A service over the small log: real features, a scorer whose predictions can be worked out by hand, fake generators."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cache
from tempfile import TemporaryDirectory
from threading import Event
from typing import Any

import numpy as np
from starlette.testclient import TestClient

from data.days import day_start
from data.features.layout import Block
from data.features.request import RequestEncoder
from models.ranking import Ranking
from models.scorer import Scores
from service.app import create_app
from service.generators.protocol import Source, Taste
from service.loading import load_version
from service.serving import Serving
from service.settings import Settings
from service.watcher import VersionLoader
from tests.small_log import FIRST_DAY, small_config, small_days, small_tables, state_before

WEIGHTS = {"click": 1.0, "like": 0.5}
CONFIG = small_config(ranking={"combine": "weighted_sum", "weights": WEIGHTS})
MEANS = {"click": 0.5, "watch": 20.0, "like": 0.25}
NOW = day_start(FIRST_DAY + timedelta(days=5), CONFIG.timezone) + 3_600_000
VERSION = 2024030401


class FakeScorer:
    """click = 1 / (2 + the video's embedding row), watch = 10 x that row, like = 0.25. Unknown videos have row 0."""

    def score(self, user: Block, context: Block, video: Block, cross: Block) -> Scores:
        assert len(user) == len(context) == 1
        assert len(video) == len(cross)
        row = video.ints[:, 0].astype(np.float32)
        predictions = np.stack([1 / (2 + row), 10 * row, np.full_like(row, 0.25)], axis=1).astype(np.float32)
        return Scores(predictions, np.full((len(video), 3, 2), 0.5, np.float32))


class BrokenScorer(FakeScorer):
    """As above, but nothing finite for the videos in odd rows."""

    def score(self, user: Block, context: Block, video: Block, cross: Block) -> Scores:
        scores = super().score(user, context, video, cross)
        scores.predictions[video.ints[:, 0] % 2 == 1, 1] = np.nan
        return scores


@dataclass
class Fixed:
    """Brings the same rows whatever is asked, unwanted ones too: the pipeline must not rely on manners."""

    name: str
    rows: Sequence[int]

    def candidates(self, taste: Taste, quota: int) -> Sequence[int]:
        return self.rows


@dataclass
class Failing:
    name: str = "failing"

    def candidates(self, taste: Taste, quota: int) -> Sequence[int]:
        raise RuntimeError("a secret of the inside")


@dataclass
class Hanging:
    """Returns only once the test lets it."""

    name: str = "hanging"
    release: Event = field(default_factory=Event)

    def candidates(self, taste: Taste, quota: int) -> Sequence[int]:
        self.release.wait(30)
        return [0]


@cache
def encoder() -> RequestEncoder:
    days, tables = small_days(), small_tables()
    return RequestEncoder(state_before(CONFIG, days, tables, date.max))


def sources(*generators: Any, quota: int = 100, deadline_ms: float = 5_000) -> tuple[Source, ...]:
    return tuple(Source(generator, quota, deadline_ms) for generator in generators)


def serving(scorer: Any = None, brought: tuple[Source, ...] | None = None) -> Serving:
    features = encoder()
    everything = Fixed("everything", range(len(features.video_ids)))
    return Serving(
        name="small",
        version=VERSION,
        window=(FIRST_DAY, FIRST_DAY + timedelta(days=3)),
        config=CONFIG,
        features=features,
        scorer=scorer or FakeScorer(),
        catalogue=features.catalogue(),
        sources=sources(everything) if brought is None else brought,
        ranking=Ranking.of(CONFIG.ranking, CONFIG.objectives, MEANS),
    )


@contextmanager
def client_of(
    load: Callable[[Settings], Serving] | Serving | None = None,
    ready: bool = True,
    clock: Callable[[], int] = lambda: NOW,
    reload: VersionLoader = load_version,
    **settings: Any,
) -> Iterator[TestClient]:
    """A client of a service that has loaded (or failed to load)."""
    bundle = serving() if load is None else load
    loader = bundle if callable(bundle) else lambda _: bundle
    with TemporaryDirectory() as empty:  # a module's client has no home of its own, and must not use ./var
        home = os.environ.get("WATCHNEXT_HOME", empty)
        settings = {"home": home, "log_level": "error", "deadline_ms": 60_000, **settings}
        app = create_app(Settings(**settings), loader, clock=clock, reload=reload)
        with TestClient(app, raise_server_exceptions=False) as client:
            if ready:
                wait_until_loaded(client)
            yield client


def wait_until_loaded(client: TestClient) -> None:
    until = time.monotonic() + 60
    while "being loaded" in client.get("/readyz").text and time.monotonic() < until:
        time.sleep(0.005)


def metric(client: TestClient, name: str, **labels: str) -> float:
    """A sample of /metrics; 0 where there is none."""
    wanted = name + ("{" + ",".join(f'{key}="{value}"' for key, value in labels.items()) + "}" if labels else "")
    for line in client.get("/metrics").text.splitlines():
        sample, _, value = line.rpartition(" ")
        if sample == wanted:
            return float(value)
    return 0.0
