"""Check: types. Turns a chunk's columns into the log's (or a table's), and says which rows don't fit."""

from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from data.checks.finding import Finding
from data.config import ColumnConfig, Config, TableConfig
from data.readers import convert
from data.readers.convert import Converted

REASON = "type"
LARGEST_POSITION = 2**31 - 1

Convert = Callable[[pa.Array], Converted]
Rows = tuple[pa.Table, list[Finding]]


def log_rows(source: pa.Table, plan: Mapping[str, str], config: Config) -> Rows:
    """The rows of the log contract, without ``visible_at``; a value that doesn't fit is null and its row found."""
    taken = _Taken(source, plan)
    for name in ("user_id", "video_id"):
        taken.required(name, "an id", convert.text)
    taken.required(
        "timestamp", f"a time ({config.log.timestamp_unit})", lambda v: convert.time(v, config.log.timestamp_unit)
    )
    for name in ("request_id", "query_video_id"):
        taken.optional(name, "an id", convert.text)
    taken.optional("position", "a whole number from 0", lambda v: convert.integer(v, LARGEST_POSITION), pa.int32())
    taken.optional("propensity", "a number", convert.number)
    taken.optional("is_exploration", "0, 1, true or false", convert.flag, pa.bool_())
    for name, column in config.log.context.items():
        taken.declared(name, column)
    for name, label in config.labels.items():
        if label.type == "binary":
            taken.optional(name, "0, 1, true or false", convert.flag)
        else:
            taken.optional(name, "a number", convert.number)
            taken.columns[name] = _scaled(taken.columns[name], label.scale)
        taken.optional(f"{name}_visible_at", "a time", lambda v: convert.time(v, config.log.timestamp_unit))
    return taken.result()


def table_rows(source: pa.Table, plan: Mapping[str, str], table: TableConfig, key: str) -> Rows:
    """The rows of the users' (``key`` user_id) or the videos' table."""
    taken = _Taken(source, plan)
    taken.required(key, "an id", convert.text)
    if table.valid_from:
        taken.required("valid_from", "a time (ms)", lambda v: convert.time(v, "ms"))
    for name, column in table.columns.items():
        taken.declared(name, column)
    return taken.result()


class _Taken:
    """Collects converted columns and findings."""

    def __init__(self, source: pa.Table, plan: Mapping[str, str]) -> None:
        self.source, self.plan = source, plan
        self.columns: dict[str, pa.Array] = {}
        self.findings: list[Finding] = []

    def required(self, name: str, expected: str, convert_: Convert) -> None:
        self.optional(name, expected, convert_)
        missing = convert.mask(self.columns[name].is_null())
        self._found(name, f"expected {expected}, got nothing", missing)

    def optional(self, name: str, expected: str, convert_: Convert, kind: pa.DataType | None = None) -> None:
        if name not in self.plan:
            return
        values, bad = convert_(convert.flat(self.source.column(self.plan[name])))
        self.columns[name] = values if kind is None else values.cast(kind)
        self._found(name, f"expected {expected}", bad)

    def declared(self, name: str, column: ColumnConfig) -> None:
        match column.type:
            case "category":
                self.optional(name, "text", lambda v: convert.category(_nulled(v, column)))
            case "categories":
                self.optional(name, "texts", lambda v: convert.categories(_nulled(v, column), column.separator))
            case "number":
                self.optional(name, "a number", lambda v: convert.number(_nulled(v, column)))

    def _found(self, name: str, what: str, bad: NDArray[np.bool_]) -> None:
        if bad.any():
            source = self.plan[name]
            self.findings.append(Finding(REASON, f"{source}: {what}", bad))

    def result(self) -> Rows:
        return pa.table(self.columns), self.findings


def _scaled(values: pa.Array, scale: float) -> pa.Array:
    """``values`` times ``scale``; a thousandth as a division by 1000, so that 957 ms are 0.957 s to the last bit."""
    inverse = round(1 / scale) if scale else 0
    exact = inverse != 0 and 1 / inverse == scale
    return pc.divide(values, float(inverse)) if exact else pc.multiply(values, scale)


def _nulled(values: pa.Array, column: ColumnConfig) -> pa.Array:
    """With the texts that mean null made null."""
    if not column.null or pa.types.is_list(values.type):
        return values
    texts, _ = convert.category(values)
    return pc.if_else(pc.fill_null(pc.is_in(texts, pa.array(column.null)), False), None, values)
