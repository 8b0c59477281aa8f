"""All that a training run carries from day to day, and its checkpoint."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.columns import Batch
from data.config import Config, Side
from data.days import day_start
from data.features.layout import SIDES, Block
from data.features.slates import feature_times
from data.features.state import Encoded, FeatureState
from data.features.storage import load_array, load_blocks, save_arrays, save_blocks
from data.features.tables import Tables
from data.features.view import View
from data.objectives import targets
from models.bundle import Bundle
from models.calibration import Calibration
from models.indexes import IndexBuilder
from models.network import Network
from models.noise import derive
from models.ordering import Slates, slate_order
from models.shuffle import shuffled
from models.step import OnBatch, Trainer
from training.baselines import PastRates
from training.calibrate import calibrate
from training.calibration_rows import ROWS, DayRows, newest
from training.waiting import Waiting, mask, newly_closed, row_keys

WAITING, SLATES = "waiting", "slates"


@dataclass(frozen=True)
class Replayed:
    """A day's rows as they were encoded, kept to be trained on again."""

    day: date
    blocks: Mapping[Side, Block]
    targets: NDArray[np.float32]
    slate: NDArray[np.int64]
    slate_blocks: Mapping[Side, Block] | None = None


@dataclass
class Learner:
    """Features' state, network and optimizers, baselines' rates, generators' counts; and the rows kept to be trained on
    again, or further when more of their labels are known, or to calibrate predictions by."""

    config: Config
    state: FeatureState
    trainer: Trainer
    rates: PastRates
    indexes: IndexBuilder
    replay: list[Replayed] = field(default_factory=list)
    waiting: list[Waiting] = field(default_factory=list)  # days with labels still open when they were trained on
    scored: list[DayRows] = field(default_factory=list)  # predictions of before their rows were trained on
    _calibration: Calibration | None = field(default=None, repr=False)

    @classmethod
    def fresh(cls, config: Config, tables: Tables, fit_days: Sequence[tuple[date, Batch]]) -> "Learner":
        """Fitted on the fit days, trained on nothing yet."""
        state = FeatureState.fit(config, tables, fit_days)
        return cls(config, state, new_trainer(state), PastRates(len(config.objectives)), IndexBuilder(config))

    @classmethod
    def from_bundle(cls, bundle: Bundle, config: Config, tables: Tables | None = None) -> "Learner":
        """As it was when the bundle was published; with the tables of today, where given."""
        return cls.load(bundle.extra, config, tables)

    @classmethod
    def load(cls, folder: Path, config: Config, tables: Tables | None = None) -> "Learner":
        """What :meth:`save` wrote."""
        state = FeatureState.load(folder / "state", config)
        if tables is not None:
            state.tables = dict(tables)
        trainer = new_trainer(state)
        trainer.load(folder / "trainer")
        learner = cls(
            config, state, trainer, PastRates.load(folder / "rates.npz"), IndexBuilder.load(config, folder / "counts")
        )
        for path in sorted((folder / "replay").glob("day=*")):
            day = date.fromisoformat(path.name.removeprefix("day="))
            slates = load_blocks(path / SLATES) if (path / SLATES).is_dir() else None
            targets, slate = (load_array(path / f"{name}.npy") for name in ("targets", "slate"))
            learner.replay.append(Replayed(day, load_blocks(path), targets, slate, slates))
        learner.waiting = [Waiting.load(path) for path in sorted((folder / WAITING).glob("day=*"))]
        learner.scored = [DayRows.load(path) for path in sorted((folder / ROWS).glob("day=*"))]
        return learner

    def save(self, folder: Path, replay: bool = True) -> None:
        """Write .npy, .npz and .json files; ``replay`` says whether with the rows kept for replay."""
        self.state.save(folder / "state")
        self.trainer.save(folder / "trainer")
        self.rates.save(folder / "rates.npz")
        self.indexes.save(folder / "counts")
        for kept in self.replay if replay else ():
            place = folder / "replay" / f"day={kept.day}"
            save_blocks(kept.blocks, place)
            save_arrays({"targets": kept.targets, "slate": kept.slate}, place)
            if kept.slate_blocks is not None:
                save_blocks(kept.slate_blocks, place / SLATES)
        for waiting in self.waiting:
            waiting.save(folder / WAITING / f"day={waiting.day}")
        for rows in self.scored:
            rows.save(folder / ROWS / f"day={rows.day}")

    @property
    def calibration(self) -> Calibration:
        """By the rows that have been scored so far."""
        if self._calibration is None:
            self._calibration = calibrate(self.scored, self.config)
        return self._calibration

    def keep_scored(self, day: date, predictions: NDArray[np.float32], targets: NDArray[np.float32]) -> None:
        """Keep a day's predictions [n, K], made before it is trained on and not calibrated, to calibrate later ones by."""
        rows = DayRows.of(day, predictions, targets, self.config)
        waiting = [kept.day for kept in self.waiting]
        self.scored = newest([*self.scored, rows], self.config.calibration.days, [*waiting, day])
        self._calibration = None

    def encode(
        self, day: date, batch: Batch, open_labels: frozenset[str] = frozenset(), folder: Path | None = None
    ) -> Encoded:
        """Encode a day's rows, the targets of open labels masked; where order is trained on, as of their slates too.

        With a ``folder`` the features are files there, mapped into memory.

        Where days are missing before it (nobody was served, or they are in quarantine), the boundary is first brought to
        its start: the videos' counts are as of a day's start, also of what became known on the missing days.
        """
        self.reach(day, batch)
        encoded, slates = self.state.encode(batch, day, folder=folder), None
        if self.config.training.ordering.weight:
            slates = self.state.slate_blocks(batch, day, encoded, folder and folder / SLATES)
        return replace(encoded, targets=mask(encoded.targets, self.config, open_labels), slate_blocks=slates)

    def reach(self, day: date, batch: Batch) -> None:
        """Bring the features' boundary to the day's start; of ``batch`` only the columns are read."""
        start = day_start(day, self.config.timezone)
        if self.state.boundary < start:
            self.state.advance(batch.take(np.zeros(0, np.int64)), start, admit=False)

    def wait_for(self, day: date, batch: Batch, encoded: Encoded, open_labels: frozenset[str]) -> None:
        """Keep a day's rows, which have just been trained on, until all its labels are closed."""
        if open_labels:
            self.waiting.append(Waiting(day, encoded.blocks, encoded.video, row_keys(batch), open_labels))

    def close(self, day: date, batch: Batch, labels: frozenset[str]) -> None:
        """Train one pass on a waiting day's targets that are known now that these labels have closed."""
        place = next(i for i, kept in enumerate(self.waiting) if kept.day == day)
        kept = self.waiting[place]
        later = kept.closed(labels)
        view = View(batch, feature_times(batch), self.state.tables, {})
        known = newly_closed(targets(batch, self.config, view.column), self.config, kept.open_labels, later.open_labels)
        aligned = kept.align(batch, known)
        rows = np.flatnonzero(~np.isnan(aligned).all(axis=1))
        seed = derive(self.config.seed, "closed", day.toordinal(), *sorted(labels))
        order = np.random.default_rng(seed).permutation(rows)
        self.trainer.train_epoch(kept.blocks, aligned, order, seed)
        self.rates.add(kept.video, aligned)
        self.waiting[place : place + 1] = [later] if later.open_labels else []
        self.scored = [rows.closed(aligned) if rows.day == day else rows for rows in self.scored]
        self._calibration = None

    def train(self, day: date, encoded: Encoded, on_batch: OnBatch | None = None) -> NDArray[np.float64]:
        """Train on a day's rows, ``passes`` times, together with the days kept for replay. Returns mean losses [K]."""
        training = self.config.training
        days = [*self.replay, Replayed(day, encoded.blocks, encoded.targets, encoded.slate, encoded.slate_blocks)]
        blocks, slates = _stack([kept.blocks for kept in days]), _slates(days) if training.ordering.weight else None
        targets = np.concatenate([kept.targets for kept in days])
        losses = np.full(targets.shape[1], np.nan)
        for number in range(training.passes):
            seed = derive(self.config.seed, "order", day.toordinal(), number)
            random, n = np.random.default_rng(seed), len(targets)
            order = shuffled(n, random) if slates is None else slate_order(np.arange(n), slates.number, random)
            losses = self.trainer.train_epoch(blocks, targets, order, seed, on_batch, slates)
        if training.replay_days:
            self.replay = days[-training.replay_days :]
        return losses

    def take_in(self, day: date, batch: Batch, encoded: Encoded | None = None, admit: bool = True) -> None:
        """Let features, rates and indexes know of a day; ids that came with it are admitted, unless told not to."""
        self.advance(day, batch, admit)
        self.follow(batch, encoded)

    def advance(self, day: date, batch: Batch, admit: bool = True) -> None:
        """Let the features know of a day, which depend on the days alone: the next one can be encoded then."""
        self.state.advance(batch, day_start(day + timedelta(days=1), self.config.timezone), admit)

    def follow(self, batch: Batch, encoded: Encoded | None = None) -> None:
        """Let rates, network and indexes follow the features, which know of a day now."""
        if encoded is not None:
            self.rates.add(encoded.video, encoded.targets)
        self.trainer.grow(self.state.table_sizes())
        self.indexes.add_day(batch)


