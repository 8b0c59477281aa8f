"""Days encoded once and kept as arrays, so that many variants of a network are trained on the very same rows."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.config import Config, Side
from data.days import day_start
from data.features.layout import SIDES, Block, build_layout
from data.features.slates import slate_times
from data.features.state import Encoded, FeatureState
from data.features.targets import TargetStats
from data.home import Home
from data.log import read_day
from models.arrays import read_arrays, write_arrays
from models.network import Network
from models.noise import derive
from models.step import Trainer
from training.days import read_tables

Floats = NDArray[Any]
Blocks = Mapping[Side, Block]
ENCODING = ("dataset", "timezone", "log", "users", "videos", "labels", "features", "objectives", "training.fit_days")


@dataclass(frozen=True)
class TrainingDay:
    """blocks and targets [n, K]; the rows that each embedding table has that morning."""

    blocks: Blocks
    targets: NDArray[np.float32]
    sizes: Mapping[str, int]


@dataclass(frozen=True)
class Judged:
    """Rows to predict for, and whatever they are judged by [n]."""

    blocks: Blocks
    facts: Mapping[str, Floats]


@dataclass(frozen=True)
class EncodedDays:
    """``sizes``: the tables' rows when the judged rows are predicted."""

    days: Sequence[TrainingDay]
    stats: Sequence[TargetStats]
    sizes: Mapping[str, int]
    judged: Mapping[str, Judged]

    def save(self, folder: Path) -> None:
        for index, day in enumerate(self.days):
            write_arrays(folder / f"day-{index}", _named(day.blocks) | {"targets": day.targets}, {"sizes": dict(day.sizes)})
        for name, judged in self.judged.items():
            facts = {f"fact/{key}": values for key, values in judged.facts.items()}
            write_arrays(folder / f"judged-{name}", _named(judged.blocks) | facts, {})
        content = {
            "days": len(self.days),
            "sizes": dict(self.sizes),
            "stats": [asdict(s) for s in self.stats],
            "judged": [*self.judged],
        }
        (folder / "facts.json").write_text(json.dumps(content))

    @classmethod
    def load(cls, folder: Path) -> "EncodedDays":
        facts = json.loads((folder / "facts.json").read_text())
        days = []
        for index in range(facts["days"]):
            arrays, own = read_arrays(folder / f"day-{index}")
            days.append(TrainingDay(_blocks(arrays), arrays["targets"], own["sizes"]))
        judged = {}
        for name in facts["judged"]:
            arrays, _ = read_arrays(folder / f"judged-{name}")
            own = {key.removeprefix("fact/"): values for key, values in arrays.items() if key.startswith("fact/")}
            judged[name] = Judged(_blocks(arrays), own)
        return cls(days, [TargetStats(**stats) for stats in facts["stats"]], facts["sizes"], judged)


def train(config: Config, encoded: EncodedDays) -> Trainer:
    """Day by day, as :meth:`training.learner.Learner.train` does; the order of rows is of the configuration's seed."""
    trainer = Trainer(Network(config, build_layout(config), encoded.days[0].sizes, encoded.stats), config.training)
    for index, day in enumerate(encoded.days):
        trainer.grow(day.sizes)
        for number in range(config.training.passes):
            seed = derive(config.seed, "order", index, number)
            trainer.train_epoch(day.blocks, day.targets, np.random.default_rng(seed).permutation(len(day.targets)), seed)
    trainer.grow(encoded.sizes)
    return trainer


def key(config: Config, settings: Mapping[str, Any]) -> str:
    """Of all that the arrays depend on but the seed."""
    content = config.model_dump(mode="json")
    content["training.fit_days"] = config.training.fit_days
    text = json.dumps([{name: content[name] for name in ENCODING}, dict(settings)], sort_keys=True, default=str)
    return blake2b(text.encode(), digest_size=6).hexdigest()


def stack(parts: Sequence[Block]) -> Block:
    return Block(np.concatenate([b.ints for b in parts]), np.concatenate([b.floats for b in parts]))


def _named(blocks: Blocks) -> dict[str, Floats]:
    return {f"{side}/{part}": getattr(block, part) for side, block in blocks.items() for part in ("ints", "floats")}


def _blocks(arrays: Mapping[str, Floats]) -> dict[Side, Block]:
    return {side: Block(arrays[f"{side}/ints"], arrays[f"{side}/floats"]) for side in SIDES}


def facts_of(judged: Sequence[Encoded]) -> dict[str, Floats]:
    """Targets [n, K], user and slate [n]."""
    return {name: np.concatenate([getattr(rows, name) for rows in judged]) for name in ("targets", "user", "slate")}


def log_days(config: Config, first: date, judged_from: date, last: date) -> EncodedDays:
    """Ingested days: those before ``judged_from`` to train on, the others at row (with their facts) and at slate time."""
    home = Home.from_environment()
    dates = [first + timedelta(days=i) for i in range((last - first).days + 1)]
    fit = [(day, read_day(home, config, day)) for day in dates[: config.training.fit_days]]
    state = FeatureState.fit(config, read_tables(home, config), fit)
    days, judged = [], []
    for day in dates:
        batch, sizes = read_day(home, config, day), state.table_sizes()
        rows = state.encode(batch, day)
        if day < judged_from:
            days.append(TrainingDay(rows.blocks, rows.targets, sizes))
        else:
            judged.append((rows, state.encode(batch, day, slate_times(batch, rows.slate))))
        state.advance(batch, day_start(day + timedelta(days=1), config.timezone))
    of_rows, of_slates = ({side: stack([pair[at].blocks[side] for pair in judged]) for side in SIDES} for at in (0, 1))
    facts = facts_of([rows for rows, _ in judged])
    return EncodedDays(days, state.target_stats, sizes, {"rows": Judged(of_rows, facts), "slates": Judged(of_slates, {})})
