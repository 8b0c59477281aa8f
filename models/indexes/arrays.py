"""The arrays of an index on disk: one ``.npy`` each, mapped into memory when loaded."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.errors import BundleError


def save_array(path: Path, array: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.ascontiguousarray(array), allow_pickle=False)


def load_array(path: Path, kind: type[np.generic], dimensions: int = 1, mapped: bool = True) -> NDArray[Any]:
    """The array in ``path``, read-only and mapped into memory (an empty one cannot be mapped).

    Raises:
        BundleError: it is missing, or not of this type and number of dimensions.
    """
    try:
        array: NDArray[Any] = np.load(path, allow_pickle=False) if not mapped else _mapped(path)
    except (OSError, ValueError, EOFError) as error:
        raise BundleError(f"cannot read {path}: {error}") from None
    if array.dtype != kind or array.ndim != dimensions:
        expected = f"{np.dtype(kind)} in {dimensions} dimensions"
        raise BundleError(f"{path} holds {array.dtype} in {array.ndim} dimensions, expected {expected}")
    return array


def _mapped(path: Path) -> NDArray[Any]:
    try:
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except ValueError:
        return np.asarray(np.load(path, allow_pickle=False))


def grown(array: NDArray[Any], size: int) -> NDArray[Any]:
    """The array [n, ...] with zeros up to ``size`` rows; itself when it is that large already."""
    if len(array) >= size:
        return array
    return np.concatenate([array, np.zeros((size - len(array), *array.shape[1:]), array.dtype)])
