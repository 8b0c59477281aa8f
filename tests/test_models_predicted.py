"""What predictions tell of the gates: utilisation, entropy, live units."""

import numpy as np
import pytest
import tensorflow as tf
from network_samples import CLICK, LIKE, USER, VIDEO, random_blocks, small_config, small_trainer
from trunk_samples import SETTINGS

from data.features.layout import Block

FEATURES = [USER[0], VIDEO[2]]


@pytest.mark.parametrize("name", ["mmoe", "home", "shared_bottom"])
def test_rows_tell_of_the_gates(name: str) -> None:
    made = small_config(FEATURES, (CLICK, LIKE), {"trunk": SETTINGS[name]}, {"deterministic": False})
    trainer = small_trainer(made)
    network, blocks = trainer.network, random_blocks(trainer.network.layout, 4100)  # more than one pass takes
    if name == "mmoe":
        network.weights["trunk/bias_1"].assign_sub(tf.one_hot([2], 5)[:, None, :] * [[[0.0]], [[0.0]], [[1e6]]])
    found = trainer.predict_with_gates(blocks)
    outputs = network.forward({side: (tf.constant(b.ints), tf.constant(b.floats)) for side, b in blocks.items()})
    gates = outputs.gates.numpy().astype(np.float64)
    np.testing.assert_allclose(found.utilisation, gates.mean(0), rtol=1e-5)
    safe = np.where(gates > 0, gates, 1)
    np.testing.assert_allclose(found.entropy, -(safe * np.log(safe)).sum(2).mean(0), rtol=1e-4, atol=1e-9)
    if name == "mmoe":
        np.testing.assert_array_equal(found.live, (outputs.units.numpy() > 0).any(1))
        assert not found.live[2, 2]
    else:
        assert found.live.size == 0
    none = trainer.predict_with_gates({side: Block(b.ints[:0], b.floats[:0]) for side, b in blocks.items()})
    assert none.predictions.shape == (0, 2)
    assert np.isnan(none.utilisation).all()
    assert np.isnan(none.entropy).all()
