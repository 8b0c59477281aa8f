"""The encoded days of a simulated world, with the truth about what it is judged by."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
from encoded_days import EncodedDays, Floats, Judged, TrainingDay, key, stack
from numpy.typing import NDArray
from rich.console import Console

from data.columns import Batch
from data.config import Config, Side
from data.days import day_start, parse_day
from data.features.layout import SIDES, Block
from data.features.request import RequestEncoder
from data.features.state import Encoded, FeatureState
from data.home import Home
from data.ingest import ingest
from data.log import read_day
from data.simulator.policy import NONE
from data.simulator.settings import DEVICES, WorldConfig
from data.simulator.world import World
from data.simulator.write import simulate
from training.days import read_tables

REQUESTS = 6000
"""Sampled requests of the last two days whose unseen candidates are ranked."""
TEST_DAYS = 2


@dataclass(frozen=True)
class Day:
    encoded: Encoded
    sizes: Mapping[str, int]
    batch: Batch


@dataclass(frozen=True)
class Unseen:
    """Candidates that were not shown: their features, request, true preference and duration [n]."""

    blocks: Mapping[Side, Block]
    request: NDArray[np.int64]
    preference: Floats
    duration: Floats


@dataclass(frozen=True)
class Prepared:
    config: Config
    state: FeatureState
    days: list[Day]
    unseen: Unseen


def world_days(config: Config, settings: WorldConfig, seed: int, cache: Path, console: Console) -> EncodedDays:
    """The days of the world of ``seed``, made once and kept under ``cache``: all but the last two to train on; of these the
    exploration rows (``shown``) and candidates of sampled requests that were not shown (``unseen``)."""
    config = config.model_copy(update={"seed": seed})
    folder = cache / f"world-{key(config, settings.model_dump())}-{seed}"
    if not (folder / "facts.json").exists():
        world = World(settings, seed)
        with tempfile.TemporaryDirectory() as place:
            prepared = prepare(config, world, Path(place), console)
        rows, truth, request = exploration(world, prepared)
        test = [day.encoded.blocks for day in prepared.days[-TEST_DAYS:]]
        shown = {side: stack([blocks[side] for blocks in test]).take(np.flatnonzero(rows)) for side in SIDES}
        unseen = prepared.unseen
        judged = {
            "shown": Judged(shown, {"truth": truth, "request": request}),
            "unseen": Judged(
                unseen.blocks,
                {"request": unseen.request, "preference": unseen.preference, "duration": unseen.duration},
            ),
        }
        days = [TrainingDay(day.encoded.blocks, day.encoded.targets, day.sizes) for day in prepared.days[:-TEST_DAYS]]
        EncodedDays(days, prepared.state.target_stats, prepared.days[-1].sizes, judged).save(folder)
    return EncodedDays.load(folder)


def prepare(config: Config, world: World, folder: Path, console: Console) -> Prepared:
    """Write the world's log, take it in, and encode every day once, as training does."""
    simulate(folder / "logs", world.settings, world.settings.rows, world.seed)
    home = Home(folder / "home")
    ingest(config, [folder / "logs"], home, Console(quiet=True))
    first = parse_day(world.settings.first_day)
    dates = [first + timedelta(days=i) for i in range(world.settings.days)]
    fit = [(day, read_day(home, config, day)) for day in dates[: config.training.fit_days]]
    state = FeatureState.fit(config, read_tables(home, config), fit)
    days, unseen = [], []
    for index, day in enumerate(dates):
        batch, sizes = read_day(home, config, day), state.table_sizes()
        days.append(Day(state.encode(batch, day), sizes, batch))
        if index >= len(dates) - TEST_DAYS:
            unseen.append(not_shown(world, state, batch, index))
        state.advance(batch, day_start(day + timedelta(days=1), config.timezone))
    return Prepared(config, state, days, join(unseen))


