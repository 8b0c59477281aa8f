import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from network_samples import (
    CLICK,
    EVERYTHING,
    LIKE,
    TRAINING_ONLY,
    VIDEO,
    WATCH,
    one_request,
    random_blocks,
    repeated,
    small_config,
    small_network,
    small_trainer,
)

from data.config import Config, Side
from data.errors import BundleError, ConfigError
from data.features.layout import SIDES, Block, build_layout
from models.adversary import CLASSES, Adversary, reverse_gradient
from models.bias import ShallowTower, Shown, logit_of_product, missing
from models.encoder import ORDER
from models.export import export_saved_model, export_scorer
from models.noise import Noise
from models.scorer import SCORER_FILE, Scorer
from models.step import Trainer

METHODS = ("shallow_tower", "none", "input", "adversarial", "pal")
SMALL = {"trunk": {"experts": 2, "layers": [4]}, "tower": []}
QUICK = {"deterministic": False}


def noise() -> Noise:
    return Noise(tf.constant(1, tf.int64), tf.constant(0, tf.int64))


def config_of(method: str, **more: Any) -> Config:
    return small_config(EVERYTHING, (CLICK, LIKE, WATCH), {**SMALL, "bias": method, **more}, QUICK)


def test_the_shallow_tower_is_linear_without_layers() -> None:
    tower = ShallowTower(2, (), seed=1)
    tower.build((None, 2))
    tower.kernels[0].assign([[1.0, 2.0], [3.0, -1.0]])
    assert tower(tf.constant([[1.0, 1.0], [0.0, 0.0]])).numpy().tolist() == [[4.0, 1.0], [0.0, 0.0]]


def test_all_inputs_of_an_example_go_missing_together() -> None:
    block = tf.fill([2000, 3], 5), tf.ones([2000, 2])
    ints, floats = (part.numpy() for part in missing(block, 0.3, noise()))
    gone = ints[:, 0] == 0
    assert 0.27 < gone.mean() < 0.33
    assert (ints[gone] == 0).all()
    assert (floats[gone] == 0).all()
    assert (ints[~gone] == 5).all()
    assert (floats[~gone] == 1).all()


def test_the_logit_of_a_product_of_probabilities() -> None:
    """0.8 x 0.5 = 0.4, whose logit is log(2 / 3); a factor of 1 leaves the other; no end overflows."""
    log4 = math.log(4.0)
    one, other = tf.constant([log4, 200.0, -300.0, 90.0, 1e30]), tf.constant([0.0, -1.5, -400.0, 90.0, 1e30])
    z = logit_of_product(one, other).numpy()
    assert z[0] == pytest.approx(math.log(2 / 3), abs=1e-6)
    assert z[1] == pytest.approx(-1.5)
    assert z[2] == pytest.approx(-700.0)
    assert z[3] == pytest.approx(90.0 - math.log(2.0), abs=1e-4)
    assert np.isfinite(z).all()


def test_pal_multiplies_probabilities_and_adds_to_a_regression() -> None:
    """Position says a logit of 1 for the click and 5 for the regression; 2 is what p(seen) starts with. Serving leaves the
    click's own factor, and adds to the regression what a missing position says: nothing."""
    model = {**SMALL, "bias": "pal", "bias_dropout": 0.0}
    network = small_network(small_config([*VIDEO, TRAINING_ONLY[0]], (CLICK, WATCH), model, QUICK))
    network.weights["pal/kernel_0"].assign([[1.0, 5.0], [0.0, 0.0]])
    block, h = (tf.zeros([1, 0], tf.int32), tf.constant([[1.0, 0.0]])), tf.zeros([2, 1, 4])
    own = tf.constant([[0.3, 7.0]])
    training, _ = network.bias.leave(own, h, Shown(network.encoder, block, noise()))
    p = 1 / (1 + math.exp(-3.0)) / (1 + math.exp(-0.3))
    assert training.numpy()[0].tolist() == pytest.approx([math.log(p / (1 - p)), 12.0], rel=1e-5)
    serving, _ = network.bias.leave(own, h, Shown(network.encoder, block, None))
    assert serving.numpy()[0].tolist() == pytest.approx([0.3, 7.0])


def test_the_reversed_gradient_is_minus_strength_times_it() -> None:
    x = tf.Variable([[1.0, -2.0]])
    with tf.GradientTape() as tape:
        y = tf.reduce_sum(reverse_gradient(x, 0.5) * tf.constant([[3.0, 4.0]]))
    assert y.numpy() == pytest.approx(-5.0)
    assert tape.gradient(y, x).numpy().tolist() == [[-1.5, -2.0]]


