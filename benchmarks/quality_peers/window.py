"""Encoded days as plain arrays that any library can read: the same rows and point-in-time features for every peer.

A window's folder holds ``train``, ``rows`` and ``slates`` (the judged rows, with features as of the row and as of the
slate's first row), each with categories [n, c] int32, numbers [n, m] float32 and sequences [n, w] int32. ``fields.json``
says what the columns are. Categories and sequences are rows of embedding tables, from 1 on: 0 pads a sequence. Ids that
no training row had have the row of the unseen. Numbers are standardised by the training rows.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.config import Config, Side
from data.features.layout import PADDING, SIDES, UNSEEN, Block, Layout, build_layout
from data.features.storage import load_array
from data.home import Home
from training.compare_cell import Judged
from training.compare_features import EncodedDays, encode_days

Arrays = dict[str, NDArray[Any]]
SERVED: tuple[Side, ...] = tuple(side for side in SIDES if side != "training_only")
PARTS = ("categories", "numbers", "sequences")
SMALLEST_DEVIATION = 1e-6


@dataclass(frozen=True)
class Window:
    """Days to train on and days to judge by; ``objectives`` are those judged, ``encoded`` the days as ours reads them."""

    folder: Path
    encoded: Path
    objectives: tuple[str, ...]
    judged: Judged

    @property
    def fields(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = json.loads((self.folder / "fields.json").read_text())
        return found

    @property
    def key(self) -> str:
        """Of the days, rows and columns: what trials are kept under. How ours is configured does not change it."""
        return blake2b((self.folder / "fields.json").read_bytes(), digest_size=6).hexdigest()

    def arrays(self, part: str) -> Arrays:
        """Of ``train``, ``rows`` or ``slates``; those of ``train`` with targets [n, K] and day [n], from 0 on."""
        return {path.stem: load_array(path) for path in sorted((self.folder / part).glob("*.npy"))}


def build(
    config: Config, home: Home, root: Path, train: Sequence[date], judge: Sequence[date], objectives: Sequence[str]
) -> Window:
    """Encode the days of a window and write them as arrays, unless they are there."""
    encoded = encode_days(config, home, root / "encoded", train, judge)
    folder = root / "windows" / encoded.folder.name
    window = Window(folder, encoded.folder, tuple(objectives), Judged.of(encoded, judge, objectives))
    if not (window.folder / "fields.json").is_file():
        _write(window.folder, config, encoded, train, judge)
    return window


def _write(folder: Path, config: Config, encoded: EncodedDays, train: Sequence[date], judge: Sequence[date]) -> None:
    layout, sizes = build_layout(config), encoded.sizes[train[-2]]  # ids new on the last day were not learnt
    days = [encoded.encoded(day, config.objective_names) for day in train]
    fitted = joined([columns(day.blocks, layout, sizes) for day in days])
    scale = standard(fitted["numbers"])
    targets = np.concatenate([day.targets for day in days])
    number = np.repeat(np.arange(len(days)), [len(day) for day in days])
    save(folder / "train", {**scaled(fitted, scale), "targets": targets, "day": number})
    at_row = [encoded.encoded(day, config.objective_names).blocks for day in judge]
    at_slate = [encoded.slate_blocks(day) or own for day, own in zip(judge, at_row, strict=True)]
    for name, blocks in (("rows", at_row), ("slates", at_slate)):
        save(folder / name, scaled(joined([columns(own, layout, sizes) for own in blocks]), scale))
    found = {
        "train": {"days": [str(day) for day in train], "rows": len(targets)},
        "judge": {"days": [str(day) for day in judge], "rows": sum(len(own["user"]) for own in at_row)},
        **describe(config, layout, sizes, targets),
    }
    (folder / "fields.json").write_text(json.dumps(found, indent=1))


def columns(blocks: Mapping[Side, Block], layout: Layout, sizes: Mapping[str, int]) -> Arrays:
    """Categories, numbers and sequences of some rows, the sides one after the other."""
    found: dict[str, list[NDArray[Any]]] = {part: [np.zeros((len(blocks["user"]), 0), np.int32)] for part in PARTS}
    for side in SERVED:
        for field in layout.sides[side].ints:
            ids = blocks[side].ints[:, field.offset : field.offset + field.width]
            known = np.where(ids >= sizes[field.table], UNSEEN, ids) + 1
            found["sequences" if field.pooled else "categories"].append(np.where(ids == PADDING, 0, known))
        found["numbers"].append(blocks[side].floats)
    kinds = {"categories": np.int32, "numbers": np.float32, "sequences": np.int32}
    return {part: np.concatenate(values, axis=1).astype(kinds[part]) for part, values in found.items()}


def describe(config: Config, layout: Layout, sizes: Mapping[str, int], targets: NDArray[Any]) -> dict[str, Any]:
    """What the columns are. A task is an objective with a label on every training row: the peers know no masks."""
    fields = [field for side in SERVED for field in layout.sides[side].ints]
    table = {f.feature: {"name": f.feature, "table": f.table, "rows": sizes[f.table] + 1, "width": f.width} for f in fields}
    whole = ~np.isnan(targets).any(axis=0)
    return {
        "categories": [table[f.feature] for f in fields if not f.pooled],
        "sequences": [table[f.feature] for f in fields if f.pooled],
        "numbers": [name for side in SERVED for floats in layout.sides[side].floats for name in floats.names],
        "tasks": [{"name": o.name, "kind": o.kind, "column": k} for k, o in enumerate(config.objectives) if whole[k]],
    }


def standard(numbers: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Mean and deviation of each column [m]; 1 for one that does not vary."""
    deviation = numbers.std(axis=0, dtype=np.float64)
    return numbers.mean(axis=0, dtype=np.float64), np.where(deviation < SMALLEST_DEVIATION, 1.0, deviation)


def scaled(arrays: Arrays, scale: tuple[NDArray[Any], NDArray[Any]]) -> Arrays:
    return {**arrays, "numbers": ((arrays["numbers"] - scale[0]) / scale[1]).astype(np.float32)}


def joined(parts: Sequence[Arrays]) -> Arrays:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def save(folder: Path, arrays: Arrays) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", values, allow_pickle=False)
