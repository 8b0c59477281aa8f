"""Check: ranges. Numbers are finite and within what the configuration says, a propensity in (0, 1]."""

from collections.abc import Iterator, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from data.checks.finding import Finding
from data.config import ColumnConfig, Config, LabelConfig
from data.readers.convert import mask

REASON = "range"


def check_log(rows: pa.Table, config: Config) -> list[Finding]:
    """Of labels (in natural units), numeric context and propensities."""
    limits: dict[str, ColumnConfig | LabelConfig] = {**config.log.context, **config.labels}
    found = list(_outside(rows, limits))
    if "propensity" in rows.column_names:
        found += _finding(rows, "propensity", None, 1.0, above=0.0)
    return found


def check_table(rows: pa.Table, columns: Mapping[str, ColumnConfig]) -> list[Finding]:
    """Of the numeric columns of the users' or the videos' table."""
    return list(_outside(rows, columns))


def _outside(rows: pa.Table, limits: Mapping[str, ColumnConfig | LabelConfig]) -> Iterator[Finding]:
    for name, limit in limits.items():
        if limit.type == "number":
            yield from _finding(rows, name, limit.minimum, limit.maximum)


def _finding(
    rows: pa.Table, name: str, minimum: float | None, maximum: float | None, above: float | None = None
) -> Iterator[Finding]:
    values = rows.column(name)
    good = pc.is_finite(values)
    bounds = ["a finite number"]
    if minimum is not None:
        good, bounds = pc.and_(good, pc.greater_equal(values, minimum)), [*bounds, f"at least {minimum:g}"]
    if above is not None:
        good, bounds = pc.and_(good, pc.greater(values, above)), [*bounds, f"above {above:g}"]
    if maximum is not None:
        good, bounds = pc.and_(good, pc.less_equal(values, maximum)), [*bounds, f"at most {maximum:g}"]
    if pc.all(good, min_count=0).as_py() is False:
        yield Finding(REASON, f"{name}: expected {', '.join(bounds)}", mask(pc.invert(good)))
