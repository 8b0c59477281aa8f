"""Exports, killed at its first step, then (from where that left it) at its second, until it gets through; prints how often
it was killed.

    python tests/feedback_exporter.py HOME NOW [COPY]

With COPY each try begins with the home as it was, so that every step of the whole is the one it is killed at; each is then
finished undisturbed, and the folders COPY/0, COPY/1, ... hold the results. A step is anything that changes the disk. Each
try is a process of its own, forked before anything has begun.
"""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pyarrow.parquet as pq
import sqlalchemy as sa

from data import staging
from data.feedback.retention import retain
from data.home import Home
from tests.feedback_world import export, feedback_config

NEVER = 1 << 30


class Killer:
    """Ends the process before its step number ``last``."""

    def __init__(self, last: int) -> None:
        self.left = last

    def step(self, *_: Any) -> None:
        self.left -= 1
        if self.left < 0:
            os._exit(9)

    def before(self, what: Any, name: str) -> None:
        real: Callable[..., Any] = getattr(what, name)

        def killed(*args: Any, **more: Any) -> Any:
            self.step()
            return real(*args, **more)

        setattr(what, name, killed)


def attempt(home: Path, now: int, last: int) -> None:
    killer = Killer(last)
    for what, name in [(os, "replace"), (Path, "rename"), (Path, "unlink"), (Path, "write_text"), (Path, "rmdir")]:
        killer.before(what, name)
    killer.before(staging, "sync")
    killer.before(pq.ParquetWriter, "close")
    sa.event.listen(sa.Engine, "commit", killer.step)
    config = feedback_config(events={"retention_days": 1})
    export(home, config, now)
    retain(config, Home(home), now)


def survives(home: Path, now: int, last: int) -> bool:
    """Whether a try that is killed at step ``last`` gets through before it."""
    child = os.fork()
    if not child:
        attempt(home, now, last)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status not in (0, 9):
        sys.exit(f"killed at step {last}: exit code {status}")
    return status == 0


def main() -> None:
    home, now, kills = Path(sys.argv[1]), int(sys.argv[2]), 0
    copies = Path(sys.argv[3]) if len(sys.argv) > 3 else None
    while True:
        here = home if copies is None else Path(shutil.copytree(home, copies / f"{kills}"))
        if survives(here, now, kills):
            print(kills)
            return
        if copies is not None and not survives(here, now, NEVER):
            sys.exit("not to be reached")
        kills += 1


if __name__ == "__main__":
    main()
