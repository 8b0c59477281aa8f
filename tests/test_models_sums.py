"""No bit of a step depends on which operation ends first: TensorFlow's sum of many begins with the buffer that is free."""

import re
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from network_samples import CLICK, EVERYTHING, LIKE, WATCH, small_config, small_trainer
from trunk_samples import ONE_EACH, SETTINGS

from models.balancing.gradients import gradients_of
from models.step import ARITHMETIC, Trainer

SIDES = {"request": ["user", "watched", "device"], "video": ["video", "tags"]}
FACTORS = {**SIDES, "dim": 3, "l2": 0.01, "objectives": ["click"]}


def made(trunk: str, bias: str = "shallow_tower", **training: Any) -> Trainer:
    model = {"trunk": SETTINGS[trunk], "tower": [4], "factors": [FACTORS], "bias": bias}
    return small_trainer(small_config(EVERYTHING, (CLICK, LIKE, WATCH), model, {"sparse_rows": 15, **training}))


def most_terms(compiled: Any) -> int:
    """Of the sums in a function's graph, those of the loop's body included."""
    written = str(compiled.get_concrete_function().graph.as_graph_def())
    return max(int(terms) for terms in re.findall(r'op: "AddN".*?key: "N"\s+value {\s+i: (\d+)', written, re.DOTALL))


@pytest.mark.parametrize("trunk", ONE_EACH)
def test_a_step_of_every_trunk_adds_two_at_a_time(trunk: str) -> None:
    assert most_terms(made(trunk)._compiled._rows) == 2


@pytest.mark.parametrize("kind", ["gradnorm", "pcgrad", "famo"])
def test_so_does_one_of_balanced_objectives(kind: str) -> None:
    trainer = made("mmoe", "adversarial", balancing={"kind": kind})
    assert most_terms(trainer._compiled._rows) == 2
    assert most_terms(trainer._compiled.products) == 2


def test_gradients_that_meet_are_added_in_pairs() -> None:
    variable, without = tf.Variable([1.0, 2.0]), tf.Variable(0.0)

    @tf.function(input_signature=[])
    def found() -> list[tf.Tensor | None]:
        read = tf.identity(variable)
        return gradients_of(tf.reduce_sum(read * read * read + 2 * read), [variable, without])

    of_variable, nothing = found()
    assert nothing is None
    np.testing.assert_array_equal(of_variable, [5.0, 14.0])
    assert most_terms(found) == 2


@pytest.mark.parametrize("deterministic", [True, False])
def test_pairs_stay_pairs_where_bits_must_be_the_same(deterministic: bool) -> None:
    """Else TensorFlow's optimizer of graphs makes sums of many of them again, when the graph is first run."""
    made("separate", deterministic=deterministic)
    assert tf.config.optimizer.get_experimental_options()[ARITHMETIC] is not deterministic
