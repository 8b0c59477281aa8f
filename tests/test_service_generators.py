"""Gathering from several generators, and what is skipped on the way."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from models.indexes import Found
from service.generators.gather import Gathered, Gatherer
from service.generators.protocol import Source, Taste, wanted
from service.inputs import to_query
from service.observability import Metrics
from service.pipeline import rank
from service.runtime import Runtime
from service.schemas import RecommendRequest
from service.settings import Settings
from tests.service_fakes import Failing, Fixed, encoder, serving, sources
from tests.small_log import small_config

NOBODY = Taste(-1, np.zeros(0, np.int64), 0, frozenset())


def gathered(*brought: Source, most: int = 100) -> Gathered:
    gatherer = Gatherer(2, Metrics())
    try:
        return gatherer.gather(brought, NOBODY, most)
    finally:
        gatherer.close()


def index_of(rows: list[int]) -> Callable[[int], Found]:
    return lambda n: Found(np.array(rows[:n], np.int64), np.zeros(len(rows[:n]), np.float32))


def test_unwanted_rows_cost_no_quota() -> None:
    taste = Taste(-1, np.zeros(0, np.int64), 0, frozenset({5, 6, 8, 99}))
    assert wanted(index_of([5, 6, 7, 8, 9, 10, 11]), taste, 2) == [7, 9]
    assert wanted(index_of([5, 6]), taste, 2) == []


def test_an_index_is_not_asked_for_more_than_makes_sense() -> None:
    asked: list[int] = []

    def query(n: int) -> Found:
        asked.append(n)
        return Found(np.arange(3), np.zeros(3, np.float32))

    wanted(query, Taste(-1, np.zeros(0, np.int64), 0, frozenset(range(50_000))), 10)
    assert asked == [1_010]


def test_a_cut_is_fair_to_all() -> None:
    found = gathered(*sources(Fixed("a", [1, 2, 3, 4]), Fixed("b", [2, 5, 6]), Fixed("c", [7])), most=5)
    # in turns: 1 2 7 | (2) 5 | 3; the sixth does not fit, but 2's provenance is complete
    assert found.brought_by == {1: ["a"], 2: ["a", "b"], 7: ["c"], 5: ["b"], 3: ["a"]}


def test_nothing_to_gather_from() -> None:
    assert gathered() == Gathered()
    assert gathered(*sources(Fixed("a", []))) == Gathered()


def test_what_fails_is_named_and_the_rest_goes_on() -> None:
    found = gathered(*sources(Failing("z"), Failing("b"), Fixed("a", [1])))
    assert found == Gathered({1: ["a"]}, ["generator b: failed", "generator z: failed"])


RUNTIME = Runtime(Settings(), Metrics(), frozenset())
VIDEOS = st.sampled_from([*encoder().video_ids, "new"])
OUTCOMES = st.sampled_from([{}, {"watch": 9.0}, {"click": 0}])


@settings(deadline=None, max_examples=60)
@given(
    user=st.sampled_from(["u1", "u2", "u3", "nobody"]),
    blocked=st.sets(VIDEOS, max_size=4),
    gone=st.sets(VIDEOS, max_size=4),
    share=st.sampled_from([0.0, 0.3, 1.0]),
    exclude=st.lists(VIDEOS, max_size=6),
    watched=st.lists(st.tuples(VIDEOS, OUTCOMES), max_size=6),
    query=st.none() | VIDEOS,
    replaces=st.booleans(),
    rude=st.lists(st.lists(st.integers(0, len(encoder().video_ids) - 1), max_size=30), max_size=3),
)
def test_recommend_never_returns_what_it_must_not(
    user: str,
    blocked: set[str],
    gone: set[str],
    share: float,
    exclude: list[str],
    watched: list[tuple[str, dict[str, Any]]],
    query: str | None,
    replaces: bool,
    rude: list[list[int]],
) -> None:
    """Whatever generators bring: the pipeline does not rely on their manners."""
    bundle = serving(brought=sources(*(Fixed(f"g{n}", rows) for n, rows in enumerate(rude))))
    config = small_config(exploration={"share": share}, ranking={"weights": {"click": 1.0}})
    bundle = replace(bundle, config=config, taken_down=frozenset(gone))
    time = encoder().state.boundary + 10_000
    body = {
        "user_id": user,
        "exclude": exclude,
        "query_video_id": query,
        "history": [{"video_id": v, "timestamp": time - 1, "outcomes": outcomes} for v, outcomes in watched],
        "history_replaces": replaces,
        "timestamp": time,
    }
    RUNTIME.blocked = frozenset(blocked)
    slate = rank(to_query(RecommendRequest.model_validate(body), 2000, bundle, time), bundle, RUNTIME)
    found = [slate.candidates.video_ids[place] for place in slate.shown.tolist()]
    unwanted = encoder().seen(user) | blocked | gone | {*exclude, *(video for video, _ in watched), query}
    brought = {encoder().video_ids[row] for rows in rude for row in rows}
    assert len(found) == len(set(found))
    assert set(found) == brought - unwanted
    assert len(slate.filled.propensity) == len(slate.filled.explored) == len(found)
    assert ((slate.filled.propensity > 0) & (slate.filled.propensity <= 1)).all()
