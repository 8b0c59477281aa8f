"""Factors: what a user's vectors and a video's have in common, added to the outputs of some objectives."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce

import tensorflow as tf

from data.config import Side
from data.config_model import FactorsConfig
from data.features.layout import IntField, Layout
from models.embedding import ROLE, Embeddings
from models.encoder import TensorBlock
from models.noise import Noise


class Factors:
    """s = p . q with p = the sum of the user's and the context's vectors, q = the sum of the video's.

    With the features user id, history and video id this is SVD++ (Koren, "Factorization Meets the Neighborhood", KDD
    2008), beside the network as in DeepFM (Guo et al., IJCAI 2017): a product of ids is what a multilayer perceptron learns
    slowly (Rendle et al., "Neural Collaborative Filtering vs. Matrix Factorization Revisited", RecSys 2020). The vectors
    are its own, one table per vocabulary and role, so that a video that was watched differs from the same video offered.
    They serve the objectives named and no other: those of another taste would pull at the same vectors.

    Args:
        place: which of the configuration's factors these are.
        embeddings: has the tables of :func:`tables_of`.
    """

    def __init__(self, factors: FactorsConfig, place: int, layout: Layout, embeddings: Embeddings) -> None:
        self.factors = factors
        self._embeddings = embeddings
        self._request, self._video = (_fields(factors, place, role, layout) for role in ("request", "video"))

    def __call__(
        self, blocks: Mapping[Side, tuple[tf.Tensor, tf.Tensor]], noise: Noise | None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """s [n, 1], and the penalty l2 * mean over rows of the vectors' squared lengths.

        ``user`` and ``context`` blocks may have one row where the video's has n.
        """
        request, video = (self._vectors(fields, blocks, noise) for fields in (self._request, self._video))
        lengths = [tf.reduce_mean(tf.reduce_sum(tf.square(vectors), 1)) for vectors in (*request, *video)]
        product = tf.reduce_sum(reduce(tf.add, request) * reduce(tf.add, video), 1, keepdims=True)
        return product, self.factors.l2 * tf.reduce_sum(lengths)

    def mask(self, objectives: Sequence[str]) -> tf.Tensor:
        """[1, K]: 1 for the objectives that these factors serve."""
        return tf.constant([[float(name in self.factors.objectives) for name in objectives]])

    @property
    def roles(self) -> set[str]:
        """The roles of their tables."""
        sides = [fields for part in (self._request, self._video) for fields in part.values()]
        return {field.table.partition(ROLE)[2] for fields in sides for field in fields}

    def _vectors(
        self,
        fields: Mapping[Side, tuple[IntField, ...]],
        blocks: Mapping[Side, TensorBlock],
        noise: Noise | None,
    ) -> list[tf.Tensor]:
        return [v for side, own in fields.items() for v in self._embeddings.look_up(own, blocks[side][0], noise)]


def tables_of(factors: FactorsConfig, place: int, layout: Layout) -> dict[str, int]:
    """The embedding tables that factors add, and their dims."""
    sides = [fields for role in ("request", "video") for fields in _fields(factors, place, role, layout).values()]
    return {field.table: factors.dim for fields in sides for field in fields}


def _fields(factors: FactorsConfig, place: int, role: str, layout: Layout) -> dict[Side, tuple[IntField, ...]]:
    """The features of a role by side, as fields that read the tables of these factors and that role."""
    names = factors.request if role == "request" else factors.video
    found: dict[Side, tuple[IntField, ...]] = {}
    for side, fields in layout.sides.items():
        own = tuple(replace(f, table=f"{f.table}{ROLE}{role}_{place}") for f in fields.ints if f.feature in names)
        if own:
            found[side] = own
    return found
