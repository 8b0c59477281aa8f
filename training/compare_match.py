"""Networks of one size: the trunk's widths times a factor, until the network is as large as the baseline's."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from data.config import Config, parse_config
from data.errors import ConfigError
from data.features.state import FeatureState
from models.network import Network

NEAR = 0.02  # of the wanted size
Size = Literal["parameters", "flops"]
Measure = Callable[[Config], float]


@dataclass(frozen=True)
class Matched:
    """A configuration, the factor of its trunk's widths, and the size that it reached."""

    config: Config
    factor: float
    size: float


def scale_widths(config: Config, factor: float) -> Config:
    """The trunk's layers made wider by ``factor``: whole numbers, at least 1."""
    values = config.model_dump(mode="json")
    trunk = values["model"]["trunk"]
    trunk["layers"] = [max(1, round(width * factor)) for width in trunk["layers"]]
    return parse_config(values, f"trunk widths times {factor:.3g}")


def match(config: Config, wanted: float, measure: Measure) -> Matched:
    """The factor, found by bisection, that brings a configuration nearest to a size.

    Raises:
        ConfigError: whole widths do not come within 2%.
    """
    tried: dict[str, Matched] = {}

    def try_(factor: float) -> Matched:
        scaled = scale_widths(config, factor)
        key = str(scaled.model.trunk.layers)
        if key not in tried:
            tried[key] = Matched(scaled, factor, measure(scaled))
        return tried[key]

    low, high = _bracket(try_, wanted)
    while high / low > 1.002 and abs(_best(tried, wanted).size / wanted - 1) > NEAR / 10:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if try_(middle).size < wanted else (low, middle)
    best = _best(tried, wanted)
    if abs(best.size / wanted - 1) > NEAR:
        raise ConfigError(
            f"cannot match sizes: trunk {config.model.trunk.kind!r} comes no nearer to {wanted:,.0f} than {best.size:,.0f}"
        )
    return best


def _bracket(try_: Callable[[float], Matched], wanted: float) -> tuple[float, float]:
    """Two factors between whose sizes the wanted one lies, as far as 2^-8 and 2^8 go."""
    factor = 1.0
    if try_(factor).size < wanted:
        while factor < 256 and try_(factor * 2).size < wanted:
            factor *= 2
        return factor, factor * 2
    while factor > 1 / 256 and try_(factor / 2).size >= wanted:
        factor /= 2
    return factor / 2, factor


def _best(tried: Mapping[str, Matched], wanted: float) -> Matched:
    return min(tried.values(), key=lambda matched: abs(matched.size - wanted))


def network_size(state: FeatureState, size: Size) -> float:
    """The dense parameters of a network, or its floating point operations per example."""
    tables = dict.fromkeys(state.table_sizes(), 2)  # are no part of the size
    network = Network(state.config, state.layout, tables, state.target_stats, spare=False)
    if size == "parameters":
        return float(dense_parameters(network))
    from models.cost import flops_per_example

    return float(flops_per_example(network))


def dense_parameters(network: Network) -> int:
    """Weights outside the embedding tables."""
    return sum(int(weight.shape.num_elements()) for weight in network.weights.values())
