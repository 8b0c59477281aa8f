"""How one call is shared between threads. What is scored: tests/test_models_export.py, tests/test_models_split.py."""

import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from data.features.layout import Block
from models.scorer import LEAST_ROWS, Scorer

FACTS = {
    "objectives": ["click"],
    "experts": 1,
    "widths": {side: {"ints": 1, "floats": 1} for side in ("user", "context", "video", "cross")},
}


class Recorder:
    """A session whose prediction of a candidate is the user's float plus the video's, and that notes who asked for what."""

    def __init__(self, fails: bool = False) -> None:
        self.sizes: list[int] = []
        self.threads: set[int] = set()
        self.fails = fails

    def get_inputs(self) -> list[SimpleNamespace]:
        names = [f"{side}_{part}" for side in FACTS["widths"] for part in ("ints", "floats")]
        return [SimpleNamespace(name=name) for name in names]

    def run(self, outputs: list[str], feed: dict[str, Any]) -> list[np.ndarray]:
        assert all(len(feed[f"{side}_{part}"]) == 1 for side in ("user", "context") for part in ("ints", "floats"))
        n = len(feed["video_floats"])
        assert all(len(feed[name]) == n for name in ("video_ints", "cross_ints", "cross_floats"))
        if self.fails and threading.current_thread() is not threading.main_thread():
            raise RuntimeError("no memory")
        self.sizes.append(n)
        self.threads.add(threading.get_ident())
        return [feed["user_floats"] + feed["video_floats"], np.ones((n, 1, 1), np.float32)]


def block(floats: np.ndarray) -> Block:
    return Block(np.zeros((len(floats), 1), np.int32), floats.astype(np.float32)[:, None])


def scored(session: Recorder, n: int, threads: int) -> np.ndarray:
    one, all_of_them = block(np.array([0.5])), block(np.arange(n))
    return Scorer(session, FACTS, threads=threads).score(one, one, all_of_them, all_of_them).predictions  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("n", "threads", "sizes"),
    [
        (500, 1, [500]),
        (500, 2, [250, 250]),
        (500, 3, [166, 167, 167]),
        (2 * LEAST_ROWS, 2, [LEAST_ROWS, LEAST_ROWS]),
        (2 * LEAST_ROWS - 1, 2, [2 * LEAST_ROWS - 1]),
        (2 * LEAST_ROWS, 4, [LEAST_ROWS, LEAST_ROWS]),
        (1, 2, [1]),
    ],
)
def test_threads_share_a_call_by_its_candidates(n: int, threads: int, sizes: list[int]) -> None:
    session = Recorder()
    np.testing.assert_array_equal(scored(session, n, threads)[:, 0], np.arange(n, dtype=np.float32) + 0.5)
    assert sorted(session.sizes) == sizes
    assert threading.get_ident() in session.threads
    assert len(session.threads) <= threads
    assert (len(session.threads) > 1) == (len(sizes) > 1)


def test_what_fails_in_another_thread_fails_the_call() -> None:
    with pytest.raises(RuntimeError, match="no memory"):
        scored(Recorder(fails=True), 500, 2)
