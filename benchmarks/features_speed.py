"""Point-in-time features of a log, ours and in plain pandas: seconds, memory, and whether the values agree.

    python benchmarks/features_speed.py                             # 0.5, 1 and 2 million rows: about 4 minutes
    python benchmarks/features_speed.py --rows 10000000             # about 10 minutes, 12 GB (pandas), 3 GB of disk

Ten days of one simulated log, of which every row knows the outcomes that became known before it: rates and counts of the
user and of the user with the author, to the moment; of the video, to the day; means of the last 1, 5 and 20 outcomes; time
since the last impression, impressions in the last hour; the last 20 videos clicked. Ours goes over the log a day at a
time, as training does, vocabularies included; pandas has it whole (``features_pandas.py``, a good user's groupby, cumsum,
rolling and merge_asof). Two rows of each size:

- ``in memory``: both get arrays. pandas's ids are integers already, ours are texts, coded day by day as a reader of Parquet
  gives them: the harder of the two for us.
- ``stored log``: both read the same day partitions of the log contract (Parquet, ids as texts) first, ours a day at a time;
  pandas makes integers of the texts by one ``factorize`` a column.

All values are compared. Each run has a fresh process; the memory is its peak, with the day's rows. Ours uses freed memory
again, as training does (``data.memory.keep_freed``); plain pandas does not, but with ``--tuned``. Prints a table and writes
``$WATCHNEXT_HOME/benchmarks/features_speed.json``.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table
from rivals import environment, python_of

from data.columns import Batch, Strings
from data.config import Config, Side, parse_config
from data.days import day_start
from data.features.layout import Block
from data.features.state import FeatureState
from data.features.static import FIRST
from data.home import Home
from data.log import ROWS_FILE, read_day
from data.memory import KEPT, keep_freed
from data.partition import ROW_GROUP

DAYS = 10
LABELS = ("click", "watch", "like")
FIRST_DAY = date(2024, 1, 1)
SIZES = (500_000, 1_000_000, 2_000_000)
TARGET = 5.0
SOURCES = ("in memory", "stored log")
COMPARED = 65_536
KEEP_FREED = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": str(KEPT), "MALLOC_TRIM_THRESHOLD_": str(KEPT)}
"""What ``keep_freed`` asks of the C library, for another interpreter."""


def configuration() -> Config:
    binary, delay = {"type": "binary", "feedback_delay": 60}, 60
    rate = {"kind": "rate", "until": "moment"}
    return parse_config(
        {
            "name": "features",
            "dataset": "features",
            "seed": 1,
            "log": {"context": {"author": {"type": "category"}}},
            "labels": {"click": binary, "watch": {"type": "number", "feedback_delay": delay}, "like": binary},
            "features": [
                {**rate, "name": "user_now", "keys": ["user_id"], "labels": [*LABELS], "strength": 5},
                {**rate, "name": "user_author", "keys": ["user_id", "author"], "labels": ["click", "like"], "strength": 3},
                {
                    "kind": "rate",
                    "name": "video_day",
                    "keys": ["video_id"],
                    "labels": ["click", "watch", "like"],
                    "strength": 20,
                },
                {"kind": "recent", "name": "recent", "labels": ["click", "like"], "last": [1, 5, 20]},
                {"kind": "activity", "name": "activity", "hours": [1.0]},
                {"kind": "history", "name": "watched", "label": "click", "of": "video_id", "length": 20, "dim": 8},
            ],
            "objectives": [{"name": "click", "family": "engagement", "label": "click", "kind": "binary"}],
        },
        "the benchmark's configuration",
    )


def write_log(folder: Path, n: int) -> None:
    """n rows over the days, by time: a hundred a user, videos of which few are frequent, outcomes known when they end."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "pandas").mkdir(parents=True)
    random, start = np.random.default_rng(1), day_start(FIRST_DAY, "UTC")
    t = np.sort(start + (random.random(n) * DAYS * 86_400_000).astype(np.int64) // 1000 * 1000)
    video = (20_000 * random.random(n) ** 3).astype(np.int32)
    watch = np.round(random.exponential(20, n), 3)
    arrays = {
        "t": t,
        "user": (max(n // 100, 1) * random.random(n) ** 1.5).astype(np.int32),
        "video": video,
        "author": video % 3000,
        "click": (random.random(n) < 0.3).astype(np.float64),
        "like": (random.random(n) < 0.05).astype(np.float64),
        "watch": watch,
        "visible": t + (1000 * watch).astype(np.int64),
    }
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", values)


def batch_of(arrays: dict[str, np.ndarray[Any, Any]]) -> Batch:
    def texts(name: str) -> Strings:
        distinct, codes = np.unique(arrays[name], return_inverse=True)
        return Strings(codes.astype(np.int32), [str(value) for value in distinct.tolist()])

    columns = {"user_id": texts("user"), "video_id": texts("video"), "author": texts("author")}
    times = {"timestamp": arrays["t"], "visible_at": arrays["visible"]}
    return Batch({**columns, **times, **{label: arrays[label] for label in LABELS}})


def write_partitions(folder: Path, home: Home) -> None:
    """The same rows as the log contract has them on disk: a Parquet file a day, ids as texts (data/log.py)."""
    files, edges = arrays_of(folder), day_edges()
    bounds = np.searchsorted(files["t"], edges)
    for i in range(DAYS):
        batch = batch_of({name: np.array(values[bounds[i] : bounds[i + 1]]) for name, values in files.items()})
        columns = {}
        for name, column in batch.columns.items():
            if isinstance(column, Strings):
                coded = pa.DictionaryArray.from_arrays(pa.array(column.codes), pa.array(column.values))
                columns[name] = coded.cast(pa.string())
            else:
                columns[name] = pa.array(column)
        path = home.day("features", FIRST_DAY + timedelta(days=i)) / ROWS_FILE
        path.parent.mkdir(parents=True)
        pq.write_table(pa.table(columns), path, row_group_size=ROW_GROUP, compression="zstd")


def arrays_of(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    return {path.stem: np.load(path, mmap_mode="r") for path in folder.glob("*.npy")}


def day_edges() -> list[int]:
    return [day_start(FIRST_DAY + timedelta(days=i), "UTC") for i in range(DAYS + 1)]


def ours(folder: Path, stored: bool) -> dict[str, float]:
    """Our run, in this process: the seconds of (reading,) encoding and taking in; how many values differ from pandas's."""
    config, files, edges = configuration(), arrays_of(folder), day_edges()
    bounds = np.searchsorted(files["t"], edges)
    theirs = {name: np.load(folder / "pandas" / f"{name}.npy", mmap_mode="r") for name in ("floats", "history")}
    seconds, used, differing, worst, state = 0.0, 0.0, 0, 0.0, None
    for i in range(DAYS):
        part = slice(bounds[i], bounds[i + 1])
        day = FIRST_DAY + timedelta(days=i)
        batch = None if stored else batch_of({name: np.array(values[part]) for name, values in files.items()})
        begun, before = time.perf_counter(), time.process_time()
        batch = batch or read_day(Home(folder), config, day)
        state = state or FeatureState.fit(config, {}, [(day, batch)])
        encoded = state.encode(batch, day)
        video = state.knowledge.vocabularies["video_id"]
        admitted = np.array(video.texts[: video.admitted], np.int64)
        state.advance(batch, edges[i + 1])
        seconds, used = seconds + time.perf_counter() - begun, used + time.process_time() - before
        for rows in slices(part):
            here = slice(rows.start - part.start, rows.stop - part.start)
            blocks = {side: Block(block.ints[here], block.floats[here]) for side, block in encoded.blocks.items()}
            apart = np.abs(in_order(state, blocks) - theirs["floats"][rows])
            seen = videos_seen(theirs["history"][rows], admitted)
            worst = max(worst, float(apart.max()))
            differing += int((apart > 1e-4).sum()) + int((videos_of(blocks["user"].ints, admitted) != seen).sum())
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found = {"seconds": seconds, "cpu_seconds": used, "megabytes": megabytes}
    return {**found, "differing_values": differing, "largest_difference": worst}


def slices(part: slice) -> list[slice]:
    """A day's rows in pieces, so that comparing them takes little memory beside what is measured."""
    return [slice(start, min(start + COMPARED, part.stop)) for start in range(part.start, part.stop, COMPARED)]


def in_order(state: FeatureState, blocks: Mapping[Side, Block]) -> np.ndarray[Any, Any]:
    """The floats of all sides in the order of the features [n, width]."""
    found = {}
    for side, block in blocks.items():
        for field in state.layout.sides[side].floats:
            found[field.feature] = block.floats[:, field.offset : field.offset + field.width]
    return np.concatenate([found[f.name] for f in state.config.features if f.name in found], axis=1)


def videos_of(rows: np.ndarray[Any, Any], admitted: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The ids behind embedding rows: -1 where padding, -2 where not admitted yet."""
    known = np.where(rows >= FIRST, admitted[np.maximum(rows - FIRST, 0)], -2)
    return np.where(rows < 0, -1, known)


def videos_seen(ids: np.ndarray[Any, Any], admitted: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.where((ids < 0) | np.isin(ids, admitted), ids, -2)


def measure(rows: int, folder: Path, tuned: bool) -> list[dict[str, Any]]:
    """Both, from memory and from the stored log."""
    write_log(folder, rows)
    write_partitions(folder, Home(folder))
    found = []
    for source in SOURCES:
        stored = source == "stored log"
        logs = [str(Home(folder).logs("features"))] if stored else []
        command = [str(python_of("pandas")), str(Path(__file__).with_name("features_pandas.py")), str(folder), *logs]
        subprocess.run(command, check=True, env=environment() | (KEEP_FREED if tuned else {}))
        theirs = json.loads((folder / "pandas" / "answer.json").read_text())
        command = [sys.executable, __file__, "--ours", str(folder), *(["--stored"] if stored else [])]
        mine = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        faster = {
            f"times_{name}": theirs[key] / mine[key] for name, key in (("faster", "seconds"), ("less_cpu", "cpu_seconds"))
        }
        found.append({"rows": rows, "source": source, "ours": mine, "pandas": theirs, **faster})
    shutil.rmtree(folder)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--tuned", action="store_true", help="the C library's settings of ours for pandas too")
    parser.add_argument("--ours", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--stored", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ours:
        keep_freed()  # as training does
        print(json.dumps(ours(options.ours, options.stored)))
        return
    target = Home.from_environment().benchmarks
    target.mkdir(parents=True, exist_ok=True)
    found = [line for rows in options.rows for line in measure(rows, target / "features_speed", options.tuned)]
    table = Table(
        "rows", "from", "ours, s", "pandas, s", "times faster", "CPU, s", "ours, MB", "pandas, MB", "values that differ"
    )
    for line in found:
        mine, theirs = line["ours"], line["pandas"]
        seconds = (f"{mine['seconds']:.1f}", f"{theirs['seconds']:.1f}", f"{line['times_faster']:.1f}")
        cpu = f"{mine['cpu_seconds']:.1f} / {theirs['cpu_seconds']:.1f}"
        memory = (f"{mine['megabytes']:,.0f}", f"{theirs['megabytes']:,.0f}")
        table.add_row(f"{line['rows']:,}", line["source"], *seconds, cpu, *memory, f"{mine['differing_values']:,}")
    Console().print(table)
    (target / "features_speed.json").write_text(
        json.dumps({"target": TARGET, "tuned": options.tuned, "runs": found}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
