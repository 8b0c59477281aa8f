"""The day loop that every training shares: each day is scored before it is trained on, and a kill loses one day's work."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pyarrow as pa
import structlog
from numpy.typing import NDArray
from rich.console import Console

from data.columns import Batch
from data.config import Config
from data.features.layout import Block
from data.features.state import Encoded
from data.features.tables import EntityTable, Tables
from data.home import Home
from data.log import read_day, read_table
from data.memory import give_back
from models.step import Trainer
from training.figures import Scored
from training.learner import Learner, mapped_anew, write_whole
from training.plan import Plan
from training.progress import RunProgress
from training.score import score_day

log = structlog.get_logger()

COSINE_ROWS = 4096
AHEAD_ROWS = 1_000_000
"""Up to so many rows of a day, the next one is prepared beside it: two larger ones at once took over 4 GiB."""

SCORED_ROWS = 5_000_000
"""A run's figures are of so many scored rows at most: its scored days are in memory together, 120 bytes a row or more."""


def learn_days(config: Config, home: Home, plan: Plan, console: Console) -> tuple[Learner, list[Scored]]:
    """Go over the plan's days; returns the learner after the last and the scored days (:func:`_last_scored`).

    Days come in order. Each is encoded once, scored by the network as it stands, calibrated by the days before
    (progressive validation; not the fit days of a fresh run), the objectives' gradients compared where
    ``evaluation.gradient_cosines`` asks for it, taken into the features' state, and trained on, while the next day is read
    and encoded in another thread; then a checkpoint is written in :func:`run_folder`. A run that was interrupted goes on
    after its last checkpoint and ends with the same bits.
    """
    folder = run_folder(home, config, plan)
    ready, shelf = folder / "encoded", folder / "shelf"
    for rest in (ready, shelf):  # of an interrupted run; its checkpoint has links of its own
        shutil.rmtree(rest, ignore_errors=True)
    learner, done = _resume(config, folder, plan, shelf) or _begin(config, home, plan, shelf)
    _give_back()
    left = plan.days[len(done) :]
    with RunProgress(console, config, plan, done) as progress, ThreadPoolExecutor(1) as aside:
        coming = [aside.submit(_prepare, learner, home, plan, day, ready) for day in left[:1]]
        for day, later in zip_longest(left, left[1:]):
            batch, encoded = coming.pop().result()
            still_open = plan.open_labels.get(day, frozenset())
            if _is_scored(config, plan, day):
                progress.scored(_score(learner, batch, day, encoded, folder / "scored" / f"{day}.npz"))
            encoded = mapped_anew(encoded, ready / str(day))
            learner.advance(day, batch)
            _give_back()
            if later is not None:
                learner.reach(later, batch)
                if len(batch) <= AHEAD_ROWS:
                    coming.append(aside.submit(_prepare, learner, home, plan, later, ready))
            losses = learner.train(day, encoded, progress.day(day, len(encoded) * config.training.passes))
            encoded = mapped_anew(encoded, ready / str(day))
            learner.wait_for(day, batch, encoded, still_open)
            learner.follow(batch, encoded)
            done.append(day)
            _checkpoint(folder, learner, done)
            log.info("day_trained", day=str(day), rows=len(encoded), losses=losses.tolist())
            del batch, encoded
            _give_back()
            shutil.rmtree(ready / str(day))  # where rows are kept for longer, they stay mapped
            if later is not None and not coming:
                coming.append(aside.submit(_prepare, learner, home, plan, later, ready))
    return learner, _last_scored(folder / "scored", sum(_is_scored(config, plan, day) for day in plan.days))


def _prepare(learner: Learner, home: Home, plan: Plan, day: date, ready: Path) -> tuple[Batch, Encoded]:
    """A day's rows, as they are and encoded in ``ready``. The learner, whose features have reached the day, stays as it
    is."""
    batch = read_day(home, learner.config, day)
    _give_back()  # what Arrow read the texts into
    encoded = learner.encode(day, batch, plan.open_labels.get(day, frozenset()), ready / str(day))
    _give_back()
    return batch, encoded


