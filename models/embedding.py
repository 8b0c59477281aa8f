"""Embedding tables that grow."""

from collections.abc import Mapping
from itertools import groupby

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from data.features.layout import UNSEEN, IntField
from models.noise import Noise, derive

INITIAL_RANGE = 0.05
ROLE_RANGE = 0.17
"""Of tables that are multiplied with each other: the gradient of one is the other, so that small ones hardly move."""
LEAST_CAPACITY = 256
SMALL = 1024
"""Up to how many rows a table may stand below others in one, for the look-ups of a request."""
WIDEST = 31
"""Up to how many columns TensorFlow's sparse product is a plain loop; from the next on it takes four times as long."""
ROLE = "."
"""Between the name of a vocabulary and the role of one of several tables that have its rows."""
TASK = "task_"
"""How the role of an objective's own table begins, before the objective's name."""


def rows_of(sizes: Mapping[str, int], table: str) -> int:
    """The rows of a table: its own where they are given, else those of its vocabulary."""
    return sizes[table] if table in sizes else sizes[table.partition(ROLE)[0]]


def capacity_for(rows: int) -> int:
    """The rows allocated for a table of ``rows`` admitted ones: room for half as many again, so that growth seldom
    replaces the variable (which retraces the functions that read it, for seconds), but no more: dense updates go over
    all of it."""
    return -(-(rows + rows // 2) // LEAST_CAPACITY) * LEAST_CAPACITY


def extend(values: NDArray[np.float32], admitted: int, capacity: int) -> NDArray[np.float32]:
    """The first ``admitted`` rows of ``values`` [*, dim], then copies of row 0 up to ``capacity`` [capacity, dim]."""
    grown = np.repeat(values[:1], capacity, axis=0)
    grown[:admitted] = values[:admitted]
    return grown


class Embeddings:
    """One plain ``tf.Variable`` [capacity, dim] per table; rows from ``sizes[table]`` on are spare.

    Row 0 (UNSEEN) is the learnt default. A row admitted later starts as a copy of it; rows never move.

    Args:
        widths: the dim of each table.
        sizes: the rows admitted now, per table or vocabulary.
        seed: of the initial values, uniform in ±0.05 (±0.17 where a table is a factor's).
        spare: whether to allocate room for growth (an exported network has none).
    """

    def __init__(self, widths: Mapping[str, int], sizes: Mapping[str, int], seed: int, spare: bool = True) -> None:
        self.sizes = {name: rows_of(sizes, name) for name in widths}
        self.sparse: set[str] = set()  # the tables whose gradient is taken for the batch's rows alone
        self.variables: dict[str, tf.Variable] = {}
        for name, dim in widths.items():
            rows = self.sizes[name]
            initial = np.random.default_rng(derive(seed, "table", name))
            role = name.partition(ROLE)[2]
            reach = ROLE_RANGE if role and not role.startswith(TASK) else INITIAL_RANGE
            values = initial.uniform(-reach, reach, (rows, dim)).astype(np.float32)
            capacity = capacity_for(rows) if spare else rows
            self.variables[name] = tf.Variable(extend(values, rows, capacity), name=f"table_{name}")

    def grow(self, sizes: Mapping[str, int]) -> bool:
        """Admit rows up to ``sizes``. Returns whether a variable was replaced by a larger one.

        Raises:
            ValueError: a table would shrink.
        """
        replaced = False
        for name, old in list(self.sizes.items()):
            rows = rows_of(sizes, name)
            if rows < old:
                raise ValueError(f"embedding table {name!r} has {old} rows and cannot shrink to {rows}")
            variable = self.variables[name]
            if rows > old:
                room = int(variable.shape[0])
                capacity = room if rows <= room else capacity_for(rows)
                replaced |= self.put(name, extend(variable.numpy(), old, capacity), rows)
        return replaced

    def reserve(self, sizes: Mapping[str, int]) -> None:
        """Make room for growth up to ``sizes`` without replacing a variable again; nothing is admitted."""
        for name, rows in self.sizes.items():
            if (wanted := rows_of(sizes, name)) > int(self.variables[name].shape[0]):
                self.put(name, extend(self.variables[name].numpy(), rows, wanted), rows)

    def put(self, name: str, values: NDArray[np.float32], rows: int) -> bool:
        """Set a table's values [capacity, dim], ``rows`` of them admitted. Returns whether its variable was replaced."""
        self.sizes[name] = rows
        if self.variables[name].shape == values.shape:
            self.variables[name].assign(values)
            return False
        self.variables[name] = tf.Variable(values, name=f"table_{name}")
        return True

    def look_up(self, fields: tuple[IntField, ...], ints: tf.Tensor, noise: Noise | None = None) -> list[tf.Tensor]:
        """The embeddings [n, dim] of each field; in training, fields that share a table are looked up together.

        A pooled field is the mean over its places that are not PADDING (-1), zeros where all are. In training a field's
        ``dropout`` is the share of rows that see UNSEEN instead.

        Args:
            ints: one side's ints [n, int_width].
        """
        if noise is None:
            return [_gathered(self.variables[f.table], f, ints, self.sizes[f.table] <= SMALL) for f in fields]
        columns = {f.feature: self._drop(f, ints[:, f.offset : f.offset + f.width], noise) for f in fields}
        found: dict[str, tf.Tensor] = {}
        each = tf.range(tf.shape(ints)[0])
        for name in dict.fromkeys(f.table for f in fields):
            sharing = [f for f in fields if f.table == name]
            ids = tf.concat([columns[f.feature] for f in sharing], 1) if len(sharing) > 1 else columns[sharing[0].feature]
            parts = _bags(self.variables[name], ids, each, sharing, name in self.sparse)
            found |= {f.feature: part for f, part in zip(sharing, parts, strict=True)}
        return [found[f.feature] for f in fields]

    def look_up_row(self, fields: tuple[IntField, ...], ints: tf.Tensor) -> list[tf.Tensor]:
        """The embeddings of one request's user or context, as parts that side by side make what :meth:`look_up` finds.

        Neighbours of one place and a small table share a look-up, in their tables one below the other: where there is one
        row, it is the number of operations that costs.
        """
        parts = []
        for small, run in groupby(fields, lambda f: not f.pooled and self.sizes[f.table] <= SMALL):
            near = tuple(run)
            parts += [self._joined(near, ints)] if small and len(near) > 1 else self.look_up(near, ints)
        return parts

    def _joined(self, fields: tuple[IntField, ...], ints: tf.Tensor) -> tf.Tensor:
        tables = [self.variables[f.table] for f in fields]
        dims = [int(table.shape[1]) for table in tables]
        widest, starts = max(dims), np.cumsum([0, *(int(table.shape[0]) for table in tables[:-1])])
        joined = tf.concat([tf.pad(t, [[0, 0], [0, widest - dim]]) for t, dim in zip(tables, dims, strict=True)], 0)
        rows = tf.gather(ints, [f.offset for f in fields], axis=1) + starts.astype(np.int32)
        wide = tf.reshape(tf.gather(joined, rows), [-1, len(fields) * widest])
        return tf.gather(wide, [i * widest + column for i, dim in enumerate(dims) for column in range(dim)], axis=1)

    @staticmethod
    def _drop(field: IntField, ids: tf.Tensor, noise: Noise) -> tf.Tensor:
        if field.dropout == 0:
            return ids
        return tf.where(noise.survive([tf.shape(ids)[0], 1], field.dropout), ids, UNSEEN)


def _gathered(table: tf.Variable, field: IntField, ints: tf.Tensor, small: bool) -> tf.Tensor:
    """Look-up by plain gathers, which every serving runtime knows, in few operations: a request's many small fields cost
    as much as its small products."""
    if not field.pooled:
        return tf.gather(table, tf.gather(ints, field.offset, axis=1))
    ids = tf.transpose(ints[:, field.offset : field.offset + field.width])
    return _counted_mean(table, ids) if small else _mean(tf.gather(table, tf.maximum(ids, 0)), ids)


def _counted_mean(table: tf.Variable, ids: tf.Tensor) -> tf.Tensor:
    """What :func:`_mean` gives, in fewer operations, from a copy of the table with a row of zeros for PADDING before it
    and a column of ones behind, which count the places."""
    counting = tf.pad(tf.pad(table, [[0, 0], [0, 1]], constant_values=1.0), [[1, 0], [0, 0]])
    sums = tf.reduce_sum(tf.gather(counting, ids + 1), 0)
    return sums[:, :-1] / tf.maximum(sums[:, -1:], 1)


def _mean(places: tf.Tensor, ids: tf.Tensor) -> tf.Tensor:
    """The mean [n, dim] over the first axis of places [width, n, dim], without those whose id [width, n] is PADDING.

    The places come first since ONNX Runtime adds up whole rows of n dim numbers there, and row by row otherwise: half
    the time for 4 places of 8 numbers.
    """
    return tf.reduce_sum(places * _shares(ids, 0)[:, :, None], 0)


def _shares(ids: tf.Tensor, axis: int) -> tf.Tensor:
    """What each place has of the mean over an axis, 0 where its id is PADDING."""
    present = tf.cast(ids >= 0, tf.float32)
    return present / tf.maximum(tf.reduce_sum(present, axis, keepdims=True), 1)


def _bags(table: tf.Variable, ids: tf.Tensor, each: tf.Tensor, fields: list[IntField], sparse: bool) -> list[tf.Tensor]:
    """The same for training, every field a bag of rows: a product with the sparse matrix of the means, which TensorFlow
    makes, with its gradient, in less than half the time of segment means. ``sparse``: only the rows in the batch get a
    gradient.

    Args:
        each: the rows' numbers [n].
    """
    n, flat = tf.size(each), tf.reshape(ids, [-1])
    if len(fields) == 1 and not fields[0].pooled:
        return [_means(table, flat, each, tf.ones_like(each, tf.float32), n, sparse)]
    bag_of = np.concatenate([np.full(f.width, i, np.int32) for i, f in enumerate(fields)])
    bags = tf.reshape(each[:, None] + bag_of * n, [-1])  # those of the first field, of the second, ...
    ends = np.cumsum([f.width for f in fields])
    shares = [_shares(ids[:, end - f.width : end], 1) for f, end in zip(fields, ends, strict=True)]
    places = tf.where(flat >= 0)[:, 0]
    found = [tf.gather(values, places) for values in (flat, bags, tf.reshape(tf.concat(shares, 1), [-1]))]
    means = _means(table, *found, n * len(fields), sparse)
    return list(tf.unstack(tf.reshape(means, [len(fields), -1, table.shape[1]])))


def _means(
    table: tf.Variable, rows: tf.Tensor, bag: tf.Tensor, shares: tf.Tensor, count: tf.Tensor, sparse: bool
) -> tf.Tensor:
    """The sums in ``count`` bags of the table's ``rows`` times their ``shares``, all [e]: [count, dim]."""
    if sparse:
        distinct, rows = tf.unique(rows)
    values = tf.gather(table, distinct) if sparse else tf.convert_to_tensor(table)
    indices, shape = tf.stack([bag, rows], 1), tf.cast(tf.stack([count, tf.shape(values)[0]]), tf.int64)
    pieces = np.array_split(range(table.shape[1]), -(-table.shape[1] // WIDEST))
    products = [
        tf.raw_ops.SparseTensorDenseMatMul(a_indices=indices, a_values=shares, a_shape=shape, b=columns)
        for columns in tf.split(values, [len(piece) for piece in pieces], 1)
    ]
    return tf.concat(products, 1)
