"""The cells of a comparison: which there are, which are done, and running the others beside each other."""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import structlog
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from data.config import Config
from data.errors import WatchNextError
from data.home import Home
from training.compare_cell import FORMAT, Spec, run_cell
from training.compare_features import EncodedDays, encode_days
from training.compare_grid import Design, Grid, designs
from training.compare_match import Matched, Size, match, network_size, with_layers

log = structlog.get_logger()

POLL = 0.2  # seconds between looks at the workers
MOST_JOBS = 8  # by default: each worker takes about a gigabyte
TAIL = 15  # lines of a failed worker's output that are shown

OnCell = Callable[["Cell"], None]


class CellsFailedError(WatchNextError):
    """Some cells could not be computed; the others are kept."""


@dataclass(frozen=True)
class Cell:
    """A design with a seed; its files are in ``folder``."""

    design: Design
    seed: int
    folder: Path
    spec: Spec

    @property
    def name(self) -> str:
        return f"{self.design.name}, seed {self.seed}"

    @property
    def is_done(self) -> bool:
        return (self.folder / "result.json").is_file()


@dataclass(frozen=True)
class Plan:
    """All cells of a grid, by seed and then by design; the rows that all are judged on; each design's widths factor."""

    grid: Grid
    base: Config
    designs: tuple[Design, ...]
    factors: dict[str, float]
    rows: EncodedDays
    cells: tuple[Cell, ...]


def plan_cells(grid: Grid, base: Config, home: Home, console: Console) -> Plan:
    """Encode the days that are not encoded yet, match sizes, and name every cell by what it depends on.

    Raises:
        ConfigError: an override is wrong, or sizes cannot be matched.
        LogError: a day has no rows.
    """
    root, wanted = home.root / "compare" / grid.name, designs(grid, base)
    with _encoding(console) as on_design:
        of_base = encode_days(base, home, root / "encoded", grid.train_days, grid.report_days)
        encoded = {}
        for design in wanted:
            on_design(design.name)
            encoded[design.name] = encode_days(design.whole, home, root / "encoded", grid.train_days, grid.report_days)
    matched = dict(_matched(grid, wanted, encoded, root / "sizes.json"))
    chosen = [replace(design, config=matched[design.name].config) for design in wanted]
    cells = [
        _cell(grid, design, seed, root, encoded[design.name].folder, of_base.folder)
        for seed in grid.seeds
        for design in chosen
    ]
    return Plan(grid, base, tuple(chosen), {n: m.factor for n, m in matched.items()}, of_base, tuple(cells))


@contextmanager
def _encoding(console: Console) -> Iterator[Callable[[str], None]]:
    with console.status("Encoding the days") as status:
        yield lambda name: status.update(f"Encoding the days for {name}")


def _matched(
    grid: Grid, wanted: Sequence[Design], encoded: dict[str, EncodedDays], kept: Path
) -> Iterator[tuple[str, Matched]]:
    """Each design's configuration at the baseline's size. A single-task network always has it, in parameters at least.

    Widths found before are ``kept``, by what they depend on: building networks takes a while.
    """
    known: dict[str, tuple[tuple[int, ...], float, float]] = json.loads(kept.read_text()) if kept.is_file() else {}
    size: Size = "flops" if grid.match == "flops" else "parameters"
    sizes: dict[str, float] = {}

    def measure(design: Design, config: Config) -> float:
        key = _hash(size, config.model_dump(mode="json", include={"features", "objectives", "model"}))
        if key not in sizes:
            sizes[key] = network_size(encoded[design.name].state(design.whole, config), size)
        return sizes[key]

    baseline = next(design for design in wanted if design.name == grid.baseline)
    target = None
    for design in wanted:
        if design is baseline or (grid.match == "none" and design.only is None):
            yield design.name, Matched(design.config, 1.0, float("nan"))
            continue
        target = measure(baseline, baseline.config) if target is None else target
        key = _hash(size, target, design.config.model_dump(mode="json"))
        if key in known:
            layers, factor, reached = known[key]
            yield design.name, Matched(with_layers(design.config, layers), factor, reached)
            continue
        found = match(design.config, target, partial(measure, design))
        known[key] = found.config.model.trunk.layers, found.factor, found.size
        kept.write_text(json.dumps(known))
        yield design.name, found


