"""A batch as an Arrow table."""

import numpy as np
import pyarrow as pa

from data.columns import Batch, Column, StringLists, Strings


def to_table(batch: Batch, schema: pa.Schema) -> pa.Table:
    """The schema's columns that the batch has, in the schema's order and types; NaN is null."""
    fields = [field for field in schema if field.name in batch]
    return pa.table([_array(batch[field.name], field.type) for field in fields], schema=pa.schema(fields))


def _array(column: Column, kind: pa.DataType) -> pa.Array:
    if isinstance(column, Strings | StringLists):
        return pa.array(column.tolist(), kind)
    null = np.isnan(column.astype(np.float64))
    values = np.where(null, 0, column) if null.any() else column
    return pa.array(values != 0 if pa.types.is_boolean(kind) else values, mask=null if null.any() else None).cast(kind)
