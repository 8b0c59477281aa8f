"""The resident memory of training on a large log, a day at a time: a flat line, or not.

    python benchmarks/training_memory.py                              # 3 days of 400 thousand rows: about 2 minutes
    python benchmarks/training_memory.py --days 8 --day-rows 1666667  # days as a 100-million-row log of 60 days has them

The world has the users and videos of a log of ``--rows`` rows over 60 days; of it ``--days`` days of ``--day-rows`` rows are
simulated, ingested and trained on with the simulator's preset, through the day loop of ``watchnext train``, each stage in a
process of its own. Its memory is sampled from outside, ten times a second: anonymous (what it has allocated) and backed by
files (libraries, mapped arrays; the system can have these back), at its peak of every day and after the day. How much the
peak grows a day is fitted to the days from ``--from-day`` on, and carried on to day 60.

``$WATCHNEXT_HOME/benchmarks/training_memory.json`` is written after every day: an interruption keeps what was measured.
The log goes to ``$WATCHNEXT_HOME/benchmarks/training_memory/``; with ``--keep`` it stays there for a next call, which
trains on it. ``--train-rows`` shortens the training of every day, but not its scoring and its features: calls
of the graph take 32 thousand rows each, so that memory does not depend on how many there are.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from threading import Event, Thread
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from rich.console import Console
from rich.table import Table

from data.config import Config, load_config
from data.home import Home

ROOT = Path(__file__).resolve().parents[1]
TARGET = 4096  # MiB
LOG_DAYS = 60
KINDS = {"resident": "VmRSS", "anonymous": "RssAnon", "file": "RssFile"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000_000)
    parser.add_argument("--days", type=int, default=3)
    parser.add_argument("--day-rows", type=int, default=400_000)
    parser.add_argument("--train-rows", type=int, help="train on so many rows of a day (default: all)")
    parser.add_argument("--from-day", type=int, default=2, help="the first day that the slope is fitted to")
    parser.add_argument("--keep", action="store_true", help="keep the log, and train on one that was kept")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    base = Home.from_environment().benchmarks / "training_memory"
    if options.stage:
        STAGES[options.stage](base, options)
        return
    kept = options.keep and (base / "home").is_dir()
    if not kept:
        shutil.rmtree(base, ignore_errors=True)
    shutil.rmtree(base / "home" / "runs", ignore_errors=True)
    base.mkdir(parents=True, exist_ok=True)
    figures = {"rows": options.rows, "day_rows": options.day_rows, "train_rows": options.train_rows}
    figures |= {"target_mebibytes": TARGET, "stages": {}, "growth": None}
    for stage in ["train"] if kept else STAGES:
        watch(stage, figures, base.with_suffix(".json"), options.from_day)
    show(figures)
    if not options.keep:
        shutil.rmtree(base)


class Sampler(Thread):
    """The peak of a process's memory since it was last asked, MiB by kind."""

    def __init__(self, process: int) -> None:
        super().__init__(daemon=True)
        self._status, self._peak, self._done = Path(f"/proc/{process}/status"), dict.fromkeys(KINDS, 0.0), Event()

    def run(self) -> None:
        while not self._done.wait(0.1):
            self._sample()

    def since(self) -> dict[str, dict[str, float]]:
        """Now, and at the peak since the last call."""
        now = self._sample()
        peak, self._peak = self._peak, dict.fromkeys(KINDS, 0.0)
        return {"now": now, "peak": peak}

    def stop(self) -> None:
        self._done.set()

    def _sample(self) -> dict[str, float]:
        try:
            lines = dict(line.split(":", 1) for line in self._status.read_text().splitlines())
            now = {kind: int(lines[key].split()[0]) / 1024 for kind, key in KINDS.items()}
        except (OSError, KeyError):  # it has ended
            return dict.fromkeys(KINDS, 0.0)
        if now["resident"] > self._peak["resident"]:
            self._peak = now
        return now


def watch(stage: str, figures: dict[str, Any], path: Path, from_day: int) -> None:
    """Run a stage; what it tells, a line at a time, goes into the figures with its memory, and these to ``path``."""
    found = figures["stages"].setdefault(stage, [])
    command = [sys.executable, __file__, *sys.argv[1:], "--stage", stage]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        sampler = Sampler(process.pid)
        sampler.start()
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("{"):  # else it is what is logged
                found.append({**json.loads(line), **sampler.since()})
                figures["growth"] = growth(found, from_day) if stage == "train" else None
                path.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
                print(stage, len(found), {kind: round(value) for kind, value in found[-1]["peak"].items()}, flush=True)
        sampler.stop()
    if process.returncode:
        raise SystemExit(f"{stage} ended with {process.returncode}")


