"""Chosen ranking weights as a versioned file, which is never written over.

``$WATCHNEXT_HOME/weights/<name>/<version>.toml``: what the configuration's [ranking] and an experiment's arm accept
(data/weights.py), and under [about] the days, the evidence and the estimates.
"""

import math
import os
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

from data.errors import WatchNextError
from data.home import Home
from models.ranking import Ranking
from training.report import write_text

MOST = 99
"""Files of one day."""


def write_weights(home: Home, name: str, last: date, ranking: Ranking, about: Mapping[str, Any]) -> Path:
    """Write the next version of the day ``last``; returns its path.

    Raises:
        WatchNextError: the folder can't be written, or is full.
    """
    folder = home.root / "weights" / name
    try:
        for number in range(1, MOST + 1):
            version = int(f"{last:%Y%m%d}{number:02}")
            path = folder / f"{version}.toml"
            if path.exists():
                continue
            whole = folder / f"whole-{os.getpid()}-{version}"
            write_text(whole, "\n".join(_lines(name, version, ranking, about)) + "\n")
            try:
                os.link(whole, path)  # unlike a rename it fails where another process was faster
            except FileExistsError:
                continue
            finally:
                whole.unlink()
            return path
    except OSError as error:
        raise WatchNextError(f"cannot write into {folder}: {error.strerror}") from None
    raise WatchNextError(f"{folder} holds {MOST} files of {last} already")


def _lines(name: str, version: int, ranking: Ranking, about: Mapping[str, Any]) -> Iterator[str]:
    yield f"# Ranking weights of {name}, chosen by `watchnext tune-weights`. For the configuration: `ranking` = this file's"
    yield "# path; for an experiment's arm: `weights` = its path; each relative to the file that names it."
    yield ""
    yield f'combine = "{ranking.combine}"'
    for table, values in (("weights", ranking.weights), ("reference_means", ranking.means)):
        yield f"\n[{table}]"
        yield from (f"{key} = {value!r}" for key, value in zip(ranking.objectives, values.tolist(), strict=True))
    yield from _table("about", {"name": name, "version": version, **about})


def _table(where: str, values: Mapping[str, Any]) -> Iterator[str]:
    """A table of texts, numbers, lists of them and tables of these; what is None or not finite is left out."""
    yield f"\n[{where}]"
    inner = {key: value for key, value in values.items() if isinstance(value, Mapping)}
    for key, value in values.items():
        if key not in inner and value is not None and not (isinstance(value, float) and not math.isfinite(value)):
            yield f"{key} = {_value(value)}"
    for key, table in inner.items():
        yield from _table(f"{where}.{key}", table)


def _value(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case int():
            return str(value)
        case float():
            return f"{value:.6g}"
        case list() | tuple():
            return f"[{', '.join(map(_value, value))}]"
        case _:
            escaped = str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
            return f'"{escaped}"'
