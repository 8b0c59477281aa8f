"""The resident memory of training on a large log, a day at a time: a flat line, or not.

    python benchmarks/training_memory.py                              # 3 days of 400 thousand rows: about 2 minutes
    python benchmarks/training_memory.py --days 4 --day-rows 1666667  # days as a 100-million-row log of 60 days has them

The world has the users and videos of a log of ``--rows`` rows over 60 days; of it ``--days`` days of ``--day-rows`` rows are
simulated, ingested and trained on with the simulator's preset, through the day loop of ``watchnext train``, each stage in a
process of its own. After every day the resident memory, and its peak since the day before. Prints a table and writes
``$WATCHNEXT_HOME/benchmarks/training_memory.json``; the log goes to ``$WATCHNEXT_HOME/benchmarks/training_memory/``.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from rich.console import Console
from rich.table import Table

from data.config import Config, load_config
from data.home import Home

ROOT = Path(__file__).resolve().parents[1]
TARGET = 4096  # MiB
LOG_DAYS = 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000_000)
    parser.add_argument("--days", type=int, default=3)
    parser.add_argument("--day-rows", type=int, default=400_000)
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    base = Home.from_environment().benchmarks / "training_memory"
    if options.stage:
        print(json.dumps(STAGES[options.stage](base, options)))
        return
    shutil.rmtree(base, ignore_errors=True)
    base.mkdir(parents=True)
    found = {stage: run(stage) for stage in STAGES}
    figures = {"rows": options.rows, "day_rows": options.day_rows, "target_mebibytes": TARGET, "stages": found}
    show(figures)
    base.with_suffix(".json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(base)


def run(stage: str) -> Any:
    command = [sys.executable, __file__, *sys.argv[1:], "--stage", stage]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(told.splitlines()[-1])  # behind what is logged


def simulate_stage(base: Path, options: argparse.Namespace) -> dict[str, float]:
    from data.simulator.settings import WorldConfig
    from data.simulator.write import simulate

    begun = time.perf_counter()
    settings = WorldConfig.of_size(options.rows, days=options.days)
    rows = simulate(base / "logs", settings, options.days * options.day_rows, 1)
    return {"rows": rows, "seconds": time.perf_counter() - begun, **memory()}


def ingest_stage(base: Path, options: argparse.Namespace) -> dict[str, float]:
    from data.ingest import ingest

    begun = time.perf_counter()
    ingest(config(), [base / "logs"], Home(base / "home"), Console(quiet=True))
    return {"seconds": time.perf_counter() - begun, **memory()}


def train_stage(base: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The day loop, which is asked after every day."""
    from data.columns import Batch
    from training.days import learn_days
    from training.learner import Learner
    from training.plan import plan_run

    days: list[dict[str, Any]] = []
    follow, begun = Learner.follow, time.perf_counter()

    def watched(learner: Learner, batch: Batch, *rest: Any) -> None:
        follow(learner, batch, *rest)
        state = learner.state
        kept = {"users_and_videos": sum(learner.trainer.network.table_sizes.values()), "recent_rows": len(state.recent)}
        kept |= {"pairs": len(state.seen_pairs), "totals": sum(len(t.keys) for t in state.knowledge.totals.values())}
        days.append({"day": len(days) + 1, "rows": len(batch), "seconds": time.perf_counter() - begun, **memory(), **kept})

    Learner.follow = watched  # type: ignore[method-assign]
    home = Home(base / "home")
    learn_days(config(), home, plan_run(config(), home, None, None, fresh=True), Console(quiet=True))
    return days


def config() -> Config:
    return load_config(ROOT / "training" / "presets" / "simulator.toml")


def memory() -> dict[str, float]:
    """Resident now and at its peak since this was last asked, MiB."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    found = {name: int(lines[key].split()[0]) / 1024 for name, key in (("resident", "VmRSS"), ("peak", "VmHWM"))}
    Path("/proc/self/clear_refs").write_text("5")
    return found


STAGES = {"simulate": simulate_stage, "ingest": ingest_stage, "train": train_stage}


def show(figures: dict[str, Any]) -> None:
    title = f"days of {figures['day_rows']:,} rows of a log of {figures['rows']:,}"
    table = Table("", "rows", "resident, MiB", "peak, MiB", f"peak, of {TARGET:,} MiB", title=title)
    stages = figures["stages"]
    for name, line in [("simulate", stages["simulate"]), ("ingest", stages["ingest"])] + [
        (f"train {day['day']}", day) for day in stages["train"]
    ]:
        bar = "█" * round(20 * line["peak"] / TARGET)
        table.add_row(name, f"{line.get('rows', 0):,}", f"{line['resident']:,.0f}", f"{line['peak']:,.0f}", bar)
    Console().print(table)


if __name__ == "__main__":
    main()
