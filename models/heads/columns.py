"""Every objective's head, and which columns of the raw outputs are its own."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

import numpy as np
import tensorflow as tf

from data.config import Objective, Side
from data.features.layout import Layout
from data.features.targets import TargetStats
from models.encoder import TensorBlock
from models.heads.discretised import Discretised
from models.heads.duration_quantile import DurationQuantile
from models.heads.head import Head
from models.heads.logit import Logit
from models.heads.value import Value
from models.heads.weighted_logistic import WeightedLogistic


class Heads:
    """The heads of K objectives, whose raw outputs stand side by side [n, S]: those of the first, of the second, ...

    Attributes:
        outputs: how many each objective has [K].
        first: the place of each objective's first raw output [K].
        start: the raw outputs of an untrained network [S].
    """

    def __init__(self, objectives: Sequence[Objective], stats: Sequence[TargetStats], layout: Layout) -> None:
        self.heads = [head_of(*pair) for pair in zip(objectives, stats, strict=True)]
        self.outputs = tuple(len(head.start) for head in self.heads)
        self.first = tuple(sum(self.outputs[:k]) for k in range(len(self.outputs)))
        self.start = tuple(value for head in self.heads for value in head.start)
        places = {field.feature: field.offset for field in layout.sides["video"].ints}
        self._group = [places.get(o.duration) if o.duration is not None else None for o in objectives]

    def spread(self, values: tf.Tensor) -> tf.Tensor:
        """One value per objective [n, K] as one per raw output [n, S]: what adds to an objective adds to all its outputs."""
        owner = np.repeat(np.arange(len(self.outputs)), self.outputs)
        return values if len(owner) == len(self.outputs) else tf.gather(values, tf.constant(owner), axis=1)

    def losses(self, raw: tf.Tensor, targets: tf.Tensor, blocks: Mapping[Side, TensorBlock]) -> tuple[tf.Tensor, tf.Tensor]:
        """Each objective's mean loss over its defined rows, 0 where it has none [K], and their count [K].

        Args:
            raw: [n, S].
            targets: [n, K] in natural units, NaN where masked.
            blocks: the sides that ``raw`` came from.
        """
        defined = ~tf.math.is_nan(targets)
        values = self._row_losses(raw, tf.where(defined, targets, 0.0), blocks)
        counts = tf.reduce_sum(tf.cast(defined, raw.dtype), 0)
        return tf.reduce_sum(tf.where(defined, values, 0.0), 0) / tf.maximum(counts, 1), counts

    def to_natural(self, raw: tf.Tensor, blocks: Mapping[Side, TensorBlock]) -> tf.Tensor:
        """Predictions [n, K] in natural units from raw [n, S]; those of logits side by side in one operation."""
        parts = []
        for logits, places in self._runs():
            own = raw[:, self._columns(places)]
            if logits:
                parts.append(tf.sigmoid(own))
            else:
                k = places[0]
                parts.append(self.heads[k].to_natural(own, self._group_of(k, blocks))[:, None])
        return tf.concat(parts, 1)

    def _row_losses(self, raw: tf.Tensor, known: tf.Tensor, blocks: Mapping[Side, TensorBlock]) -> tf.Tensor:
        """Every objective's loss of each row [n, K] of known targets [n, K]; those of logits in one operation."""
        parts = []
        for logits, places in self._runs():
            own, target = raw[:, self._columns(places)], known[:, places[0] : places[-1] + 1]
            if logits:
                parts.append(tf.nn.sigmoid_cross_entropy_with_logits(labels=target, logits=own))
            else:
                k = places[0]
                parts.append(self.heads[k].row_losses(own, target[:, 0], self._group_of(k, blocks))[:, None])
        return tf.concat(parts, 1)

    def _runs(self) -> Iterator[tuple[bool, list[int]]]:
        """The objectives: neighbours that are logits together, every other one alone."""
        for k, run in groupby(range(len(self.heads)), lambda k: -1 if isinstance(self.heads[k], Logit) else k):
            yield k < 0, list(run)

    def _columns(self, places: Sequence[int]) -> slice:
        """The raw outputs of neighbouring objectives."""
        return slice(self.first[places[0]], self.first[places[-1]] + self.outputs[places[-1]])

    def _group_of(self, k: int, blocks: Mapping[Side, TensorBlock]) -> tf.Tensor | None:
        """The rows' duration groups [n], where objective k has some."""
        place = self._group[k]
        return None if place is None else blocks["video"][0][:, place]


def head_of(objective: Objective, stats: TargetStats) -> Head:
    """The head that an objective's configuration names."""
    if objective.kind == "binary":
        return Logit(stats)
    match objective.head:
        case "value":
            return Value(objective, stats)
        case "weighted_logistic":
            return WeightedLogistic(objective, stats)
        case "duration_quantile":
            return DurationQuantile(stats)
        case "discretised":
            return Discretised(objective, stats)
