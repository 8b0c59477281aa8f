"""Work aside: its result, its errors, and that the interpreter's turns are as long again afterwards."""

import os
import sys
import threading
from collections.abc import Iterator

import pytest

from service.aside import NICENESS, TURN, Aside, short_turns


@pytest.fixture
def aside() -> Iterator[Aside]:
    thread = Aside()
    yield thread
    thread.close()


def test_results_and_errors_come_through(aside: Aside) -> None:
    assert aside.run(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        aside.run(divmod, 7, 0)


def test_turns_are_short_only_while_somebody_works(aside: Aside) -> None:
    usual = sys.getswitchinterval()
    inside, release = [], threading.Event()

    def wait() -> None:
        with short_turns():
            inside.append(sys.getswitchinterval())
            assert release.wait(30)

    first, second = (threading.Thread(target=wait) for _ in range(2))
    first.start()
    second.start()
    while len(inside) < 2:
        pass
    assert inside == [pytest.approx(TURN)] * 2
    release.set()
    first.join()
    second.join()
    assert sys.getswitchinterval() == usual
    assert aside.run(sys.getswitchinterval) == pytest.approx(TURN)
    with pytest.raises(ZeroDivisionError):
        aside.run(divmod, 1, 0)
    assert sys.getswitchinterval() == usual


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has priorities of threads")
def test_only_the_working_thread_steps_back(aside: Aside) -> None:
    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    there = aside.run(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
    assert there == max(own, NICENESS)
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == own