def exploration(world: World, prepared: Prepared) -> tuple[NDArray[np.bool_], Floats, NDArray[np.int64]]:
    """Which rows of the test days are exploration [n], their true click probabilities and requests."""
    batches = [day.batch for day in prepared.days[-TEST_DAYS:]]
    chosen = np.concatenate([np.nan_to_num(batch.numbers("is_exploration")) > 0 for batch in batches])
    request = np.concatenate([day.encoded.slate for day in prepared.days[-TEST_DAYS:]])[chosen]
    parts = [
        world.truth(b.strings("user_id"), b.strings("video_id"), b.numbers("timestamp"), b.strings("device"))["click"]
        for b in batches
    ]
    return chosen, np.concatenate(parts)[chosen], request


def not_shown(world: World, state: FeatureState, batch: Batch, index: int) -> Unseen:
    """Candidates of sampled requests of a day that were not shown, with features as a request would have them."""
    encoder, rng = RequestEncoder(state), np.random.default_rng([world.seed, index])
    catalogue = encoder.catalogue()
    timestamp, users = batch.numbers("timestamp"), batch.strings("user_id")
    of_user = {users.values[code]: np.flatnonzero(users.codes == code) for code in np.unique(users.codes)}
    slates = list(world.slates(index))
    share = min(1.0, REQUESTS / TEST_DAYS / world.requests_on(index))
    blocks: dict[Side, list[Block]] = {side: [] for side in SIDES}
    requests, preference, duration = [], [], []
    for slate in slates:
        numbers = np.sort(slate.number)
        shown = slate.rows.video[np.argsort(slate.rows.request, kind="stable")].reshape(len(numbers), -1)
        for place in np.flatnonzero(rng.random(len(slate.number)) < share):
            here = shown[np.searchsorted(numbers, slate.number[place])]
            videos = np.setdiff1d(slate.candidates[place], [*here, NONE])
            if len(videos) < 2:
                continue
            user, when = int(slate.requests.user[place]), int(slate.requests.timestamp[place])
            device = DEVICES[int(slate.requests.device[place])]
            mine = of_user.get(f"u{user}", np.zeros(0, np.int64))
            history = batch.take(mine[timestamp[mine] < when])
            query = int(slate.requests.query[place])
            features = encoder.request(
                f"u{user}", {"device": device}, when, history, query_video_id=None if query == NONE else f"v{query}"
            )
            rows = np.array([encoder.video_row(f"v{video}") for video in videos])
            n, same = len(videos), np.zeros(len(videos), np.int64)
            blocks["user"].append(features.user.take(same))
            blocks["context"].append(features.context.take(same))
            blocks["video"].append(catalogue.take(rows))
            blocks["cross"].append(encoder.cross(features, rows))
            side = state.layout.sides["training_only"]
            blocks["training_only"].append(
                Block(np.zeros((n, side.int_width), np.int32), np.zeros((n, side.float_width), np.float32))
            )
            truth = world.truth(np.full(n, user), videos, np.full(n, when), np.full(n, slate.requests.device[place]))
            requests.append(np.full(n, (index << 32) + int(slate.number[place])))
            preference.append(truth["preference"])
            duration.append(world.videos.duration[videos])
    stacked = {side: stack(parts) for side, parts in blocks.items()}
    return Unseen(stacked, *(np.concatenate(part) for part in (requests, preference, duration)))


def join(parts: list[Unseen]) -> Unseen:
    blocks = {side: stack([part.blocks[side] for part in parts]) for side in SIDES}
    return Unseen(
        blocks, *(np.concatenate([getattr(p, key) for p in parts]) for key in ("request", "preference", "duration"))
    )


def unseen_ndcg(score: Floats, unseen: Judged) -> float:
    """Mean over requests of DCG / ideal DCG, gain = true preference, discount 1 / log2(2 + rank)."""
    request, preference = unseen.facts["request"], unseen.facts["preference"]
    order = np.argsort(request, kind="stable")
    values = []
    for rows in np.split(order, np.flatnonzero(np.diff(request[order])) + 1):
        gains = preference[rows]
        discount = 1 / np.log2(2 + np.arange(len(rows)))
        values.append((gains[np.argsort(-score[rows], kind="stable")] @ discount) / (np.sort(gains)[::-1] @ discount))
    return float(np.mean(values))
