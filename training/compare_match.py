"""Networks of one size: the trunk's widths times a factor, until the network is as large as the baseline's."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

from data.config import Config, parse_config
from data.errors import ConfigError
from data.features.state import FeatureState
from models.cost import flops_per_example, num_parameters
from models.network import Network

NEAR = 0.02  # of the wanted size
MOST_STEPPED = 3  # layers whose widths are tried one more and one less
Size = Literal["parameters", "flops"]
Measure = Callable[[Config], float]


@dataclass(frozen=True)
class Matched:
    """A configuration, the factor of its trunk's widths, and the size that it reached."""

    config: Config
    factor: float
    size: float


def with_layers(config: Config, layers: Sequence[int]) -> Config:
    """The configuration with a trunk of these widths."""
    values = config.model_dump(mode="json")
    values["model"]["trunk"]["layers"] = list(layers)
    return parse_config(values, f"trunk layers {list(layers)}")


def scaled(layers: Sequence[int], factor: float) -> tuple[int, ...]:
    """Widths times ``factor``: whole numbers, at least 1."""
    return tuple(max(1, round(width * factor)) for width in layers)


def match(config: Config, wanted: float, measure: Measure) -> Matched:
    """The configuration nearest to a size: by bisection of the factor, then by one more or less in each layer.

    Raises:
        ConfigError: whole widths do not come within 2%.
    """
    tried: dict[tuple[int, ...], Matched] = {}

    def try_(layers: tuple[int, ...], factor: float) -> Matched:
        if layers not in tried:
            wider = with_layers(config, layers)
            tried[layers] = Matched(wider, factor, measure(wider))
        return tried[layers]

    start = config.model.trunk.layers
    low, high = _bracket(lambda factor: try_(scaled(start, factor), factor).size, wanted)
    while high / low > 1.002 and _error(_best(tried, wanted), wanted) > NEAR / 10:
        middle = (low * high) ** 0.5
        below = try_(scaled(start, middle), middle).size < wanted
        low, high = (middle, high) if below else (low, middle)
    best = _best(tried, wanted)
    if _error(best, wanted) > NEAR / 2:
        for steps in product((0, 1, -1), repeat=min(len(start), MOST_STEPPED)):
            layers = [max(1, w + step) for w, step in zip(best.config.model.trunk.layers, steps, strict=False)]
            try_((*layers, *best.config.model.trunk.layers[len(layers) :]), best.factor)
        best = _best(tried, wanted)
    if _error(best, wanted) > NEAR:
        raise ConfigError(
            f"cannot match sizes: trunk {config.model.trunk.kind!r} comes no nearer to {wanted:,.0f} than {best.size:,.0f}"
        )
    return best


def _bracket(size: Callable[[float], float], wanted: float) -> tuple[float, float]:
    """Two factors between whose sizes the wanted one lies, as far as 2^-8 and 2^8 go."""
    factor = 1.0
    if size(factor) < wanted:
        while factor < 256 and size(factor * 2) < wanted:
            factor *= 2
        return factor, factor * 2
    while factor > 1 / 256 and size(factor / 2) >= wanted:
        factor /= 2
    return factor / 2, factor


def _best(tried: Mapping[tuple[int, ...], Matched], wanted: float) -> Matched:
    return min(tried.values(), key=lambda matched: _error(matched, wanted))


def _error(matched: Matched, wanted: float) -> float:
    return abs(matched.size / wanted - 1)


def network_size(state: FeatureState, size: Size) -> float:
    """The dense parameters of a network, or its floating point operations per example."""
    tables = dict.fromkeys(state.table_sizes(), 2)  # are no part of the size
    network = Network(state.config, state.layout, tables, state.target_stats, spare=False)
    return float(num_parameters(network).dense if size == "parameters" else flops_per_example(network))
