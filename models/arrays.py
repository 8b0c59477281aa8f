"""Named arrays in a folder: one ``.npy`` file each and a ``.json`` that lists them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.errors import BundleError

INDEX = "index.json"


def write_arrays(folder: Path, arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]) -> None:
    """Write ``arrays`` and the JSON-ready ``facts`` about them; the index comes last."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: f"{number:04d}.npy" for number, name in enumerate(arrays)}
    for name, file in files.items():
        np.save(folder / file, arrays[name], allow_pickle=False)
    text = json.dumps({"facts": dict(facts), "files": files}, indent=1)
    (folder / INDEX).write_text(text + "\n", encoding="utf-8")


def read_arrays(folder: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The arrays and the facts.

    Raises:
        BundleError: a file is missing or damaged.
    """
    path = folder / INDEX
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        arrays = {}
        for name, file in index["files"].items():
            path = folder / file
            arrays[name] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"cannot read {path}: {error}") from None
    return arrays, index["facts"]
