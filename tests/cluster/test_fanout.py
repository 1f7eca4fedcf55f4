"""Second requests: to shards that are threads, some of which are slow now and then, or for ever."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from closeby.service.cluster.fanout import Fanout, Link
from closeby.service.cluster.hedging import EARNED, LEAST_ANSWERS, Hedging

SLOW = 0.25
QUICK = 0.002


class SlowLink:
    """Answers with its own number; how long it takes, and whether it fails, `behave` says."""

    def __init__(self, made: Made, shard: str, number: int) -> None:
        self._made, self._shard, self._number = made, shard, number

    def send(self, method: str, *arguments: Any) -> Future[Any]:
        del arguments
        return self._made.pool.submit(self._answer, method)

    def _answer(self, method: str) -> int:
        self._made.asked.append((self._shard, self._number, method))
        time.sleep(self._made.behave(self._shard, self._number))
        return self._number


class Made:
    """Links, numbered for each shard in the order in which they were made."""

    def __init__(self, behave: Callable[[str, int], float]) -> None:
        self.behave = behave
        self.asked: list[tuple[str, int, str]] = []
        self.pool = ThreadPoolExecutor(64)
        self._count: dict[str, int] = {}

    def connect(self, shard: str) -> Link:
        number = self._count.get(shard, 0)
        self._count[shard] = number + 1
        return SlowLink(self, shard, number)


@pytest.fixture
def fanout() -> Iterator[Callable[..., tuple[Made, Fanout]]]:
    opened: list[tuple[Made, Fanout]] = []

    def open_with(
        behave: Callable[[str, int], float], percentile: float | None = 90.0
    ) -> tuple[Made, Fanout]:
        made = Made(behave)
        opened.append((made, Fanout(made.connect, percentile)))
        return opened[-1]

    yield open_with
    for made, each in opened:
        each.close()
        made.pool.shutdown()


def ask(fanout: Fanout, shards: list[str], count: int) -> list[float]:
    took = []
    for _ in range(count):
        begun = time.monotonic()
        answers = fanout.ask(shards, "search", deadline=5.0)
        took.append(time.monotonic() - begun)
        assert answers.keys() == set(shards)
    return took


def test_a_request_that_is_stuck_is_overtaken_by_a_second_one(fanout: Any) -> None:
    stuck = threading.Event()

    def behave(shard: str, number: int) -> float:
        if shard == "b" and number == 0 and stuck.is_set():
            stuck.clear()
            return SLOW
        return QUICK

    made, hedged = fanout(behave)
    shards = ["a", "b"]
    ask(hedged, shards, 4 * LEAST_ANSWERS)
    assert 0 < hedged.hedging["b"].delay < SLOW / 4
    before = hedged.hedging["b"].won
    for _ in range(5):
        stuck.set()
        (took,) = ask(hedged, shards, 1)
        assert took < SLOW / 2
        ask(hedged, shards, 12)
    assert hedged.hedging["b"].won - before >= 5
    second = sum(number > 0 for _, number, _ in made.asked)
    assert second <= EARNED * len(made.asked) + 20


def test_what_only_one_process_can_answer_is_not_asked_for_ever(fanout: Any) -> None:
    """A shard that is slow for all: second requests do not help, so they stay few."""
    made, hedged = fanout(lambda shard, _: 0.02 if shard == "b" else QUICK)
    ask(hedged, ["a", "b"], 3 * LEAST_ANSWERS)
    second = sum(number > 0 for shard, number, _ in made.asked if shard == "b")
    assert second <= 2 * EARNED * 3 * LEAST_ANSWERS
    assert not hedged.suspects


def test_without_a_percentile_and_for_other_methods_nothing_is_asked_twice(fanout: Any) -> None:
    for percentile, method in ((None, "search"), (60.0, "refresh")):
        delays = iter(np.random.default_rng(0).uniform(0.0, 0.004, 1000).tolist())
        made, plain = fanout(lambda *_, delays=delays: next(delays), percentile)
        for _ in range(2 * LEAST_ANSWERS):
            assert plain.ask(["a"], method, deadline=5.0) == {"a": 0}
        assert {number for _, number, _ in made.asked} == {0}


def test_when_both_requests_are_late_the_shard_is_missing(fanout: Any) -> None:
    gone = threading.Event()
    _, hedged = fanout(lambda shard, _: 0.5 if shard == "b" and gone.is_set() else QUICK)
    ask(hedged, ["a", "b"], 3 * LEAST_ANSWERS)
    gone.set()
    begun = time.monotonic()
    assert hedged.ask(["a", "b"], "search", deadline=0.1).keys() == {"a"}
    assert time.monotonic() - begun < 0.4
    assert hedged.suspects == {"b"}


class FarAnswer:
    """There already, but it takes a moment to fetch, as through Ray."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def result(self, timeout: float) -> str:
        time.sleep(min(timeout, self._seconds))
        if timeout < self._seconds:
            raise TimeoutError
        return "answer"

    def cancel(self) -> None:
        pass


class FarLink:
    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def send(self, method: str, *arguments: Any) -> FarAnswer:
        return FarAnswer(self._seconds)


def test_an_answer_that_came_counts_though_a_dead_shard_was_waited_for() -> None:
    fanout = Fanout(lambda shard: FarLink(60.0 if shard == "dead" else 0.02))
    found = fanout.ask(["dead", "alive"], "search", deadline=0.1)
    fanout.close()
    assert found == {"alive": "answer"}
    assert fanout.suspects == {"dead"}


def test_the_delay_is_the_percentile_of_the_last_answers() -> None:
    hedging = Hedging(90.0)
    for i in range(LEAST_ANSWERS - 1):
        hedging.note(i)
        assert hedging.delay is None
    for _ in range(600):
        for seconds in (0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.09, 0.1):
            hedging.note(seconds)
    assert hedging.delay == pytest.approx(0.09, abs=0.002)
    assert sum(hedging.spend() for _ in range(100)) == 10
    for _ in range(20):
        hedging.note(0.01)
    assert sum(hedging.spend() for _ in range(100)) == 2
    assert hedging.sent == 12
