import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from network_samples import (
    CLICK,
    CONTEXT,
    CROSS,
    LIKE,
    MODEL,
    TRAINING_ONLY,
    USER,
    VIDEO,
    WATCH,
    one_request,
    random_blocks,
    random_targets,
    repeated,
    small_config,
    small_trainer,
)

from data.errors import BundleError, ConfigError
from data.features.layout import Block
from models.encoder import ORDER
from models.export import export_saved_model, export_scorer
from models.scorer import SCORER_FILE, VIDEOS_FILE, Scorer
from models.step import Trainer

PLAIN_WATCH = {**WATCH, "transform": "none"}
LAYOUTS = {
    "everything": ([*USER, *CONTEXT, *VIDEO, *CROSS, *TRAINING_ONLY], (CLICK, LIKE, WATCH)),
    "no cross": ([*USER, *CONTEXT, *VIDEO, *TRAINING_ONLY], (PLAIN_WATCH,)),
    "no training-only": ([*USER, *VIDEO, *CROSS], (CLICK, PLAIN_WATCH)),
    "videos alone": (VIDEO, (LIKE,)),
    "numbers alone": ([USER[2], VIDEO[2]], (CLICK, WATCH)),
    "products": ([*USER, *CONTEXT, *VIDEO, *CROSS], (CLICK, LIKE)),
    "factors": ([*USER, *CONTEXT, *VIDEO, *CROSS], (CLICK, LIKE)),
}
TASTE = {"objectives": ["like"], "request": ["user", "watched", "device"], "video": ["video", "tags"], "dim": 3, "l2": 0.01}
MODELS = {
    "products": {**MODEL, "products": [["watched", "video"]]},
    "factors": {**MODEL, "factors": [TASTE]},
}
N = 37


def trained(name: str) -> Trainer:
    features, objectives = LAYOUTS[name]
    config = small_config(features, objectives, MODELS.get(name, MODEL), {"deterministic": False, "average": 0.5})
    trainer = small_trainer(config)
    blocks = random_blocks(trainer.network.layout, 200)
    for _ in range(3):
        trainer.train_epoch(blocks, random_targets(config, 200), np.arange(200), 1)
    return trainer


def score(scorer: Scorer, request: dict[str, Block]) -> np.ndarray:
    return scorer.score(*(request[side] for side in ORDER)).predictions


@pytest.mark.parametrize("name", LAYOUTS)
def test_saved_model_scorer_and_trainer_agree(name: str, tmp_path: Path) -> None:
    trainer = trained(name)
    with trainer.averaged() as network:
        export_saved_model(network, tmp_path)
        export_scorer(network, tmp_path / "assets.extra" / SCORER_FILE)
    assert (tmp_path / "saved_model.pb").is_file()
    request = one_request(random_blocks(trainer.network.layout, N, seed=4), np.arange(N))
    rows = repeated(request)
    expected, _ = trainer.predict(rows)
    close = {"rtol": 1e-5, "atol": 1e-5}

    scores = Scorer.load(tmp_path / "assets.extra").score(*(request[side] for side in ORDER))
    np.testing.assert_allclose(scores.predictions, expected, **close)
    assert scores.gates.shape == (N, len(trainer.network.config.objectives), 3)
    np.testing.assert_allclose(scores.gates.sum(2), 1, rtol=1e-5)

    loaded = tf.saved_model.load(str(tmp_path))
    for signature, blocks in (("serving_default", rows), ("rank", request)):
        function = loaded.signatures[signature]
        inputs = {
            f"{side}_{part}": tf.constant(values)
            for side in ORDER
            for part, values in (("ints", blocks[side].ints), ("floats", blocks[side].floats))
            if values.shape[1]
        }
        assert set(function.structured_input_signature[1]) == set(inputs)
        np.testing.assert_allclose(function(**inputs)["predictions"], expected, **close)


