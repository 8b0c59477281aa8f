"""Sizes are matched by whole widths, within 2%, or it is said that they cannot be."""

import pytest

from data.config import Config
from data.errors import ConfigError
from data.features.state import FeatureState
from models.cost import num_parameters
from tests.compare_log import CONFIG, DAYS, ORDER
from tests.small_log import small_tables
from training.compare_grid import override
from training.compare_match import match, network_size, scaled, with_layers
from training.learner import new_trainer


def widths(config: Config) -> tuple[int, ...]:
    return config.model.trunk.layers


def test_widths_are_whole_and_at_least_one() -> None:
    config = override(CONFIG, {"model.trunk.layers": [10, 3]}, "")
    assert scaled((10, 3), 1.26) == (13, 4)
    assert scaled((10, 3), 0.01) == (1, 1)
    assert with_layers(config, scaled((10, 3), 1.0)) == config


def test_the_factor_is_found_from_below_and_from_above() -> None:
    def quadratic(config: Config) -> float:
        return sum(width**2 for width in widths(config))

    for start in ([40, 20], [2000, 1000]):
        found = match(override(CONFIG, {"model.trunk.layers": start}, ""), 50_000, quadratic)
        assert found.size == pytest.approx(50_000, rel=0.02)
        assert found.size == quadratic(found.config)
        assert widths(found.config) == scaled(start, found.factor)


def test_what_whole_widths_cannot_reach_is_said() -> None:
    with pytest.raises(ConfigError, match="comes no nearer to 150 than"):
        match(override(CONFIG, {"model.trunk.layers": [1]}, ""), 150, lambda config: 100.0 * widths(config)[0])


def test_a_network_of_another_trunk_is_brought_to_the_baselines_size() -> None:
    state = FeatureState.fit(CONFIG, small_tables(), [(ORDER[0], DAYS[ORDER[0]])])

    def size(config: Config) -> float:
        return network_size(state_of(config), "parameters")

    def state_of(config: Config) -> FeatureState:
        return FeatureState.fit(config, small_tables(), [(ORDER[0], DAYS[ORDER[0]])])

    wanted = network_size(state, "parameters")
    assert wanted == num_parameters(new_trainer(state).network).dense
    shared = override(CONFIG, {"model.trunk.kind": "shared_bottom", "model.trunk.layers": [16, 16]}, "")
    found = match(shared, wanted, size)
    assert abs(found.size / wanted - 1) <= 0.02 < abs(size(shared) / wanted - 1)