def mapped_anew(encoded: Encoded, folder: Path) -> Encoded:
    """The same rows, encoded in ``folder``, without the pages that were read so far: they count as resident memory."""
    slates = encoded.slate_blocks and load_blocks(folder / SLATES)
    return replace(encoded, blocks=load_blocks(folder), slate_blocks=slates)


def new_trainer(state: FeatureState, later: Mapping[str, int] | None = None) -> Trainer:
    """A trainer of a new network, sized for the ids admitted now; with room for those of ``later``, if they are known."""
    network = Network(state.config, state.layout, state.table_sizes(), state.target_stats)
    if later is not None:
        network.embeddings.reserve(later)
    return Trainer(network, state.config.training)


def write_whole(folder: Path, write: Callable[[Path], None]) -> None:
    """Fill a folder under a temporary name, then give it its own, replacing what was there."""
    temporary = folder.with_name(f".tmp-{folder.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    write(temporary)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


def _stack(days: Sequence[Mapping[Side, Block]]) -> Mapping[Side, Block]:
    if len(days) == 1:
        return days[0]
    return {
        side: Block(np.concatenate([b[side].ints for b in days]), np.concatenate([b[side].floats for b in days]))
        for side in SIDES
    }


def _slates(days: Sequence[Replayed]) -> Slates:
    """The days' slates, whose numbers are distinct over days."""
    number = np.concatenate([kept.slate for kept in days])
    if all(kept.slate_blocks is None for kept in days):
        return Slates(number)
    return Slates(number, _stack([kept.slate_blocks or kept.blocks for kept in days]))