def _score(learner: Learner, batch: Batch, day: date, encoded: Encoded, path: Path) -> Scored:
    """Score a day by the network as it stands, and keep what calibration needs of it."""
    baselines = learner.rates.baselines(encoded.video)
    scored = score_day(learner.trainer, learner.state, batch, day, encoded, baselines, learner.calibration)
    if learner.config.evaluation.gradient_cosines:
        scored = replace(scored, gradient_cosines=first_cosines(learner.trainer, encoded))
    learner.keep_scored(day, scored.raw, encoded.targets)
    scored.save(path)
    _, old = _last_files(path.parent)
    for file in old:
        file.unlink()
    return scored


def _last_scored(folder: Path, days: int) -> list[Scored]:
    """The last scored days in their order, of so many in all."""
    files, _ = _last_files(folder)
    found = [Scored.load(file) for file in files]
    if len(found) < days:
        log.info("figures_are_of_the_last_days", since=str(found[0].day), limit=SCORED_ROWS)
    return found


def _last_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """Files of scored days in order: of the last days, with up to :data:`SCORED_ROWS` rows or one day, and of those before,
    which no figure will be of."""
    files = sorted(folder.glob("[0-9]*.npz"))
    rows = np.cumsum([Scored.rows(file) for file in reversed(files)])
    last = max(1, int(np.searchsorted(rows, SCORED_ROWS, "right")))
    return files[-last:], files[:-last]


def _give_back() -> None:
    """What Arrow and the C library keep for the next time: 0.6 GB after a day of 1.7 million rows."""
    pa.default_memory_pool().release_unused()
    give_back()


def first_cosines(trainer: Trainer, encoded: Encoded) -> NDArray[np.float64]:
    """The cosines [K, K] between the objectives' gradients on a day's first rows."""
    blocks = {side: Block(block.ints[:COSINE_ROWS], block.floats[:COSINE_ROWS]) for side, block in encoded.blocks.items()}
    return trainer.gradient_cosines(blocks, encoded.targets[:COSINE_ROWS])


def run_folder(home: Home, config: Config, plan: Plan) -> Path:
    """Where a run keeps its checkpoint; to be removed when its result is safe elsewhere."""
    return home.runs(config.name) / plan.key


def read_tables(home: Home, config: Config) -> Tables:
    """The users' and the videos' table, each where the configuration has it."""
    tables = {which: read_table(home, config, which) for which in ("users", "videos")}
    return {w: EntityTable(w.removesuffix("s") + "_id", batch) for w, batch in tables.items() if batch is not None}


def _begin(config: Config, home: Home, plan: Plan, shelf: Path) -> tuple[Learner, list[date]]:
    """The learner before the first day: of the bundle to start from, or fitted on the fit days. What grows too large for
    memory lies on the ``shelf``."""
    tables = read_tables(home, config)
    if plan.start is not None:
        learner = Learner.from_bundle(plan.start, config, tables)
        learner.state.shelf = shelf
        for day, labels in plan.closing:
            learner.close(day, read_day(home, config, day), labels)
        for day in plan.skipped:
            learner.take_in(day, read_day(home, config, day))
        return learner, []
    fit_days = plan.days[: config.training.fit_days]
    learner = Learner.fresh(config, tables, [(day, read_day(home, config, day)) for day in fit_days])
    learner.state.shelf = shelf
    return learner, []


def _is_scored(config: Config, plan: Plan, day: date) -> bool:
    return plan.start is not None or day not in plan.days[: config.training.fit_days]


def _checkpoint(folder: Path, learner: Learner, done: list[date]) -> None:
    """Keep the learner as of the days done; the one before is removed when the new one is whole."""
    write_whole(folder / f"after={done[-1]}", learner.save)
    (folder / "done.tmp").write_text(json.dumps([str(day) for day in done]))
    (folder / "done.tmp").replace(folder / "done.json")
    for old in folder.glob("after=*"):
        if old.name != f"after={done[-1]}":
            shutil.rmtree(old)


def _resume(config: Config, folder: Path, plan: Plan, shelf: Path) -> tuple[Learner, list[date]] | None:
    """The learner and the days done of an interrupted run of the same plan."""
    if not (folder / "done.json").is_file():
        return None
    done = [date.fromisoformat(text) for text in json.loads((folder / "done.json").read_text())]
    log.info("run_resumed", run=plan.key, after=str(done[-1]))
    learner = Learner.load(folder / f"after={done[-1]}", config)
    learner.state.shelf = shelf
    return learner, done
