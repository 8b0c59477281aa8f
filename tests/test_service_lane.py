"""The way of a request to a thread that ranks, and back."""

import asyncio
from contextvars import ContextVar
from threading import Event, current_thread
from time import sleep
from typing import Any
from weakref import ref

import pytest

from service.lane import Lane
from service.problems import Problem

NAME: ContextVar[str] = ContextVar("NAME", default="nobody")


def raises(error: BaseException) -> None:
    raise error


def test_work_is_done_in_a_thread_with_the_callers_variables() -> None:
    lane = Lane(threads=2, waiting=0)

    async def ask(name: str) -> tuple[str, str]:
        NAME.set(name)
        return await lane.run(60, lambda: (NAME.get(), current_thread().name))

    async def both() -> Any:
        return await asyncio.gather(ask("a"), ask("b"))

    (first, in_one), (second, in_other) = asyncio.run(both())
    assert (first, second) == ("a", "b")
    assert {in_one, in_other} <= {"rank_1", "rank_2"}
    assert lane.taken == 0
    lane.close()


def test_errors_come_back() -> None:
    lane = Lane(threads=1, waiting=0)
    with pytest.raises(KeyError, match="gone"):
        asyncio.run(lane.run(60, raises, KeyError("gone")))
    assert asyncio.run(lane.run(60, pow, 2, 5)) == 32  # the thread lives
    lane.close()


def test_what_was_answered_is_let_go_of_before_the_next_request() -> None:
    class Body:
        """A request's."""

    lane, body = Lane(threads=1, waiting=0), Body()
    alive = ref(body)
    assert asyncio.run(lane.run(60, isinstance, body, Body))
    del body
    for _ in range(1_000):  # the thread may be behind the answer
        if alive() is None:
            break
        sleep(0.01)
    assert alive() is None
    lane.close()


def test_what_nobody_waits_for_is_not_begun() -> None:
    lane, release, begun = Lane(threads=1, waiting=2), Event(), []

    async def ask() -> list[Any]:
        holds = asyncio.create_task(lane.run(60, release.wait, 60))
        await asyncio.sleep(0)
        late = asyncio.create_task(lane.run(0.001, begun.append, "late"))
        gone = asyncio.create_task(lane.run(60, begun.append, "gone"))
        await asyncio.sleep(0)
        with pytest.raises(Problem, match="3 requests"):
            await lane.run(60, begun.append, "refused")
        gone.cancel()
        given_up = await asyncio.gather(late, gone, return_exceptions=True)
        assert lane.taken == 1
        release.set()
        return [*given_up, await holds, await lane.run(60, begun.append, "next")]

    late, gone, held, _ = asyncio.run(ask())
    assert (type(late), type(gone), held) == (TimeoutError, asyncio.CancelledError, True)
    assert begun == ["next"]
    lane.close()


def test_what_was_begun_counts_until_it_ends() -> None:
    lane, release = Lane(threads=1, waiting=0), Event()

    async def ask() -> int:
        with pytest.raises(TimeoutError):
            await lane.run(0.05, release.wait, 60)
        held = lane.taken
        release.set()
        return held

    assert asyncio.run(ask()) == 1
    while lane.taken:  # the thread tells a loop that is closed by now
        pass
    assert asyncio.run(lane.run(60, pow, 2, 5)) == 32
    lane.close()
