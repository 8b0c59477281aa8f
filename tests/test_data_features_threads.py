import threading

import pytest

from data.features import threads
from data.features.past import Past
from data.features.threads import in_turns
from data.features.view import View
from tests.small_log import small_config, small_days, small_tables


@pytest.mark.parametrize("count", [1, 2])
def test_answers_come_in_the_order_of_the_tasks(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "THREADS", count)
    assert list(in_turns([lambda i=i: i * i for i in range(20)])) == [i * i for i in range(20)]
    assert list(in_turns([])) == []


def test_few_answers_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the first is in being taken, no more than one answer is made ahead of those at work."""
    monkeypatch.setattr(threads, "THREADS", 2)
    begun: list[int] = []

    def task(i: int) -> int:
        begun.append(i)
        return i

    asked: list[int] = []
    answers = in_turns((lambda i=i: task(i)) for i in range(50) if not asked.append(i))  # type: ignore[func-returns-value]
    assert next(answers) == 0
    assert len(begun) <= len(asked) <= 3
    assert list(answers) == list(range(1, 50))


def test_an_error_reaches_the_one_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "THREADS", 2)
    with pytest.raises(ZeroDivisionError):
        list(in_turns([lambda: 1, lambda: 1 // 0, lambda: 2]))


def test_what_threads_share_of_the_past_is_made_once() -> None:
    batch = next(iter(small_days().values()))
    past = Past(View(batch, batch.numbers("timestamp"), small_tables(), {}), small_config(), 0)
    made: list[int] = []
    both = threading.Barrier(2)

    def ask() -> None:
        both.wait()
        past.once("key", lambda: made.append(1))

    asking = [threading.Thread(target=ask) for _ in range(2)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert made == [1]
