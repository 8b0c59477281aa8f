"""The encoder: the network's input from the encoded features, with the sides side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import tensorflow as tf

from data.config import Side
from data.features.layout import Layout, SideLayout
from models.embedding import ROLE, TASK, Embeddings
from models.noise import Noise

TensorBlock = tuple[tf.Tensor, tf.Tensor]
"""A side's (ints [n, int_width], floats [n, float_width])."""

ORDER: tuple[Side, ...] = ("user", "context", "video", "cross")
"""The order of the sides in x. What is one per request comes first, what is one per candidate last."""
REQUEST_SIDES: tuple[Side, ...] = ("user", "context")
CANDIDATE_SIDES: tuple[Side, ...] = ("video", "cross")


class Split(NamedTuple):
    """The input of one request's candidates, x_i = [fixed, moving_i]: fixed [1, D1], moving [n, D2]."""

    fixed: tf.Tensor
    moving: tf.Tensor


def linear(x: "tf.Tensor | Split", kernel: tf.Tensor, bias: tf.Tensor | None = None) -> tf.Tensor:
    """x W + b over the last axis of x and the last but one of W: [n, D] by [..., D, H], b [..., 1, H], gives [..., n, H].

    For a :class:`Split`, W = [W_f; W_m] and x W + b = moving W_m + (fixed W_f + b), the latter computed once (DESIGN.md,
    Scoring fast). Exact but for the order of additions.
    """
    if isinstance(x, Split) and (width := x.fixed.shape[-1]):
        return tf.matmul(x.moving, kernel[..., width:, :]) + linear(x.fixed, kernel[..., :width, :], bias)
    product = tf.matmul(x.moving if isinstance(x, Split) else x, kernel)
    return product if bias is None else product + bias


