"""What only the configuration can tell about a request: columns of every type, with their bounds."""

from typing import Any

import pytest

from data.config import ColumnConfig, LabelConfig
from data.experiments import Treatment
from models.ranking import Ranking
from service.inputs import _context_error, _outcome_error, to_query
from service.problems import Problem, field_name
from service.schemas import RankRequest
from tests.service_fakes import CONFIG, NOW, serving

TAGS = ColumnConfig(type="categories")
NUMBER = ColumnConfig(type="number", minimum=0, maximum=100)


@pytest.mark.parametrize("value", [None, [], ["a"], ["a", 3]])
def test_lists_of_texts(value: Any) -> None:
    assert _context_error(TAGS, value) is None


@pytest.mark.parametrize("value", ["a", 3, [1.5], [True], [None], [["a"]], ["x" * 257], ["a"] * 257, {}])
def test_no_lists_of_texts(value: Any) -> None:
    assert "expected a list of at most 256 texts" in (_context_error(TAGS, value) or "")


def test_numbers_keep_the_bounds_that_ingest_keeps() -> None:
    assert [_context_error(NUMBER, value) for value in (None, 0, 100, 0.5)] == [None] * 4
    assert _context_error(NUMBER, 101) == "expected a number from 0 to 100, got 101"
    assert _context_error(NUMBER, -0.5) == "expected a number from 0 to 100, got -0.5"


def test_outcomes() -> None:
    binary, watched = LabelConfig(type="binary"), LabelConfig(type="number", minimum=0, maximum=60)
    assert [_outcome_error(binary, value) for value in (None, 0, 1, True, False, 1.0)] == [None] * 6
    assert _outcome_error(binary, 2) == "expected 0 or 1, got 2"
    assert _outcome_error(watched, 59.5) is None
    assert _outcome_error(watched, 61) == "expected a number from 0 to 60, got 61"


def test_a_query_is_what_was_asked() -> None:
    body = {
        "user_id": 7,
        "candidates": [1, "b"],
        "context": {"tab": 3},
        "history": [{"video_id": 5, "timestamp": NOW - 2, "outcomes": {"click": True, "watch": 4}}],
        "exclude": [9],
        "weights": {"like": 2},
    }
    query = to_query(RankRequest.model_validate(body), None, serving(), NOW)
    assert (query.user_id, query.candidates, query.exclude) == ("7", ["1", "b"], {"9"})
    assert (query.timestamp, query.limit, query.route) == (NOW, None, "rank")
    assert query.history is not None
    assert query.history.strings("video_id").tolist() == ["5"]
    assert query.history.numbers("click").tolist() == [1.0]
    # visible_after: four seconds watched
    assert query.history.numbers("visible_at").tolist() == [NOW - 2 + 4000]
    assert dict(zip(query.ranking.objectives, query.ranking.weights, strict=True)) == {"click": 1, "watch": 0, "like": 2}
    assert serving().ranking.weights.tolist() == [1, 0, 0.5]  # the configured ones are left as they are


def test_every_field_at_fault_is_named() -> None:
    body = {
        "user_id": "u",
        "candidates": ["v"],
        "context": {"x": 1, "tab": True},
        "weights": {"y": 1},
        "history": [{"video_id": "v", "timestamp": NOW + 1, "outcomes": {"z": 1}}],
    }
    with pytest.raises(Problem) as raised:
        to_query(RankRequest.model_validate(body), None, serving(), NOW)
    assert {error.field for error in raised.value.errors} == {
        "context.x",
        "context.tab",
        "weights.y",
        "history[0].timestamp",
        "history[0].outcomes.z",
    }


def test_field_names() -> None:
    assert field_name(("body", "history", 2, "timestamp")) == "history[2].timestamp"
    assert field_name(("body",)) == "body"
    assert field_name(("body", "weights", "", "[key]")) == "weights."


def test_a_ranking_needs_no_pinned_means() -> None:
    assert Ranking.of(CONFIG.ranking, CONFIG.objectives, {}).means.tolist() == [1.0, 1.0, 1.0]


def test_an_arm_brings_the_means_and_the_way_its_weights_were_chosen_with() -> None:
    arm = Treatment(weights={"like": 3.0, "gone": 9.0}, reference_means={"like": 0.1}, combine="weighted_product")
    body = {"user_id": "u", "candidates": ["a"], "weights": {"click": 7}}
    ranking = to_query(RankRequest.model_validate(body), None, serving(), NOW, treatment=arm).ranking
    assert ranking.weights.tolist() == [7, 0, 3]  # the request's own go before the arm's
    assert (ranking.means.tolist(), ranking.combine) == ([0.5, 10, 0.1], "weighted_product")
