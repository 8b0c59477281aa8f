"""The memory of a day's features on a state as sixty days have left it, against a state of one day.

    python benchmarks/training_memory.py --keep --days 2 --day-rows 1666667    # once, for its log: two days of it are read
    python benchmarks/features_memory.py                                       # about 3 minutes, 12 GB of disk

The first day of the log is fitted on and taken in; then the second is encoded into files, taken in, and the state saved, in
a process of its own: once as it is, and once with what a 100-million-row log would have left by its last day. That is
made up, so that nobody need wait for sixty days, and rather too large than too small: every user of the table known, and of
each 45 recent rows, 186 authors and 186 videos, and all topics. No TensorFlow is loaded: this is what the features
take, and no more. Sampled from outside like ``training_memory.py``; prints a table and writes
``$WATCHNEXT_HOME/benchmarks/features_memory.json``.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.training_memory import KINDS, Sampler, config, tell
from data.columns import Batch, Strings
from data.days import day_start
from data.features.rates import NAMES
from data.features.recent_files import USERS, RecentFiles
from data.features.sorting import Ints
from data.features.state import PAIRS, FeatureState
from data.features.storage import ArrayFile, save_arrays, save_batch
from data.home import Home
from data.log import list_days, read_day
from data.memory import give_back, keep_freed

RECENT, MET = 45, 186
USERS_AT_ONCE = 5_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    base = Home.from_environment().benchmarks
    home, place = Home(base / "training_memory" / "home"), base / "features_memory"
    if options.state:
        keep_freed()  # as training does
        a_day(home, options.state)
        return
    shutil.rmtree(place, ignore_errors=True)
    young = first_day(home)
    young.save(place / "a day")
    age(young, place / "sixty days")
    del young
    found = {name: measured(place / name) for name in ("a day", "sixty days")}
    path = place.with_suffix(".json")
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(place)
    show(found)


def first_day(home: Home) -> FeatureState:
    from training.days import read_tables

    day = list_days(home, "simulator")[0]
    batch = read_day(home, config(), day)
    state = FeatureState.fit(config(), read_tables(home, config()), [(day, batch)])
    state.advance(batch, day_start(day + timedelta(days=1), "UTC"))
    return state


def age(state: FeatureState, folder: Path) -> None:
    """Save the state as if all users had been met often."""
    vocabularies = state.knowledge.vocabularies
    for name, key in (("users", "user_id"), ("videos", "video_id")):
        vocabularies[key].add(state.tables[name].ids.texts)
        vocabularies[key].admit()
    state.save(folder)
    users, sizes = len(vocabularies["user_id"]), {name: len(each) for name, each in vocabularies.items()}
    for name, key, width in (("user_author_rate", "author_id", MET), ("user_topic_rate", "topic", sizes["topic"])):
        labels = state.knowledge.totals[name].counts.shape[1]
        files = {column: ArrayFile(folder / "totals" / name / f"{column}.npy") for column in NAMES}
        for some in by_users(users):
            keys = met(some, width, sizes[key], 31)
            for column, file in files.items():
                file.append(keys if column == "keys" else np.ones((len(keys), labels), np.int64))
        for file in files.values():
            file.close()
    pairs = ArrayFile(folder / f"{PAIRS}.npy")
    for some in by_users(users):
        pairs.append(met(some, MET, sizes["video_id"], 32))
    pairs.close()
    age_recent(state, folder)


def age_recent(state: FeatureState, folder: Path) -> None:
    """Write recent rows of everybody: those of the state's, drawn by lot."""
    vocabularies, random = state.knowledge.vocabularies, np.random.default_rng(0)
    files = RecentFiles(folder.with_name("recent"), vocabularies, [state.recent])
    for some in by_users(len(vocabularies["user_id"])):
        user = np.repeat(some, RECENT)
        rows = state.recent.take(np.sort(random.integers(0, len(state.recent), len(user))))
        whose = Strings(user.astype(np.int32), vocabularies["user_id"].texts)
        files.append(Batch({**rows.columns, "user_id": whose}), user)
    batch, user = files.close()
    shutil.rmtree(folder / "recent")
    save_batch(batch, folder / "recent", files.folder)
    save_arrays({USERS: user}, folder, files.folder)


def by_users(users: int) -> Iterator[Ints]:
    return (np.arange(first, min(first + USERS_AT_ONCE, users)) for first in range(0, users, USERS_AT_ONCE))


def met(users: Ints, width: int, of: int, bits: int) -> Ints:
    """Keys of the users, each with ``width`` of so many others, spread evenly; sorted."""
    others = np.arange(width) * of // width
    return ((users[:, None] << bits) | others[None]).reshape(-1)


def a_day(home: Home, folder: Path) -> None:
    """The log's second day, on the state in the folder; tells after each step."""
    day = list_days(home, "simulator")[1]
    state = FeatureState.load(folder, config())
    state.shelf = folder.with_name(f"shelf of {folder.name}")
    give_back()
    tell(step="loaded")
    batch = read_day(home, config(), day)
    begun = time.process_time()

    def took() -> float:
        return time.process_time() - begun

    encoded = state.encode(batch, day, folder=folder.with_name("encoded"))
    give_back()
    tell(step="encoded", rows=len(encoded), cpu_seconds=took())
    del encoded
    state.advance(batch, day_start(day + timedelta(days=1), "UTC"))
    give_back()
    kept = {"recent_rows": len(state.recent), "pairs": len(state.seen_pairs)}
    kept |= {"totals": sum(len(t.keys) for t in state.knowledge.totals.values())}
    tell(step="taken in", cpu_seconds=took(), **kept)
    state.save(folder.with_name("saved"))
    tell(step="saved", cpu_seconds=took())
    shutil.rmtree(folder.with_name("saved"))


def measured(folder: Path) -> list[dict[str, Any]]:
    command = [sys.executable, __file__, "--state", str(folder)]
    found = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        sampler = Sampler(process.pid)
        sampler.start()
        assert process.stdout is not None
        for line in process.stdout:
            found.append({**json.loads(line), **sampler.since()})
            print(folder.name, found[-1], flush=True)
        sampler.stop()
    if process.returncode:
        raise SystemExit(f"the day on {folder} ended with {process.returncode}")
    return found


def show(found: dict[str, list[dict[str, Any]]]) -> None:
    table = Table("state of", "step", *(f"{when} {kind}, MiB" for when in ("peak", "now") for kind in KINDS), "CPU s")
    for name, steps in found.items():
        for step in steps:
            parts = [f"{step[when][kind]:,.0f}" for when in ("peak", "now") for kind in KINDS]
            table.add_row(name, step["step"], *parts, f"{step.get('cpu_seconds', 0):.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