class Encoder:
    """x = [user, context, video, cross, products], each side [its fields' embeddings..., its floats...] in the layout's
    order.

    Nothing mixes the sides here (no normalisation over the concatenation), so that the first linear layer splits by
    side exactly. What user and video have in common enters as a block of its own, one per candidate: the products,
    element by element, of pairs of embeddings (He & Chua, "Neural Factorization Machines", SIGIR 2017).

    Args:
        products: pairs of features with embeddings of equal dims, the second one of the video or cross side.
    """

    def __init__(self, layout: Layout, embeddings: Embeddings, products: tuple[tuple[str, str], ...] = ()) -> None:
        self.layout = layout
        self.embeddings = embeddings
        self.products = products
        dims = {f.feature: layout.tables[f.table] for side in ORDER for f in layout.sides[side].ints}
        self.width = sum(side_width(layout, side) for side in ORDER) + sum(dims[left] for left, _ in products)
        self._l2 = self._l2_columns()

    def __call__(self, blocks: Mapping[Side, TensorBlock], noise: Noise | None = None) -> tf.Tensor:
        """x [n, width]."""
        parts = self._parts(blocks, noise)
        return _join([*(part for side in ORDER for part in parts[side]), *self._multiply(parts)])

    def split(self, blocks: Mapping[Side, TensorBlock], encoded: bool = False) -> Split:
        """The same for one request: user and context of one row, video and cross (and so the products) of n.

        ``encoded``: the video's floats are its part of x already, as :meth:`side` gives it.
        """
        parts = self._parts(blocks, None)
        fixed = [part for side in REQUEST_SIDES for part in self._row(side, blocks[side])]
        video = [blocks["video"][1]] if encoded else parts["video"]
        return Split(_join(fixed), _join([*video, *parts["cross"], *self._multiply(parts)]))

    def side(self, side: Side, block: TensorBlock, noise: Noise | None = None) -> tf.Tensor:
        """One side's part of x [n, side_width]; the training-only side, too, is encoded this way."""
        return _join(self._fields(side, block, noise))

    def _fields(self, side: Side, block: TensorBlock, noise: Noise | None) -> list[tf.Tensor]:
        """The embeddings of a side's fields, in the layout's order, and its floats, if it has some."""
        ints, floats = block
        parts = self.embeddings.look_up(self.layout.sides[side].ints, ints, noise)
        return [*parts, floats] if self.layout.sides[side].float_width else parts

    def _row(self, side: Side, block: TensorBlock) -> list[tf.Tensor]:
        """The same of one row, in fewer parts."""
        fields, floats = self.layout.sides[side], [block[1]] if self.layout.sides[side].float_width else []
        return [*self.embeddings.look_up_row(fields.ints, block[0]), *floats]

    def _parts(self, blocks: Mapping[Side, TensorBlock], noise: Noise | None) -> dict[Side, list[tf.Tensor]]:
        return {side: self._fields(side, blocks[side], noise) if side_width(self.layout, side) else [] for side in ORDER}

    def _multiply(self, parts: Mapping[Side, list[tf.Tensor]]) -> list[tf.Tensor]:
        """The products [n, dim], one row of the request's meeting each of the candidates'."""
        named = {
            field.feature: part
            for side in ORDER
            for field, part in zip(self.layout.sides[side].ints, parts[side], strict=False)
        }
        return [named[left] * named[right] for left, right in self.products]

    @property
    def learnt(self) -> list[bool]:
        """Which columns of x come from embeddings [width]; the others are numbers."""
        found: list[bool] = []
        for side in ORDER:
            numbers = self.layout.sides[side].float_width
            found += [True] * (side_width(self.layout, side) - numbers) + [False] * numbers
        return found + [True] * (self.width - len(found))

    def penalty(self, x: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        """sum_f l2_f mean_i ||e_f,i||^2 over the embeddings gathered for the batch (rows [n]: 1 counts, 0 does not)."""
        if not self._l2:
            return tf.constant(0.0)
        gathered = tf.gather(x, list(self._l2), axis=1) * rows[:, None]
        weights = tf.constant(list(self._l2.values()))
        return tf.reduce_sum(tf.square(gathered) * weights) / tf.maximum(tf.reduce_sum(rows), 1)

    def _l2_columns(self) -> dict[int, float]:
        """The columns of x under a penalty, and its strength."""
        columns: dict[int, float] = {}
        for side, part in side_slices(self.layout).items():
            start = part.start
            for field in self.layout.sides[side].ints:
                dim = self.layout.tables[field.table]
                if field.l2 > 0:
                    columns |= dict.fromkeys(range(start, start + dim), field.l2)
                start += dim
        return columns


def for_role(layout: Layout, role: str) -> Layout:
    """The layout with embedding tables of an objective's own, of the same vocabularies, on the sides of x."""

    def own(table: str) -> str:
        return f"{table}{ROLE}{TASK}{role}"

    sides = {
        side: replace(fields, ints=tuple(replace(field, table=own(field.table)) for field in fields.ints))
        for side, fields in layout.sides.items()
        if side in ORDER
    }
    dims = {field.table: layout.tables[field.table] for side in ORDER for field in layout.sides[side].ints}
    return Layout({**layout.sides, **sides}, {**layout.tables, **{own(table): dim for table, dim in dims.items()}})


def stack(views: Sequence["tf.Tensor | Split"]) -> "tf.Tensor | Split":
    """V inputs [n, D] as one [V, n, D]; of splits, a split of [V, 1, D1] and [V, n, D2]."""
    if isinstance(views[0], Split):
        return Split(tf.stack([view.fixed for view in views]), tf.stack([view.moving for view in views]))
    return tf.stack(views)


def _join(parts: list[tf.Tensor]) -> tf.Tensor:
    """Side by side; a width of 0 where there is nothing."""
    return tf.concat(parts, 1) if parts else tf.zeros([1, 0])


def side_width(layout: Layout, side: Side) -> int:
    """The width of a side's part of x (of the shallow tower's input, for the training-only side)."""
    fields: SideLayout = layout.sides[side]
    return sum(layout.tables[field.table] for field in fields.ints) + fields.float_width


def side_slices(layout: Layout) -> dict[Side, slice]:
    """Which columns of x, and so which rows of a first layer's kernel, belong to which side."""
    slices: dict[Side, slice] = {}
    start = 0
    for side in ORDER:
        slices[side] = slice(start, start + side_width(layout, side))
        start = slices[side].stop
    return slices
