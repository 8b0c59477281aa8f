"""Parameters and floating point operations, counted by hand."""

import pytest
from network_samples import CLICK, CONTEXT, LIKE, TRAINING_ONLY, USER, VIDEO, small_config, small_network
from trunk_samples import SETTINGS

from models.cost import cost_figures, flops_per_example, num_parameters

FEATURES = [USER[0], VIDEO[2], TRAINING_ONLY[0]]  # D: 4 of the user, 2 of the duration; 2 of the position


def config(trunk: dict, features: list = FEATURES, **model: object) -> object:  # type: ignore[type-arg]
    return small_config(features, (CLICK, LIKE), {"trunk": trunk, "tower": [3], **model})


HEADS = 2 * (5 * 3 + 3 + 3 + 1)
"""Parameters of two towers [3] on H = 5, with their heads."""
HEAD_FLOPS = 2 * 2 * (5 * 3 + 3)
SHALLOW = 2 * 2


def test_a_mixture_by_hand() -> None:
    network = small_network(config({"experts": 3, "layers": [7, 5]}))
    expert, gates = (6 * 7 + 7) + (7 * 5 + 5), 2 * 6 * 3
    found = num_parameters(network)
    assert (found.dense, found.bias, found.embedding) == (3 * expert + gates + HEADS, SHALLOW, 20 * 4)
    assert found.total == found.dense + found.bias + found.embedding
    mixing = 2 * 3 * 5  # K E H
    trunk = 2 * (3 * (6 * 7 + 7 * 5) + gates + mixing)
    assert flops_per_example(network) == trunk + HEAD_FLOPS + 2 * SHALLOW


def test_a_shared_bottom_is_one_network_and_separate_ones_are_two() -> None:
    one = 6 * 7 + 7 * 5
    for trunk, networks, sets in (
        ({"kind": "shared_bottom"}, 1, 1),
        ({"kind": "separate"}, 2, 2),
        ({"kind": "soft_sharing"}, 2, 1),
    ):
        network = small_network(config({**trunk, "layers": [7, 5]}, bias="none"))
        found = num_parameters(network)
        assert (found.dense, found.bias) == (networks * (one + 12) + HEADS, 0)
        assert found.embedding == 80 * sets
        assert flops_per_example(network) == 2 * networks * one + HEAD_FLOPS


def test_an_addition_costs_a_row_nothing_where_it_is_made_once() -> None:
    network = small_network(config({"kind": "conditioned", "by": "addition", "at": "input", "layers": [7, 5]}, bias="none"))
    assert num_parameters(network).dense == 6 * 7 + 7 + 2 * 7 + 7 * 5 + 5 + HEADS
    assert flops_per_example(network) == 2 * (6 * 7 + 2 * 7 * 5) + HEAD_FLOPS  # the second layer runs for each objective


@pytest.mark.parametrize("name", ["stem", "home"])
def test_every_trunk_has_its_cost(name: str) -> None:
    figures = cost_figures(small_network(config(SETTINGS[name], [USER[0], *CONTEXT, VIDEO[0]])))
    assert figures["flops_per_example"] > HEAD_FLOPS
    assert figures["parameters"]["total"] == sum(figures["parameters"][key] for key in ("dense", "bias", "embedding"))
