"""A trainer's whole state as ``.npy`` and ``.json`` files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from data.errors import BundleError
from models.arrays import read_arrays, write_arrays
from models.balancing.base import Balancing

if TYPE_CHECKING:
    from models.step import Trainer

FORMAT = 1
Arrays = Mapping[str, NDArray[Any]]


def write_state(trainer: Trainer, folder: Path) -> None:
    """Write weights, tables, slots, averages, balancing's variables and the count of steps."""
    network, balancing = trainer.network, trainer.balancing
    arrays = {f"weight/{name}": variable.numpy() for name, variable in network.weights.items()}
    arrays |= {f"table/{name}": variable.numpy() for name, variable in network.embeddings.variables.items()}
    arrays |= {f"slot/{name}": values for name, values in trainer.optimizers.slots().items()}
    arrays |= {f"average/{name}": values for name, values in trainer.averages().items()}
    arrays |= {f"balancing/{name}": variable.numpy() for name, variable in balancing.variables.items()}
    facts = {"format": FORMAT, "steps": int(trainer.steps), "rows": network.table_sizes, "balancing": balancing.kind}
    write_arrays(folder, arrays, facts)


def read_state(trainer: Trainer, folder: Path) -> tuple[Arrays, Mapping[str, Any]]:
    """The arrays and facts of a state of this trainer's network.

    Raises:
        BundleError: a file is damaged, or the state is of another network.
    """
    arrays, facts = read_arrays(folder)
    if facts.get("format") != FORMAT:
        raise BundleError(f"{folder}: expected trainer format {FORMAT}, got {facts.get('format')!r}")
    balanced = facts.get("balancing", Balancing.kind)
    if balanced != trainer.balancing.kind:
        raise BundleError(
            f"{folder}: its losses were balanced by {balanced!r}, the configuration has {trainer.balancing.kind!r}: "
            "another balance starts with a new network"
        )
    for name, shape in _expected(trainer).items():
        came = arrays[name].shape if name in arrays else None
        if came is None or len(came) != len(shape) or any(a not in (None, b) for a, b in zip(shape, came, strict=True)):
            raise BundleError(f"{folder}: {name} should have shape {shape}, got {came}: it is of another configuration")
    return arrays, facts


def under(arrays: Arrays, prefix: str) -> dict[str, NDArray[Any]]:
    """Those whose names begin with ``prefix``, without it."""
    return {name.removeprefix(prefix): values for name, values in arrays.items() if name.startswith(prefix)}


def _expected(trainer: Trainer) -> dict[str, tuple[int | None, ...]]:
    """The shape of every array that a state must have; None: any size."""
    network, balancing = trainer.network, trainer.balancing
    expected = {f"balancing/{name}": tuple(variable.shape) for name, variable in balancing.variables.items()}
    expected |= {f"weight/{name}": tuple(variable.shape) for name, variable in network.weights.items()}
    tables = network.embeddings.variables.items()
    return expected | {f"table/{name}": (None, int(table.shape[1])) for name, table in tables}
