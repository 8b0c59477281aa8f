"""The scorer in bfloat16. That OpenVINO runs the same graph, test_models_split.py holds for every trunk, in float32."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from network_samples import CONTEXT, CROSS, USER, VIDEO, one_request, random_blocks, small_config, small_trainer

from data.errors import BundleError, WatchNextError
from data.features.layout import Block
from models import bfloat16
from models.bfloat16 import Bfloat16Session
from models.encoder import ORDER
from models.export import export_scorer
from models.scorer import SCORER_FILE, Scorer, Scores

here = pytest.mark.skipif(not bfloat16.supported(), reason="this processor has no products in bfloat16")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scorer whose large tables lie beside it."""
    folder = tmp_path_factory.mktemp("bundle")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("models.export.LARGE_BYTES", 64)
        export_scorer(small_trainer(small_config([*USER, *CONTEXT, *VIDEO, *CROSS])).network, folder / SCORER_FILE)
    return folder


def request_of(n: int, seed: int) -> dict[str, Block]:
    layout = small_trainer(small_config([*USER, *CONTEXT, *VIDEO, *CROSS])).network.layout
    return one_request(random_blocks(layout, n, seed=seed), np.arange(n))


def scores(scorer: Scorer, request: dict[str, Block]) -> Scores:
    return scorer.score(*(request[side] for side in ORDER))


@here
def test_products_alone_are_rounded(exported: Path) -> None:
    full, short = Scorer.load(exported), Scorer.load(exported, bfloat16=1)
    request = request_of(200, seed=3)
    expected, found = scores(full, request), scores(short, request)
    assert found.predictions.dtype == found.gates.dtype == np.float32
    np.testing.assert_allclose(found.predictions, expected.predictions, rtol=0.02, atol=0.02)
    assert (found.predictions != expected.predictions).any()
    assert (short.objectives, short.experts, short.split) == (full.objectives, full.experts, full.split)
    video = request["video"]
    np.testing.assert_array_equal(short.encode(video).floats, full.encode(video).floats)


@here
def test_threads_may_share_it_and_more_than_there_is_room_for_wait(exported: Path) -> None:
    scorer = Scorer.load(exported, bfloat16=2)
    requests = [request_of(n, seed=n) for n in range(1, 40)]
    alone = [scores(scorer, request).predictions for request in requests]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda request: scores(scorer, request).predictions, requests * 5))
    for one, other in zip(alone * 5, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_it_cannot_run_is_named(tmp_path: Path) -> None:
    (tmp_path / SCORER_FILE).write_bytes(b"no model")
    with pytest.raises(BundleError, match=rf"OpenVINO can't run .*{SCORER_FILE}: ."):
        Bfloat16Session(tmp_path / SCORER_FILE)


def test_without_openvino_it_says_what_to_install(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(WatchNextError, match=r"requirements/bfloat16\.txt"):
        Scorer.load(exported, bfloat16=1)
    assert Scorer.load(exported).objectives