def _cell(grid: Grid, design: Design, seed: int, root: Path, encoded: Path, rows: Path) -> Cell:
    whole, config = (c.model_copy(update={"seed": seed}) for c in (design.whole, design.config))
    spec = Spec(whole, config, encoded, rows, tuple(grid.train_days), tuple(grid.report_days), grid.bootstrap)
    depends = config.model_dump(mode="json", include={"objectives", "features", "model", "training", "evaluation"})
    depends["evaluation"] = {k: depends["evaluation"][k] for k in ("dead_expert", "collapsed_gate")}
    key = _hash(FORMAT, depends, seed, encoded.name, rows.name, grid.train, grid.report, grid.bootstrap)
    return Cell(design, seed, root / "cells" / key, spec)


def _hash(*content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def run_cells(plan: Plan, jobs: int, console: Console) -> None:
    """Run the cells that are not done, ``jobs`` at a time, each with its share of the cores; 0: in this process.

    Raises:
        CellsFailedError: after all others are done, which ones failed and what they said last.
    """
    todo = list({cell.folder: cell for cell in plan.cells if not cell.is_done}.values())
    done = len({cell.folder for cell in plan.cells}) - len(todo)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    if done:
        console.print(f"{done} of {done + len(todo)} cells are there already", highlight=False)
    failed: list[str] = []
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("cells", total=len(todo))

        def describe(running: list[str]) -> None:
            progress.update(task, description=", ".join(running) or "cells")

        if jobs == 0:
            for cell in todo:
                describe([cell.name])
                cell.spec.save(cell.folder / "spec.json")
                run_cell(cell.folder)
                _finished(cell)
                progress.advance(task)
        else:
            for cell, said in _workers(todo, jobs, describe):
                if said is None:
                    _finished(cell)
                else:
                    failed.append(f"{cell.name}:\n{said}")
                progress.advance(task)
    if failed:
        raise CellsFailedError("\n".join([f"{len(failed)} of {len(todo)} cells failed; the others are kept.", *failed]))


def _finished(cell: Cell) -> None:
    cost = json.loads((cell.folder / "result.json").read_text())["cost"]
    log.info("cell_done", design=cell.design.name, seed=cell.seed, seconds=round(cost["train_seconds"], 1))


def _workers(todo: Sequence[Cell], jobs: int, describe: Callable[[list[str]], None]) -> Iterator[tuple[Cell, str | None]]:
    """Run each cell in a process of its own; yields a cell when it ended, with its last words where it failed."""
    waiting = list(reversed(todo))
    running: dict[int, tuple[Cell, subprocess.Popen[bytes]]] = {}
    threads = max(1, (os.cpu_count() or 1) // jobs)
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                cell = waiting.pop()
                process = _start(cell, threads)
                running[process.pid] = cell, process
            describe([cell.name for cell, _ in running.values()])
            time.sleep(POLL)
            for pid, (cell, process) in list(running.items()):
                if process.poll() is not None:
                    del running[pid]
                    yield cell, None if process.returncode == 0 and cell.is_done else _last_words(cell, process.returncode)
    finally:  # interrupted: what runs is ended, what is done is kept
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.wait()


def _start(cell: Cell, threads: int) -> subprocess.Popen[bytes]:
    cell.spec.save(cell.folder / "spec.json")
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "TF_NUM_INTRAOP_THREADS": str(threads),
        "TF_NUM_INTEROP_THREADS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).resolve().parent.parent), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, "-m", "training.compare_cell", str(cell.folder)]
    with (cell.folder / "output.txt").open("wb") as output:
        return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)


def _last_words(cell: Cell, code: int) -> str:
    lines = (cell.folder / "output.txt").read_text(errors="replace").strip().splitlines()
    return "\n".join([*lines[-TAIL:], f"(exit code {code}; all of it in {cell.folder / 'output.txt'})"])
