"""When a bundle is scored in bfloat16."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.errors import BundleError
from data.features.layout import Block
from models.scorer import Scorer, Scores
from service import precision
from service.precision import in_bfloat16, pairs_swapped, ranking_scores
from service.settings import Settings
from tests.service_fakes import FakeScorer, serving


class Shifted(FakeScorer):
    """The fake's predictions, some of them a little off."""

    def __init__(self, **off: float) -> None:
        self.off = {int(row.removeprefix("row_")): by for row, by in off.items()}

    def score(self, user: Block, context: Block, video: Block, cross: Block) -> Scores:
        scores = super().score(user, context, video, cross)
        for row, by in self.off.items():
            scores.predictions[video.ints[:, 0] == row] += by
        return scores

    def keeping(self, videos: int) -> Any:
        return lambda video: video


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[FakeScorer]:
    """The processor has bfloat16; what is loaded in it comes from here."""
    coming: list[FakeScorer] = []
    monkeypatch.setattr(precision, "supported", lambda: True)
    monkeypatch.setattr(Scorer, "load", lambda folder, bfloat16: coming.pop())
    return coming


def test_pairs_by_hand() -> None:
    one = serving()
    videos = np.arange(len(one.features.video_ids))
    scores = ranking_scores(one, "u1", videos)
    best, next_best = np.argsort(-scores)[:2]
    row = int(one.catalogue.take(videos[[next_best]]).ints[0, 0])
    above = scores[best] - scores[next_best]
    assert above > 0
    other = replace(one, scorer=Shifted(**{f"row_{row}": 100.0}))  # it alone passes the best
    order = np.sign(np.subtract.outer(scores, scores))
    moved = ranking_scores(other, "u1", videos)
    expected = (order * np.sign(np.subtract.outer(moved, moved)) < 0).sum() / (order != 0).sum()
    assert 0 < expected < 0.2
    assert pairs_swapped(one, other) == pytest.approx(expected)
    assert pairs_swapped(one, one) == 0


def test_a_bundle_whose_order_bears_it(loaded: list[FakeScorer]) -> None:
    one, scorer = serving(), Shifted()
    loaded.append(scorer)
    found = in_bfloat16(one, Path("unread"), calls=3)
    assert (found.scorer, found.version, found.catalogue) == (scorer, one.version, one.catalogue)
    assert (one.precision, found.precision) == ("float32", "bfloat16")


def test_a_bundle_that_says_nothing_in_it(loaded: list[FakeScorer]) -> None:
    one = serving()
    rows = one.catalogue.take(np.arange(len(one.features.video_ids))).ints[:, 0]
    loaded.append(Shifted(**{f"row_{row}": np.nan for row in rows.tolist()}))
    assert in_bfloat16(one, Path("unread"), calls=1) is one


def test_a_bundle_whose_order_does_not(loaded: list[FakeScorer]) -> None:
    one = serving()
    loaded.append(Shifted(row_1=500.0, row_2=-500.0))
    assert in_bfloat16(one, Path("unread"), calls=1) is one


@pytest.mark.usefixtures("loaded")
def test_a_graph_that_cannot_be_run_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(folder: Path, bfloat16: int) -> Scorer:
        raise BundleError("OpenVINO can't run it")

    one = serving()
    monkeypatch.setattr(Scorer, "load", refused)
    assert in_bfloat16(one, Path("unread"), calls=1) is one


def test_a_processor_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "supported", lambda: False)
    one = serving()
    assert in_bfloat16(one, Path("unread"), calls=1) is one


def test_as_many_calls_as_a_process_ranks_requests() -> None:
    assert Settings().bfloat16_calls == 0
    assert Settings(bfloat16=True, workers=1).bfloat16_calls == 2
    assert Settings(bfloat16=True, workers=2).bfloat16_calls == 1
    assert Settings(bfloat16=True, workers=2, threads=3).bfloat16_calls == 3
