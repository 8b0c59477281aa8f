"""What WatchNext learns of a simulated world whose truth is known, and what its shallow tower is worth.

    python benchmarks/simulator_ranker.py --seeds 1 2 3 4 5 [--rows 1000000] [--gap-seed 1] [--without-bias]

For every seed a world, its log through ingest, and the simulator preset trained twice on all days but the last two, with
the shallow tower and without (position then enters nowhere); world, network and order of rows share the seed. Then

- gap: GAUC of click on the held-out exploration rows of the last two days, positions equal, with the true probabilities in
  the place of clicks (simulator_gap.py, "expected"), beside that of the truth and of the additive model; how much of the
  gap between these two the network closes. The additive model is fitted for --gap-seed alone: it takes minutes.
- tower: NDCG against the true preference over the candidates of sampled requests that were *not* shown, ranked by
  p(click) E[watch time | click] / duration; the difference with - without is paired by seed, with a t interval.

With --without-bias the worlds have no position bias: the tower should then cost nothing.
Writes $WATCHNEXT_HOME/benchmarks/simulator_ranker[_without_bias].json.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from scipy.stats import t as student
from simulator_gap import additive, encode, expected_gauc

from data.columns import Batch
from data.config import Config, Side, load_config
from data.days import day_start, parse_day
from data.features.layout import SIDES, Block
from data.features.request import RequestEncoder
from data.features.state import Encoded, FeatureState
from data.home import Home
from data.ingest import ingest
from data.log import read_day
from data.simulator.policy import NONE
from data.simulator.settings import DEVICES, WorldConfig, world_config
from data.simulator.sittings import Rows
from data.simulator.world import World
from data.simulator.write import simulate
from models.network import Network
from models.noise import derive
from models.step import Trainer
from training.days import read_tables

REQUESTS = 1500
"""Sampled requests of the last two days whose unseen candidates are ranked."""
TEST_DAYS = 2
Floats = NDArray[Any]


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    parser.add_argument("--gap-seed", type=int)
    parser.add_argument("--without-bias", action="store_true")
    parser.add_argument("--config", type=Path, default=Path("training/presets/simulator.toml"))
    options = parser.parse_args()
    console, results = Console(), []
    base = WorldConfig() if options.rows == WorldConfig().rows else WorldConfig.of_size(options.rows)
    settings = world_config({**base.model_dump(), **({"position_bias": 0.0} if options.without_bias else {})})
    name = "simulator_ranker_without_bias" if options.without_bias else "simulator_ranker"
    for seed in options.seeds:
        results.append(one_world(load_config(options.config), settings, seed, seed == options.gap_seed, console))
        folder = Home.from_environment().benchmarks
        folder.mkdir(parents=True, exist_ok=True)
        content = {"settings": settings.model_dump(), "cores": os.cpu_count(), "worlds": results, "tower": paired(results)}
        (folder / f"{name}.json").write_text(json.dumps(content, indent=1))
    console.print(paired(results))


def one_world(config: Config, settings: WorldConfig, seed: int, with_additive: bool, console: Console) -> dict[str, Any]:
    world = World(settings, seed)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare(config.model_copy(update={"seed": seed}), world, Path(folder), console)
    console.print(f"seed {seed}: world, ingest and features in {time.perf_counter() - began:.0f} s")
    result: dict[str, Any] = {"seed": seed, "prepared_seconds": time.perf_counter() - began}
    held_out, truth, request = exploration(world, prepared)
    result["truth"] = expected_gauc(truth, truth, request)
    for variant in ("with", "without"):
        began = time.perf_counter()
        trainer = train(prepared, "shallow_tower" if variant == "with" else "none")
        seconds = time.perf_counter() - began
        k = prepared.config.objective_names.index("click")
        test = [day.encoded for day in prepared.days[-TEST_DAYS:]]
        click = np.concatenate([trainer.predict(encoded.blocks)[0][:, k] for encoded in test])[held_out]
        result[variant] = {
            **expected_gauc(click, truth, request),
            "ndcg": unseen_ndcg(trainer, prepared),
            "seconds": seconds,
        }
        console.print(f"seed {seed}, {variant} tower: {result[variant]}, truth {result['truth']['gauc']:.4f}")
    if with_additive:
        result["additive"] = fit_additive(world, console)
        gap = result["truth"]["gauc"] - result["additive"]["gauc"]
        result["additive_share"] = (result["additive"]["gauc"] - 0.5) / (result["truth"]["gauc"] - 0.5)
        result["closed"] = (result["with"]["gauc"] - result["additive"]["gauc"]) / gap
        share, closed = result["additive_share"], result["closed"]
        console.print(f"additive {result['additive']['gauc']:.4f} ({share:.1%} of the way); closed {closed:.1%}")
    return result


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


def train(prepared: Prepared, bias: str) -> Trainer:
    """Day by day, as :meth:`training.learner.Learner.train` does, on all days but the test days."""
    config = prepared.config.model_copy(update={"model": prepared.config.model.model_copy(update={"bias": bias})})
    state = prepared.state
    trainer = Trainer(Network(config, state.layout, prepared.days[0].sizes, state.target_stats), config.training)
    for index, day in enumerate(prepared.days[:-TEST_DAYS]):
        trainer.grow(day.sizes)
        for number in range(config.training.passes):
            seed = derive(config.seed, "order", index, number)
            order = np.random.default_rng(seed).permutation(len(day.encoded))
            trainer.train_epoch(day.encoded.blocks, day.encoded.targets, order, seed)
    trainer.grow(prepared.days[-1].sizes)
    return trainer


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


def stack(parts: list[Block]) -> Block:
    return Block(np.concatenate([b.ints for b in parts]), np.concatenate([b.floats for b in parts]))


def join(parts: list[Unseen]) -> Unseen:
    blocks = {side: stack([part.blocks[side] for part in parts]) for side in SIDES}
    return Unseen(
        blocks, *(np.concatenate([getattr(p, key) for p in parts]) for key in ("request", "preference", "duration"))
    )


def unseen_ndcg(trainer: Trainer, prepared: Prepared) -> float:
    """Mean over requests of DCG / ideal DCG, gain = true preference, discount 1 / log2(2 + rank)."""
    names, unseen = prepared.config.objective_names, prepared.unseen
    predictions = trainer.predict(unseen.blocks)[0]
    score = predictions[:, names.index("click")] * predictions[:, names.index("watch_time")] / unseen.duration
    values = []
    for request in np.unique(unseen.request):
        on = unseen.request == request
        gains = unseen.preference[on]
        discount = 1 / np.log2(2 + np.arange(len(gains)))
        values.append((gains[np.argsort(-score[on], kind="stable")] @ discount) / (np.sort(gains)[::-1] @ discount))
    return float(np.mean(values))


def fit_additive(world: World, console: Console) -> dict[str, float]:
    """The additive model of simulator_gap.py on the same rows, in the world's own order."""
    settings = world.settings
    days = [Rows.concatenate(list(world.day(day))) for day in range(settings.days)]
    rows = Rows.concatenate(days)
    day = np.repeat(np.arange(settings.days), [len(part) for part in days])
    test = (day >= settings.days - TEST_DAYS) & rows.is_exploration
    tune = (day == settings.days - TEST_DAYS - 1) & rows.is_exploration
    request = day * (int(rows.request.max()) + 1) + rows.request
    truth = world.truth(rows.user[test], rows.video[test], rows.timestamp[test], rows.device[test])["click"]
    scores, strength = additive(encode(world, rows, day), day, settings.days, tune, test, request, rows.click)
    console.print(f"additive model: strength {strength}")
    return expected_gauc(scores, truth, request[test])


def paired(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean over seeds of the differences with - without, and their t interval."""
    figures: dict[str, Any] = {"seeds": len(results)}
    for metric in ("ndcg", "gauc"):
        differences = np.array([result["with"][metric] - result["without"][metric] for result in results])
        half = None
        if len(differences) > 1:
            half = float(student.ppf(0.975, len(differences) - 1) * differences.std(ddof=1) / np.sqrt(len(differences)))
        mean = float(differences.mean())
        figures[metric] = {
            "difference": mean,
            "interval": None if half is None else [mean - half, mean + half],
            "by_seed": differences.tolist(),
        }
    return figures


if __name__ == "__main__":
    main()
