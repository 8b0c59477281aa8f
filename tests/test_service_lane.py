"""The way of a request to a thread that ranks, and back."""

import asyncio
from contextvars import ContextVar
from threading import Event, current_thread
from time import sleep
from typing import Any
from weakref import ref

import pytest

import service.lane
from service.lane import Lane
from service.problems import Problem

NAME: ContextVar[str] = ContextVar("NAME", default="nobody")


def where() -> str:
    """The thread that does it."""
    return current_thread().name


@pytest.fixture
def all_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service.lane, "QUICK", 60)


def raises(error: BaseException) -> None:
    raise error


def test_work_is_done_in_a_thread_with_the_callers_variables() -> None:
    lane = Lane(threads=2, waiting=0)

    async def ask(name: str) -> tuple[str, str]:
        NAME.set(name)
        return await lane.run(60, lambda: (NAME.get(), where()))

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


def test_a_lone_request_crosses_to_no_thread_where_work_was_quick_of_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service.lane, "QUICK", 0.3)
    lane = Lane(threads=1, waiting=0)

    async def ask(times: int) -> list[str]:
        return [await lane.run_here(60, where) for _ in range(times)]

    async def slow() -> list[str]:
        await lane.run_here(60, sleep, 0.5)
        return await ask(20)

    for done in (asyncio.run(ask(20)), asyncio.run(slow())):
        here = done.index(where())
        assert here >= 4
        assert set(done[:here]) == {"rank_1"}
        assert set(done[here:]) == {where()}
    assert lane.taken == 0
    lane.close()


def test_what_was_never_begun_says_nothing_of_how_long_work_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service.lane, "QUICK", 0.3)
    lane, release = Lane(threads=1, waiting=40), Event()

    async def ask() -> str:
        holds = asyncio.create_task(lane.run(60, release.wait, 60))
        await asyncio.sleep(0)
        given_up = await asyncio.gather(*(lane.run(0.001, where) for _ in range(40)), return_exceptions=True)
        assert {type(error) for error in given_up} == {TimeoutError}
        release.set()
        await holds
        return await lane.run_here(60, where)

    assert asyncio.run(ask()) == "rank_1"
    lane.close()


@pytest.mark.usefixtures("all_is_quick")
def test_requests_that_come_together_share_the_threads() -> None:
    lane = Lane(threads=2, waiting=1)

    async def ask() -> list[str]:
        return [*await asyncio.gather(*(lane.run_here(60, where) for _ in range(3))), await lane.run_here(60, where)]

    *together, alone = asyncio.run(ask())
    assert set(together) <= {"rank_1", "rank_2"}
    assert alone == where()
    lane.close()


@pytest.mark.usefixtures("all_is_quick")
def test_beside_one_in_a_thread_the_loop_stays_free() -> None:
    lane, release = Lane(threads=2, waiting=0), Event()

    async def ask() -> str:
        holds = asyncio.create_task(lane.run(60, release.wait, 60))
        await asyncio.sleep(0)
        beside = await lane.run_here(60, where)
        release.set()
        await holds
        return beside

    assert asyncio.run(ask()).startswith("rank_")
    lane.close()


@pytest.mark.usefixtures("all_is_quick")
def test_on_the_loop_too_errors_and_lateness_are_told() -> None:
    lane = Lane(threads=1, waiting=0)

    async def ask() -> str:
        with pytest.raises(KeyError, match="gone"):
            await lane.run_here(60, raises, KeyError("gone"))
        with pytest.raises(TimeoutError):
            await lane.run_here(0.001, sleep, 0.005)
        return await lane.run_here(60, where)

    assert (asyncio.run(ask()), lane.taken) == (where(), 0)
    lane.close()