def test_the_adversary_guesses_categories_and_numbers() -> None:
    """Untrained and blind it says every class alike and 0: log of the classes, and the numbers' squares."""
    layout = build_layout(config_of("adversarial"))
    adversary = Adversary(layout.sides["training_only"], (3,), seed=1)
    adversary.build((None, 5))
    block = tf.constant([[4], [CLASSES + 7]]), tf.constant([[1.0, 0.0], [3.0, 1.0]])
    for kernel in adversary.kernels:
        kernel.assign(tf.zeros_like(kernel))
    assert adversary(tf.ones([2, 5]), block).numpy() == pytest.approx((math.log(CLASSES) + 5.0 + 0.5) / 3)
    adversary.biases[1].assign(tf.one_hot(CLASSES - 1, CLASSES + 2) * 50.0)  # the class that all rows from there on share
    sure = math.log(1 + (CLASSES - 1) * math.exp(-5.0))  # as sure as a guess may be
    assert adversary(tf.ones([1, 5]), (block[0][1:], tf.zeros([1, 2]))).numpy() == pytest.approx(sure / 3, rel=1e-4)


def test_a_longer_representation_is_no_way_round_the_adversary() -> None:
    layout = build_layout(config_of("adversarial"))
    adversary = Adversary(layout.sides["training_only"], (), seed=1)
    adversary.build((None, 5))
    h, block = tf.constant([[1.0, -2.0, 0.5, 0.1, 3.0]]), (tf.constant([[4]]), tf.constant([[1.0, 0.0]]))
    assert adversary(1000.0 * h, block).numpy() == pytest.approx(adversary(h, block).numpy(), rel=1e-4)


def test_an_adversary_needs_something_to_guess() -> None:
    pooled = {"kind": "categories", "name": "shown", "column": "tags", "dim": 3, "side": "training_only"}
    config = small_config([*VIDEO, pooled], (CLICK,), {**SMALL, "bias": "adversarial"})
    with pytest.raises(ConfigError, match="needs a training-only feature"):
        small_network(config)


