"""A published bundle put to the test as the service would use it: what it serves, how fast, and how large it is."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray

from data.columns import Batch, StringLists, Strings
from data.config import Config
from data.features.layout import Block
from data.features.request import RequestEncoder
from data.features.slates import feature_times
from data.features.state import FeatureState
from data.features.storage import load_array
from models.bundle import EXTRA, Bundle
from models.noise import derive
from models.scorer import Scorer
from training.calibration_rows import ROWS
from training.figures import Scored
from training.gate import Facts
from training.learner import WAITING

TOLERANCE = 1e-5
"""Of a probability; of a regression as a share of its value or of its scale, whichever is larger."""
CANDIDATES, ROUNDS = 500, 30
"""Scored at once, and how often, to compare latencies."""


def try_out(challenger: Bundle, champion: Bundle | None, batch: Batch, scored: Scored) -> Facts:
    """Measure a published bundle on a day after its window.

    Args:
        champion: the bundle to be as fast and as small as; None where there is none.
        batch: the day's rows.
        scored: the same rows with the offline predictions of the challenger.
    """
    ours = _Served.load(challenger)
    over, largest, rows = _spot_check(ours, batch, scored)
    theirs = None if champion is None else _Served.load(champion)
    milliseconds, ratio = _latency(ours, theirs)
    size = _bytes(challenger)
    size_ratio = None if champion is None else size / max(_bytes(champion), 1)
    return Facts(rows, over, largest, milliseconds, ratio, size, size_ratio)


@dataclass(frozen=True)
class _Served:
    """What the service loads of a bundle."""

    config: Config
    encoder: RequestEncoder
    scorer: Scorer
    catalogue: Block

    @classmethod
    def load(cls, bundle: Bundle) -> "_Served":
        catalogue = Block(*(load_array(bundle.catalogue / f"{part}.npy") for part in ("ints", "floats")))
        state, scorer = FeatureState.load(bundle.state, bundle.config), Scorer.load(bundle.extra)
        return cls(bundle.config, RequestEncoder(state), scorer, scorer.keeping(len(catalogue))(catalogue))

    def predict(self, batch: Batch, row: int, time: NDArray[np.int64]) -> NDArray[np.float32]:
        """The predictions [K] for an impression, asked for at its feature time with what the user had done that day."""
        user = batch.strings("user_id").codes
        history = batch.take(np.flatnonzero((user == user[row]) & (batch.numbers("timestamp") < time[row])))
        query = batch.strings("query_video_id").take(np.array([row])).tolist()[0] if "query_video_id" in batch else None
        context = {name: _value(batch, name, row) for name in self.config.log.context}
        user_id, video_id = (batch.strings(name).take(np.array([row])).tolist()[0] or "" for name in ("user_id", "video_id"))
        features = self.encoder.request(user_id, context, int(time[row]), history, query_video_id=query)
        videos = np.array([self.encoder.video_row(video_id)], np.int64)
        cross = self.encoder.cross(features, videos)
        scores = self.scorer.score(features.user, features.context, self.catalogue.take(videos), cross)
        return np.asarray(scores.predictions[0])

    def ready(self) -> Callable[[], object]:
        """A call that scores CANDIDATES of its catalogue for a user nobody knows."""
        rows = np.resize(np.arange(len(self.encoder.video_ids), dtype=np.int64), CANDIDATES)
        features = self.encoder.request("", {}, self.encoder.state.boundary)
        cross, video = self.encoder.cross(features, rows), self.catalogue.take(rows)
        return lambda: self.scorer.score(features.user, features.context, video, cross)


def _spot_check(served: _Served, batch: Batch, scored: Scored) -> tuple[int, float | None, int]:
    """Rows beyond the tolerance, the largest difference in tolerances, and the rows compared."""
    config, time = served.config, feature_times(batch)
    comparable = np.flatnonzero(_as_of_the_boundary(served.encoder, batch, time))
    wanted = min(config.gate.spot_check_rows, len(comparable))
    if not wanted:
        return 0, None, 0
    rng = np.random.default_rng(derive(config.seed, "spot check", scored.day.toordinal()))
    rows = np.sort(rng.choice(comparable, wanted, replace=False))
    online = np.array([served.predict(batch, row, time) for row in rows.tolist()], np.float64)
    offline = scored.predictions[rows].astype(np.float64)
    paired = zip(config.objectives, served.encoder.state.target_stats, strict=True)
    scale = np.array([s.std if o.kind == "regression" and o.transform != "log" else 1.0 for o, s in paired])
    size = np.where([o.kind == "regression" for o in config.objectives], np.maximum(np.abs(offline), scale), 1.0)
    gap = np.nan_to_num(np.abs(online - offline), nan=np.inf) / (TOLERANCE * size)
    return int((gap > 1).any(axis=1).sum()), float(min(gap.max(), 1e9)), wanted


def _as_of_the_boundary(encoder: RequestEncoder, batch: Batch, time: NDArray[np.int64]) -> NDArray[np.bool_]:
    """The rows whose video the table says the same of at the boundary and at the row's time [n]: the bundle's catalogue
    is as of the boundary, until it is refreshed."""
    table = encoder.state.tables.get("videos")
    if table is None:
        return np.ones(len(batch), bool)
    videos, boundary = batch.strings("video_id"), np.full(len(batch), encoder.state.boundary, np.int64)
    return np.asarray(table.rows_at(videos, boundary) == table.rows_at(videos, time))


def _latency(ours: _Served, theirs: _Served | None) -> tuple[float, float | None]:
    """Median milliseconds of CPU time of one call of ours, and over the median of theirs; turn by turn. Scorers have one
    thread, this one: what else the machine does is not in its time (by the clock, a night was once refused at 6.6 times)."""
    calls = [side.ready() for side in (ours, theirs) if side is not None]
    for call in calls:
        call()
    times: list[list[float]] = [[] for _ in calls]
    for turn in range(ROUNDS):
        for place in range(len(calls)) if turn % 2 else reversed(range(len(calls))):
            started = time.thread_time()
            calls[place]()
            times[place].append(1000 * (time.thread_time() - started))
    medians = [median(values) for values in times]
    return medians[0], medians[0] / medians[1] if len(medians) > 1 else None


def _bytes(bundle: Bundle) -> int:
    """What the bundle weighs without the rows that wait for their labels and those that calibration is fitted on."""
    left_out = (f"{EXTRA}/{WAITING}/", f"{EXTRA}/{ROWS}/")
    return sum(facts.bytes for name, facts in bundle.manifest.files.items() if not name.startswith(left_out))


def _value(batch: Batch, name: str, row: int) -> str | list[str] | float | None:
    column = batch[name].take(np.array([row]))
    if isinstance(column, Strings | StringLists):
        return column.tolist()[0]
    return None if np.isnan(column[0]) else float(column[0])