def growth(days: list[dict[str, Any]], from_day: int) -> dict[str, Any] | None:
    """How much the peaks grow a day, by least squares, MiB; and the peak of the log's last day at that."""
    of = [day for day in days if day["day"] >= from_day]
    if len(of) < 2:
        return None
    number = [day["day"] for day in of]
    slope = {kind: float(np.polyfit(number, [day["peak"][kind] for day in of], 1)[0]) for kind in KINDS}
    last = max(day["peak"]["resident"] for day in of)
    return {"from_day": from_day, "a_day": slope, "at_day_60": last + slope["resident"] * (LOG_DAYS - number[-1])}


def tell(**found: Any) -> None:
    print(json.dumps(found), flush=True)


def simulate_stage(base: Path, options: argparse.Namespace) -> None:
    from data.simulator.settings import WorldConfig
    from data.simulator.write import simulate

    begun = time.perf_counter()
    settings = WorldConfig.of_size(options.rows, days=options.days)
    rows = simulate(base / "logs", settings, options.days * options.day_rows, 1)
    tell(rows=rows, seconds=time.perf_counter() - begun)


def ingest_stage(base: Path, options: argparse.Namespace) -> None:
    from data.ingest import ingest

    begun = time.perf_counter()
    ingest(config(), [base / "logs"], Home(base / "home"), Console(quiet=True))
    tell(seconds=time.perf_counter() - begun)


def train_stage(base: Path, options: argparse.Namespace) -> None:
    """The day loop, which is asked after every day."""
    from data.columns import Batch
    from data.memory import keep_freed
    from models.step import Trainer
    from models.threads import one_thread_an_operation
    from training.days import learn_days
    from training.learner import Learner
    from training.plan import plan_run

    keep_freed()  # both as `watchnext train` does
    one_thread_an_operation()
    count, follow, begun = iter(range(1, options.days + 1)), Learner.follow, time.perf_counter()
    train_epoch = Trainer.train_epoch

    def watched(learner: Learner, batch: Batch, *rest: Any) -> None:
        follow(learner, batch, *rest)
        state = learner.state
        kept = {"users_and_videos": sum(learner.trainer.network.table_sizes.values()), "recent_rows": len(state.recent)}
        kept |= {"pairs": len(state.seen_pairs), "totals": sum(len(t.keys) for t in state.knowledge.totals.values())}
        seconds = {"seconds": time.perf_counter() - begun, "cpu_seconds": time.process_time()}
        tell(day=next(count), rows=len(batch), **seconds, **kept)

    def shortened(trainer: Trainer, blocks: Any, targets: Any, order: Any, *rest: Any) -> Any:
        return train_epoch(trainer, blocks, targets, order[: options.train_rows], *rest)

    Learner.follow, Trainer.train_epoch = watched, shortened  # type: ignore[method-assign]
    home = Home(base / "home")
    learn_days(config(), home, plan_run(config(), home, None, None, fresh=True), Console(quiet=True))


def config() -> Config:
    return load_config(ROOT / "training" / "presets" / "simulator.toml")


STAGES = {"simulate": simulate_stage, "ingest": ingest_stage, "train": train_stage}


def show(figures: dict[str, Any]) -> None:
    title = f"days of {figures['day_rows']:,} rows of a log of {figures['rows']:,}"
    table = Table("", "rows", "after it, MiB", "peak, MiB", "anonymous", "file", f"peak, of {TARGET:,} MiB", title=title)
    for stage, lines in figures["stages"].items():
        for line in lines:
            peak = line["peak"]
            bar = "█" * round(20 * peak["resident"] / TARGET)
            parts = [f"{value:,.0f}" for value in (line["now"]["resident"], *peak.values())]
            table.add_row(f"{stage} {line.get('day', '')}", f"{line.get('rows', 0):,}", *parts, bar)
    Console().print(table)
    if found := figures["growth"]:
        slopes = ", ".join(f"{kind} {value:+,.1f}" for kind, value in found["a_day"].items())
        Console().print(
            f"MiB a day from day {found['from_day']} on: {slopes}; on day {LOG_DAYS} {found['at_day_60']:,.0f} MiB"
        )


if __name__ == "__main__":
    main()