@pytest.mark.parametrize("name", LAYOUTS)
def test_videos_encoded_beforehand_score_the_same(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit as those encoded with the request, however many at once, and as in one graph up to rounding."""
    trainer = trained(name)
    export_scorer(trainer.network, tmp_path / SCORER_FILE)
    scorer, blocks = Scorer.load(tmp_path), random_blocks(trainer.network.layout, 64, seed=4)
    request = one_request(blocks, np.arange(10, 40))
    expected = score(scorer, request)
    monkeypatch.setattr("models.scorer.ENCODED_ROWS", 7)
    encoded = scorer.encode(blocks["video"])
    embedded = bool(trainer.network.layout.sides["video"].ints)
    assert bool(scorer.encoded) == embedded == (tmp_path / VIDEOS_FILE).is_file()
    assert not embedded or encoded.floats.shape[1] > blocks["video"].floats.shape[1]
    taken = encoded.take(np.arange(10, 40))
    np.testing.assert_array_equal(score(scorer, {**request, "video": taken}), expected)
    other = scorer.encode(blocks["video"].take(np.arange(30)))
    assert not np.array_equal(score(scorer, {**request, "video": other}), expected)

    monkeypatch.setattr("models.export.ENCODED_BYTES", 0)
    export_scorer(trainer.network, tmp_path / "whole" / SCORER_FILE)
    assert not (tmp_path / "whole" / VIDEOS_FILE).exists()
    whole = Scorer.load(tmp_path / "whole")
    assert whole.encoded == 0
    assert whole.encode(blocks["video"]) is blocks["video"]
    np.testing.assert_allclose(score(whole, request), expected, rtol=1e-5, atol=1e-6)


def test_small_catalogues_are_kept_encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trained("everything")
    export_scorer(trainer.network, tmp_path / SCORER_FILE)
    scorer, video = Scorer.load(tmp_path), random_blocks(trainer.network.layout, 11)["video"]
    monkeypatch.setattr("models.scorer.ENCODED_BYTES", 10 * scorer.encoded)
    assert scorer.keeping(11)(video) is video
    kept = scorer.keeping(10)(video.take(np.arange(10)))
    assert kept.ints.nbytes + kept.floats.nbytes == 10 * scorer.encoded
    whole = Scorer.load(written_as(1, tmp_path))
    assert whole.keeping(1)(video) is video


def test_bundles_of_before_are_read_and_those_to_come_refused(tmp_path: Path) -> None:
    trainer = trained("everything")
    export_scorer(trainer.network, tmp_path / "now" / SCORER_FILE)
    request = one_request(random_blocks(trainer.network.layout, N, seed=4), np.arange(N))
    expected = score(Scorer.load(tmp_path / "now"), request)
    before = Scorer.load(written_as(1, tmp_path / "before", trainer))
    np.testing.assert_allclose(score(before, request), expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(BundleError, match="expected scorer format 1 or 2, got 3"):
        Scorer.load(written_as(3, tmp_path / "later", trainer))
    (tmp_path / "now" / VIDEOS_FILE).unlink()
    with pytest.raises(BundleError, match=r"scorer\.videos\.onnx is missing"):
        Scorer.load(tmp_path / "now")


def written_as(version: int, folder: Path, trainer: Trainer | None = None) -> Path:
    """The folder, with a scorer that takes videos as they come and says it is of that format."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("models.export.ENCODED_BYTES", 0)
        patch.setattr("models.export.FORMATS", (version,))
        export_scorer((trainer or trained("everything")).network, folder / SCORER_FILE)
    return folder


def test_a_score_does_not_depend_on_the_other_candidates(tmp_path: Path) -> None:
    trainer = trained("everything")
    export_scorer(trainer.network, tmp_path / SCORER_FILE)
    scorer = Scorer.load(tmp_path)
    blocks = random_blocks(trainer.network.layout, 300, seed=5)
    together = score(scorer, one_request(blocks, np.arange(300)))
    random = np.random.default_rng(1)
    for size in (1, 2, 3, 7, 16, 65, 129):
        rows = random.choice(300, size)
        np.testing.assert_allclose(score(scorer, one_request(blocks, rows)), together[rows], rtol=1e-6, atol=1e-6)


def test_threads_may_share_a_scorer(tmp_path: Path) -> None:
    trainer = trained("no cross")
    export_scorer(trainer.network, tmp_path / SCORER_FILE)
    scorer = Scorer.load(tmp_path, threads=2)
    blocks = random_blocks(trainer.network.layout, 64)
    requests = [one_request(blocks, np.arange(start, start + 8)) for start in range(0, 56, 4)]
    alone = [score(scorer, request) for request in requests]
    with ThreadPoolExecutor(4) as pool:
        for one, other in zip(alone, pool.map(lambda request: score(scorer, request), requests), strict=True):
            np.testing.assert_array_equal(one, other)


def test_wrong_blocks_are_named(tmp_path: Path) -> None:
    trainer = trained("everything")
    export_scorer(trainer.network, tmp_path / SCORER_FILE)
    scorer = Scorer.load(tmp_path)
    assert scorer.objectives == ("click", "like", "watch")
    assert scorer.experts == 3
    request = one_request(random_blocks(trainer.network.layout, 5), np.arange(5))
    user, context, video, cross = (request[side] for side in ORDER)
    two_users = Block(np.repeat(user.ints, 2, 0), user.floats)
    with pytest.raises(ValueError, match=r"user ints: expected int32 of shape \(1, 6\), got int32 of shape \(2, 6\)"):
        scorer.score(two_users, context, video, cross)
    with pytest.raises(ValueError, match=r"cross floats: expected float32 of shape \(5, 2\)"):
        scorer.score(user, context, video, Block(cross.ints, cross.floats[:4]))
    with pytest.raises(ValueError, match="got int64"):
        scorer.score(user, context, Block(video.ints.astype(np.int64), video.floats), cross)
    none = scorer.score(user, context, video.take(np.arange(0)), cross.take(np.arange(0)))
    assert none.predictions.shape == (0, 3)
    assert none.gates.shape == (0, 3, 3)


def test_no_candidate_features_is_nothing_to_rank_by(tmp_path: Path) -> None:
    trainer = small_trainer(small_config([*USER], (CLICK,), training={"deterministic": False}))
    with pytest.raises(ConfigError, match="nothing to rank by"):
        export_scorer(trainer.network, tmp_path / SCORER_FILE)
    export_saved_model(trainer.network, tmp_path)
    assert set(tf.saved_model.load(str(tmp_path)).signatures) == {"serving_default"}


def test_a_missing_or_damaged_scorer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is missing"):
        Scorer.load(tmp_path)
    (tmp_path / SCORER_FILE).write_bytes(b"no model")
    with pytest.raises(BundleError, match="cannot read the scorer"):
        Scorer.load(tmp_path)


def test_large_tables_lie_beside_the_scorer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They make no difference; export them again, and there are no more of them; cut off or gone, they are refused."""
    trainer = trained("everything")
    request = one_request(random_blocks(trainer.network.layout, N, seed=4), np.arange(N))
    export_scorer(trainer.network, tmp_path / "within" / SCORER_FILE)
    assert not (tmp_path / "within" / "scorer.tables").exists()
    monkeypatch.setattr("models.export.LARGE_BYTES", 64)
    scorer, tables = tmp_path / SCORER_FILE, tmp_path / "scorer.tables"
    export_scorer(trainer.network, scorer)
    whole = tables.read_bytes()
    export_scorer(trainer.network, scorer)
    assert tables.read_bytes() == whole
    assert scorer.stat().st_size + len(whole) > (tmp_path / "within" / SCORER_FILE).stat().st_size
    assert scorer.stat().st_mode == tables.stat().st_mode
    expected = score(Scorer.load(tmp_path / "within"), request)
    np.testing.assert_array_equal(score(Scorer.load(tmp_path), request), expected)
    for length in (len(whole) - 1, 0):
        tables.write_bytes(whole[:length])
        with pytest.raises(BundleError, match="cannot read the scorer"):
            Scorer.load(tmp_path)
    tables.unlink()
    with pytest.raises(BundleError, match="cannot read the scorer"):
        Scorer.load(tmp_path)


def test_the_scorer_needs_no_tensorflow() -> None:
    program = "import models.scorer, sys; sys.exit(any(m in sys.modules for m in ('tensorflow', 'keras', 'onnx', 'pandas')))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