def test_the_trunk_unlearns_what_the_adversary_learns() -> None:
    """The gradient of the adversary's loss goes down its own weights and, strength times it, up the trunk's."""
    blocks, found = None, {}
    for strength in (1e-9, 0.5, 2.0):
        network = small_network(config_of("adversarial", bias_strength=strength))
        blocks = blocks or random_blocks(network.layout, 20)
        tensors = {side: (tf.constant(block.ints), tf.constant(block.floats)) for side, block in blocks.items()}
        weights = network.weights
        with tf.GradientTape() as tape:
            penalty = network.forward(tensors, noise()).penalty
        found[strength] = tape.gradient(penalty, [weights["trunk/kernel_0"], weights["adversary/kernel_0"]])
    half, double = found[0.5], found[2.0]
    assert np.abs(half[0].numpy()).max() > 1e-4
    np.testing.assert_allclose(double[0], 4 * half[0], rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(double[1], half[1], rtol=1e-5)
    np.testing.assert_allclose(found[1e-9][0], np.zeros(half[0].shape), atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_exported_scores_as_the_network_and_knows_no_position(method: str, tmp_path: Path) -> None:
    trainer = small_trainer(config_of(method))
    blocks = random_blocks(trainer.network.layout, 9)
    request = one_request(blocks, np.arange(9))
    rows = repeated(request)
    expected = trainer.predict(rows)[0]
    elsewhere = {**rows, "training_only": random_blocks(trainer.network.layout, 9, seed=5)["training_only"]}
    np.testing.assert_array_equal(trainer.predict(elsewhere)[0], expected)

    export_saved_model(trainer.network, tmp_path / "saved")
    function = tf.saved_model.load(str(tmp_path / "saved")).signatures["serving_default"]
    given = {
        f"{side}_{part}": tf.constant(values)
        for side in ORDER
        for part, values in (("ints", rows[side].ints), ("floats", rows[side].floats))
        if values.shape[1]
    }
    assert set(function.structured_input_signature[1]) == set(given)
    np.testing.assert_allclose(function(**given)["predictions"], expected, rtol=1e-5, atol=1e-5)

    export_scorer(trainer.network, tmp_path / SCORER_FILE)
    scores = Scorer.load(tmp_path).score(*(request[side] for side in ORDER))
    np.testing.assert_allclose(scores.predictions, expected, rtol=1e-5, atol=1e-5)


def test_the_methods_differ_in_training_and_none_does_not_look() -> None:
    networks = {method: small_network(config_of(method)) for method in METHODS}
    layout = networks["none"].layout
    near, far = random_blocks(layout, 9), random_blocks(layout, 9, seed=5)["training_only"]
    answers = {}
    for method, network in networks.items():
        rows = {side: (tf.constant(block.ints), tf.constant(block.floats)) for side, block in near.items()}
        elsewhere = rows | {"training_only": (tf.constant(far.ints), tf.constant(far.floats))}
        one, other = (network.forward(blocks, noise()) for blocks in (rows, elsewhere))
        answers[method] = one.raw.numpy()
        moves = np.abs(one.raw - other.raw).max() > 0 or float(one.penalty) != float(other.penalty)
        assert moves == (method != "none")
    for method in ("shallow_tower", "input", "pal"):
        assert np.abs(answers[method] - answers["none"]).max() > 0
    np.testing.assert_array_equal(answers["adversarial"], answers["none"])


def test_a_state_of_one_method_is_not_taken_for_another(tmp_path: Path) -> None:
    trainer = small_trainer(config_of("pal"))
    trainer.save(tmp_path)
    again = small_trainer(config_of("pal"))
    again.network.weights["pal/kernel_0"].assign(tf.zeros_like(trainer.network.weights["pal/kernel_0"]))
    again.load(tmp_path)
    np.testing.assert_array_equal(again.network.weights["pal/kernel_0"], trainer.network.weights["pal/kernel_0"])
    with pytest.raises(BundleError, match="shallow_tower/kernel_0"):
        small_trainer(config_of("shallow_tower")).load(tmp_path)


VIDEOS, PLACES = 20, 5
SEEN = 1.0 / (1 + np.arange(PLACES)) ** 2


def pure_position_bias(config: Config, n: int) -> tuple[Mapping[Side, Block], np.ndarray, np.ndarray]:
    """Rows of a world where the worse a video, the higher it is mostly shown, and what is shown low is seldom seen: its
    blocks, clicks [n, 1] and each video's worth."""
    random = np.random.default_rng(3)
    worth = np.linspace(0.1, 0.7, VIDEOS)
    video = random.integers(0, VIDEOS, n)
    place = np.where(random.random(n) < 0.8, video * PLACES // VIDEOS, random.integers(0, PLACES, n))
    clicked = random.random(n) < worth[video] * SEEN[place]
    layout = build_layout(config)
    ints = {"video": video + 1, "training_only": place + 1}
    blocks = {
        side: Block(
            ints.get(side, video)[:, None].astype(np.int32)[:, : layout.sides[side].int_width], np.zeros((n, 0), np.float32)
        )
        for side in SIDES
    }
    return blocks, clicked[:, None].astype(np.float32), worth


def order_found(method: str) -> float:
    """The rank correlation of a video's prediction with its worth."""
    features = [
        {"kind": "category", "name": "video", "column": "video_id", "dim": 8},
        {"kind": "number", "name": "position", "column": "position", "scaling": "buckets", "buckets": PLACES, "dim": 4},
    ]
    training = {**QUICK, "batch_size": 250, "learning_rate": 0.02, "embedding_learning_rate": 0.02}
    trainer: Trainer = small_trainer(small_config(features, (CLICK,), {**SMALL, "bias": method}, training), VIDEOS + 1)
    blocks, clicks, worth = pure_position_bias(trainer.network.config, 12_000)
    for epoch in range(4):
        trainer.train_epoch(blocks, clicks, np.random.default_rng(epoch).permutation(len(clicks)), epoch)
    videos = {side: block.take(np.zeros(VIDEOS, np.int64)) for side, block in blocks.items()}
    videos["video"] = Block(np.arange(1, VIDEOS + 1, dtype=np.int32)[:, None], np.zeros((VIDEOS, 0), np.float32))
    predictions = trainer.predict(videos)[0][:, 0]
    return float(np.corrcoef(np.argsort(np.argsort(predictions)), np.argsort(np.argsort(worth)))[0, 1])


def test_pal_and_the_shallow_tower_find_what_position_hid() -> None:
    found = {method: order_found(method) for method in ("none", "shallow_tower", "pal")}
    assert found["none"] < 0
    assert found["shallow_tower"] > 0.8
    assert found["pal"] > 0.8


def test_config_round_trips() -> None:
    layer = ShallowTower(2, (3,), seed=1)
    assert ShallowTower.from_config(layer.get_config()).get_config() == layer.get_config()
