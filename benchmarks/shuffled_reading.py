"""What a row costs that is gathered from a day's mapped features: row by row, or in blocks (models/shuffle.py).

    python benchmarks/shuffled_reading.py                # a file of 1.9 GB: a minute

``cold``: the system has first let go of the file's pages, as it has of a day that does not fit in memory. ``asked``: it is
told which blocks will be read. Best of the rounds. Writes ``$WATCHNEXT_HOME/benchmarks/shuffled_reading.json``.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from rich.console import Console
from rich.table import Table

from data.features.layout import Block
from data.features.storage import load_array
from data.home import Home
from models.shuffle import announce, shuffled

WIDTH, PART = 160, 100_000
WARM, COLD_SINGLE = 32_768, 4096


def write(path: Path, rows: int) -> None:
    random = np.random.default_rng(1)
    values = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, WIDTH))
    for start in range(0, rows, PART):
        values[start : start + PART] = random.standard_normal(values[start : start + PART].shape, np.float32)
    values.flush()


def gather(path: Path, order: np.ndarray[Any, Any], cold: bool, asked: bool) -> dict[str, float]:
    """Microseconds a row, of wall time and of CPU; bytes read for each byte wanted."""
    if cold:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    values = load_array(path)
    if not cold:
        values.sum()
    begun, used, read = time.perf_counter(), time.process_time(), bytes_read()
    if asked:
        announce({"user": Block(np.zeros((len(values), 0), np.int32), values)}, order)
    size = values[order].nbytes
    wall, cpu = time.perf_counter() - begun, time.process_time() - used
    return {"wall": wall / len(order) * 1e6, "cpu": cpu / len(order) * 1e6, "read": (bytes_read() - read) / size}


def bytes_read() -> int:
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(lines["read_bytes"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=3_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    folder = Home.from_environment().benchmarks
    folder.mkdir(parents=True, exist_ok=True)
    path, random = folder / "shuffled_reading.npy", np.random.default_rng(1)
    write(path, options.rows)
    single, blocks = random.permutation(options.rows), shuffled(options.rows, random)
    figures, table = {}, Table("", "µs a row", "CPU µs a row", "bytes read for each wanted")
    for cold in (True, False):
        ways = (("row by row", single, False), ("in blocks", blocks, False), ("in blocks, asked", blocks, True))
        for name, order, asked in ways:
            part = order[: COLD_SINGLE if cold and order is single else WARM]
            found = [gather(path, part, cold, asked) for _ in range(options.rounds)]
            best = min(found, key=lambda each: each["wall"])
            figures[f"{name}, {'cold' if cold else 'warm'}"] = best
            table.add_row(f"{name}, {'cold' if cold else 'warm'}", *(f"{best[key]:.2f}" for key in ("wall", "cpu", "read")))
    path.unlink()
    Console().print(table)
    path.with_suffix(".json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
