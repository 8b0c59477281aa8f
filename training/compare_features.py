"""Days encoded once, for many networks: what they are trained on and scored by, as memory-mapped arrays.

Encoding depends on the log and on how features and objectives are configured, not on the network. A design that differs
in its network only is trained on the very arrays that `watchnext train` would have made: results are the same to the bit.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from data.config import Config, Side
from data.days import day_start
from data.features.layout import Block, build_layout
from data.features.state import Encoded, FeatureState
from data.features.storage import load_array, load_blocks, save_arrays
from data.home import Home
from data.log import list_days, read_day
from models.indexes import IndexBuilder
from models.step import Trainer
from training.baselines import PastRates
from training.days import read_tables
from training.learner import SLATES, Learner, write_whole
from training.plan import days_between, digest
from training.waiting import open_labels

FORMAT = 1
OF_NETWORK = ("dim", "dropout", "l2")
"""Keys of a feature that the network alone reads."""
OF_LOSS = ("loss", "loss_weight", "ordering_weight")
"""Keys of an objective that training alone reads."""

BLOCKS = ("blocks", "slate_blocks")
"""Of the encoded rows, what is kept in files of its own."""

OnDay = Callable[[date], None]


@dataclass(frozen=True)
class EncodedDays:
    """A folder of encoded days, in order: those trained on, those scored, and those in between."""

    folder: Path
    objectives: tuple[str, ...]
    sizes: Mapping[date, Mapping[str, int]]
    """The rows of the embedding tables after each day."""

    @classmethod
    def open(cls, folder: Path) -> "EncodedDays":
        found = json.loads((folder / "days.json").read_text())
        sizes = {date.fromisoformat(day): tables for day, tables in found["sizes"].items()}
        return cls(folder, tuple(found["objectives"]), sizes)

    def state(self, whole: Config, config: Config) -> FeatureState:
        """The features' state as fitted, for a network of ``config``: that of ``whole``, or of some of its objectives."""
        state = FeatureState.load(self.folder / "state", whole)
        state.knowledge = replace(state.knowledge, config=config, layout=build_layout(config))
        state.target_stats = tuple(state.target_stats[k] for k in self._columns(config.objective_names))
        return state

    def encoded(self, day: date, objectives: Sequence[str]) -> Encoded:
        """A day's rows, with the targets of these objectives."""
        folder = self.folder / str(day)
        arrays: dict[str, Any] = {
            f.name: load_array(folder / f"{f.name}.npy") for f in fields(Encoded) if f.name not in (*BLOCKS, "targets")
        }
        blocks, slates = load_blocks(folder), self.slate_blocks(day)
        return Encoded(blocks=blocks, targets=self.targets(day, objectives), slate_blocks=slates, **arrays)

    def targets(self, day: date, objectives: Sequence[str]) -> NDArray[np.float32]:
        """[n, K] in natural units, NaN where masked."""
        found = load_array(self.folder / str(day) / "targets.npy")
        columns = self._columns(objectives)
        return found if columns == list(range(found.shape[1])) else np.ascontiguousarray(found[:, columns])

    def slate_blocks(self, day: date) -> Mapping[Side, Block] | None:
        """A day's rows with features as of the slate's first row; None where that changes nothing, or nobody asked."""
        folder = self.folder / str(day) / SLATES
        return load_blocks(folder) if folder.is_dir() else None

    def _columns(self, objectives: Sequence[str]) -> list[int]:
        return [self.objectives.index(name) for name in objectives]


def feature_key(config: Config, home: Home, days: Sequence[date], train: Sequence[date], scored: Sequence[date]) -> str:
    """Changes with all that the encoded days depend on: the log's rows, and how features and objectives are configured."""
    values = config.model_dump(mode="json")
    keep = ("dataset", "timezone", "log", "labels", "users", "videos", "slate")
    tables = [home.logs(config.dataset) / f"{which}.parquet" for which in ("users", "videos")]
    content = [
        FORMAT,
        {key: values[key] for key in keep},
        [{k: v for k, v in feature.items() if k not in OF_NETWORK} for feature in values["features"]],
        [{k: v for k, v in objective.items() if k not in OF_LOSS} for objective in values["objectives"]],
        values["generators"]["positive"],
        values["training"]["fit_days"],
        config.training.ordering.weight > 0,
        [(str(day), digest(home, config, day)) for day in days],
        [hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None for path in tables],
        [[str(day) for day in part] for part in (train, scored)],
        [(str(day), sorted(labels)) for day, labels in sorted(open_labels(home, config).items()) if day in days],
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def days_to_encode(config: Config, home: Home, train: Sequence[date], scored: Sequence[date]) -> list[date]:
    """The days of the log from the first trained on to the last scored; the wanted ones must have rows.

    Raises:
        LogError: they have not.
    """
    there = list_days(home, config.dataset)
    last = max([*train, *scored])
    days_between(there, train[0], train[-1], config.dataset)
    if scored:
        days_between(there, scored[0], scored[-1], config.dataset)
    return [day for day in there if train[0] <= day <= last]


def encode_days(
    config: Config, home: Home, root: Path, train: Sequence[date], scored: Sequence[date], on_day: OnDay = lambda day: None
) -> EncodedDays:
    """The encoded days of a configuration, from ``root`` where they are there already.

    Args:
        train: the days whose first ones the features are fitted on.
        scored: days of which features as of the slate's first row are wanted too.
        on_day: called after each day that had to be encoded.
    """
    days = days_to_encode(config, home, train, scored)
    folder = root / feature_key(config, home, days, train, scored)
    if not (folder / "days.json").is_file():
        write_whole(folder, lambda unfinished: _encode(config, home, unfinished, days, train, frozenset(scored), on_day))
    return EncodedDays.open(folder)


def _encode(
    config: Config,
    home: Home,
    folder: Path,
    days: Sequence[date],
    train: Sequence[date],
    scored: frozenset[date],
    on_day: OnDay,
) -> None:
    fit = [(day, read_day(home, config, day)) for day in train[: config.training.fit_days]]
    state = FeatureState.fit(config, read_tables(home, config), fit)
    state.save(folder / "state")
    trainer = cast(Trainer, None)  # nothing is trained here
    learner = Learner(config, state, trainer, PastRates(len(config.objectives)), IndexBuilder(config))
    still_open, sizes = open_labels(home, config), {}
    for day in days:
        batch = read_day(home, config, day)
        own = folder / str(day)
        encoded = learner.encode(day, batch, still_open.get(day, frozenset()), own)
        if encoded.slate_blocks is None and day in scored:
            state.slate_blocks(batch, day, encoded, own / SLATES)
        save_arrays({f.name: getattr(encoded, f.name) for f in fields(Encoded) if f.name not in BLOCKS}, own)
        state.advance(batch, day_start(day + timedelta(days=1), config.timezone))
        sizes[str(day)] = state.table_sizes()
        on_day(day)
    (folder / "days.json").write_text(json.dumps({"objectives": list(config.objective_names), "sizes": sizes}))
