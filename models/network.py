"""The ranker: encoder, trunk, towers, and what takes up selection bias.

x = encoder(user, context, video, cross);  h_1..h_K = trunk(x)
raw_k = tower_k(h_k) + factors_k(user, context, video), then as ``[model] bias`` says (+ shallow_tower(training-only)_k)
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from data.config import Config, Side
from data.config_model import ModelConfig
from data.errors import ConfigError
from data.features.layout import Block, Layout
from data.features.targets import TargetStats
from models.bias import Shown, build_bias, embeds_shown, entering_width
from models.embedding import ROLE, TASK, Embeddings
from models.encoder import ORDER, Encoder, Split, TensorBlock, for_role, stack
from models.factors import Factors, tables_of
from models.heads.columns import Heads
from models.learnt import Columns
from models.noise import Noise, derive
from models.tower import Towers
from models.trunks import build_trunk, roles_of

Blocks = Mapping[Side, TensorBlock]


class Outputs(NamedTuple):
    """raw [n, S]: the S outputs of the K objectives' heads; gates [n, K, E]; x [n, D]: the encoded
    input ([V, n, D] of a trunk with embeddings of the objectives' own); penalty: the trunk's, the factors' and the bias
    method's; units [E, n, H]: the experts' outputs, None where they are no ReLU units."""

    raw: tf.Tensor
    gates: tf.Tensor
    x: "tf.Tensor | Split"
    penalty: "tf.Tensor | float" = 0.0
    units: tf.Tensor | None = None


class Network:
    """The network of a configuration, initialised from its seed: the same seed, the same bits.

    Args:
        table_sizes: the rows admitted now, per embedding table.
        target_stats: per objective, the scale that its targets have in training.
        spare: whether the embedding tables have room to grow.
    """

    def __init__(
        self,
        config: Config,
        layout: Layout,
        table_sizes: Mapping[str, int],
        target_stats: Sequence[TargetStats],
        spare: bool = True,
    ) -> None:
        self.config, self.layout, self.target_stats = config, layout, tuple(target_stats)
        model, seed = config.model, derive(config.seed, "network")
        roles = roles_of(model.trunk, config.objectives)
        self.embeddings = Embeddings(_used_tables(layout, model, roles), table_sizes, seed, spare)
        self.encoder = Encoder(layout, self.embeddings, model.products)
        if self.encoder.width == 0:
            raise ConfigError("the network has no input: every feature is training-only")
        layouts = [layout if role is None else for_role(layout, role) for role in roles]
        self.views = [Encoder(own, self.embeddings, model.products) for own in layouts]
        count, entering = len(config.objectives), entering_width(config, layout)
        columns = Columns([*[True] * entering, *self.encoder.learnt])
        inputs = entering + self.encoder.width
        self.trunk = build_trunk(model.trunk, config.objectives, inputs, model.dropout, seed, columns)
        self.heads = Heads(config.objectives, self.target_stats, layout)
        self.towers = Towers(model.tower, self.heads.start, model.dropout, seed, self.heads.outputs)
        self.towers.build((count, None, self.trunk.width))
        self.bias = build_bias(config, layout, self.heads, count * self.trunk.width, seed)
        self.factors = [Factors(part, place, layout, self.embeddings) for place, part in enumerate(model.factors)]

    @property
    def weights(self) -> dict[str, tf.Variable]:
        """The dense weights by name, in a fixed order; the embedding tables are apart (``embeddings.variables``)."""
        layers: list[keras.layers.Layer] = [self.trunk, self.towers, *self.bias.layers]
        return {f"{layer.name}/{weight.name}": weight.value for layer in layers for weight in layer.trainable_variables}

    @property
    def shared(self) -> list[tf.Variable]:
        """The weights that serve more than one objective: the trunk's, then the embedding tables'. Not the towers' nor
        the bias method's."""
        alone = {f"{TASK}{name}" for name in self.config.objective_names}
        for factors in self.factors:
            alone |= factors.roles if len(factors.factors.objectives) == 1 else set()
        tables = self.embeddings.variables.items()
        return [*self.trunk.shared, *(table for name, table in tables if name.partition(ROLE)[2] not in alone)]

    @property
    def table_sizes(self) -> dict[str, int]:
        return dict(self.embeddings.sizes)

    def forward(self, blocks: Blocks, noise: Noise | None = None) -> Outputs:
        """Run the network: for training where ``noise`` is given, else for evaluation and serving.

        Without noise nothing is dropped and the training-only side is missing, whether or not it is given: the outputs
        don't depend on position.

        Args:
            blocks: per side (ints, floats) of n rows each.
        """
        x = stack([view(blocks, noise) for view in self.views]) if self.views else self.encoder(blocks, noise)
        inputs = noise.dropout(x, self.config.model.input_dropout) if noise else x
        return self._outputs(inputs, blocks, noise)._replace(x=x)

    def forward_request(self, blocks: Blocks, encoded: bool = False) -> Outputs:
        """The same for one request's candidates, without training: user and context have one row, video and cross n.

        ``encoded``: the video's floats are its part of x already (of a network with one set of embeddings alone).
        """
        views = [view.split(blocks) for view in self.views]
        return self._outputs(stack(views) if views else self.encoder.split(blocks, encoded), blocks, None)

    def _outputs(self, x: "tf.Tensor | Split", blocks: Blocks, noise: Noise | None) -> Outputs:
        shown = Shown(self.encoder, blocks.get("training_only"), noise)
        h, gates, penalty, units = self.trunk(self._enter(x, shown), noise=noise)
        raw = self.towers(h, noise=noise)
        for factors in self.factors:
            product, cost = factors(blocks, noise)
            raw += product * self.heads.spread(factors.mask(self.config.objective_names))
            penalty += cost
        raw, cost = self.bias.leave(raw, h, shown)
        return Outputs(raw, gates, x, penalty + cost, units)

    def _enter(self, x: "tf.Tensor | Split", shown: Shown) -> "tf.Tensor | Split":
        """The trunk's input: the encoded one, with what the bias method puts before it."""
        if not self.views or entering_width(self.config, self.layout) == 0:
            return x if self.views else self.bias.enter(x, shown)
        places = range(len(self.views))
        views = [Split(x.fixed[v], x.moving[v]) if isinstance(x, Split) else x[v] for v in places]
        return stack([self.bias.enter(view, shown) for view in views])

    def embedding_penalty(self, x: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        """The penalty on the embeddings gathered for the batch: x as in :class:`Outputs`, rows [n]: 1 counts, 0 does not."""
        if not self.views:
            return self.encoder.penalty(x, rows)
        return tf.reduce_sum([view.penalty(part, rows) for view, part in zip(self.views, tf.unstack(x), strict=True)])

    def to_natural(self, raw: tf.Tensor, blocks: Blocks) -> tf.Tensor:
        """Predictions [n, K] in natural units from the raw outputs [n, S] of these blocks."""
        return self.heads.to_natural(raw, blocks)

    def embed(self, side: Side, block: Block) -> NDArray[np.float32]:
        """A side's part of x [n, side_width], outside any graph; of several sets of embeddings, the first one's."""
        encoder = self.views[0] if self.views else self.encoder
        return np.asarray(encoder.side(side, (tf.constant(block.ints), tf.constant(block.floats))))

    def copy(self, spare: bool = True) -> "Network":
        """A network of the same weights in variables of its own; without ``spare`` its tables have no room to grow."""
        twin = Network(self.config, self.layout, self.table_sizes, self.target_stats, spare)
        for mine, theirs in zip(self.weights.values(), twin.weights.values(), strict=True):
            theirs.assign(mine)
        for name, rows in self.table_sizes.items():
            table = twin.embeddings.variables[name]
            table.assign(self.embeddings.variables[name][: table.shape[0]])
            twin.embeddings.sizes[name] = rows
        return twin


def _used_tables(layout: Layout, model: ModelConfig, roles: Sequence[str | None]) -> dict[str, int]:
    """The embedding tables that some part of the network reads, and their dims."""
    sides = list(ORDER) if not roles or None in roles else []
    sides += ["training_only"] if embeds_shown(model) else []
    read = {field.table for side in sides for field in layout.sides[side].ints}
    used = {name: dim for name, dim in layout.tables.items() if name in read}
    for role in filter(None, roles):
        own = for_role(layout, role)
        used |= {field.table: own.tables[field.table] for side in ORDER for field in own.sides[side].ints}
    for place, factors in enumerate(model.factors):
        used |= tables_of(factors, place, layout)
    return used
