"""Retries and schedules, stepped by hand: no network, no clock."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from closeby.client.errors import (
    ConnectError,
    ConnectionLostError,
    RequestTimeoutError,
    TransportError,
)
from closeby.client.flows import (
    Request,
    Response,
    RetryPolicy,
    Schedule,
    Send,
    Sleep,
    Task,
    exchange,
    retry_after,
)
from hypothesis import given
from hypothesis import strategies as st

ASK = Request("POST", "/v1/collections/c/query", b"{}")


def play(policy: RetryPolicy, answers: list[Response | Exception]) -> tuple[Any, list[float]]:
    """Run one exchange with these answers: its outcome, and the waits it asked for."""
    flow = exchange(ASK, policy)
    waits: list[float] = []
    coming = iter(answers)
    effect = next(flow)
    try:
        while True:
            if isinstance(effect, Sleep):
                waits.append(effect.seconds)
                effect = flow.send(None)
                continue
            assert effect == Send(ASK)
            answer = next(coming)
            effect = flow.throw(answer) if isinstance(answer, Exception) else flow.send(answer)
    except StopIteration as end:
        outcome = end.value
    except TransportError as error:
        outcome = error
    assert list(coming) == [], "not all answers were asked for"
    return outcome, waits


def status(code: int, **headers: str) -> Response:
    return Response(code, {name.replace("_", "-"): value for name, value in headers.items()}, b"")


def steady(retries: int = 3) -> RetryPolicy:
    return RetryPolicy(retries, draw=lambda: 1.0)


@pytest.mark.parametrize("code", [200, 201, 204, 400, 401, 404, 409, 413, 422, 500, 501])
def test_a_settled_answer_is_taken_at_once(code: int) -> None:
    outcome, waits = play(steady(), [status(code)])
    assert (outcome.status, outcome.attempts, waits) == (code, 1, [])


@pytest.mark.parametrize(
    "trouble",
    [
        ConnectError("refused"),
        ConnectionLostError("reset"),
        status(429),
        status(502),
        status(503),
        status(504),
    ],
)
def test_passing_trouble_is_tried_again_with_growing_waits(trouble: Any) -> None:
    outcome, waits = play(steady(), [trouble, trouble, trouble, status(200)])
    assert (outcome.status, outcome.attempts) == (200, 4)
    assert waits == [0.2, 0.4, 0.8]


def test_trouble_that_stays_is_the_outcome() -> None:
    outcome, waits = play(steady(2), [status(503), status(503), status(503)])
    assert (outcome.status, len(waits)) == (503, 2)
    refused = ConnectError("refused")
    outcome, waits = play(steady(1), [refused, refused])
    assert outcome is refused
    assert play(steady(0), [refused]) == (refused, [])


def test_timeouts_are_not_tried_again() -> None:
    late = RequestTimeoutError("late")
    assert play(steady(), [late]) == (late, [])


def test_what_the_server_asks_for_is_waited() -> None:
    _, waits = play(steady(), [status(429, retry_after="7"), status(200)])
    assert waits == [7.0]


def test_a_wait_that_is_too_long_becomes_the_outcome() -> None:
    outcome, waits = play(steady(), [status(429, retry_after="3600")])
    assert (outcome.status, waits) == (429, [])


def test_jitter_lies_between_half_and_whole_and_waits_are_bounded() -> None:
    lowest = RetryPolicy(draw=lambda: 0.0)
    assert [lowest.backoff(n) for n in (1, 2, 3)] == [0.1, 0.2, 0.4]
    assert steady().backoff(1000) == 10.0
    drawn = {RetryPolicy().backoff(3) for _ in range(50)}
    assert len(drawn) > 10
    assert all(0.4 <= wait <= 0.8 for wait in drawn)


@pytest.mark.parametrize(
    ("header", "seconds"), [("3", 3.0), (" 0 ", 0.0), ("soon", None), ("", None), ("-1", None)]
)
def test_retry_after_as_a_number(header: str, seconds: float | None) -> None:
    assert retry_after({"retry-after": header}) == seconds


def test_retry_after_as_a_date() -> None:
    moment = datetime.now(UTC) + timedelta(seconds=30)
    assert retry_after({"retry-after": format_datetime(moment, usegmt=True)}) == pytest.approx(
        30, abs=2
    )
    past = "Wed, 21 Oct 2015 07:28:00 GMT"
    assert retry_after({"retry-after": past}) == 0.0
    assert retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 -0000"}) == 0.0
    assert retry_after({}) is None


def no_flow() -> Any:
    return None


def tasks(keys: list[set[int]]) -> Iterator[Task]:
    return (Task(no_flow(), one) for one in keys)


def test_tasks_that_share_no_key_run_together() -> None:
    schedule = Schedule(tasks([{1}, {2}, {3}]), limit=2)
    first, second = schedule.startable()
    assert (first.keys, second.keys) == ({1}, {2})
    schedule.finish(second)
    (third,) = schedule.startable()
    assert third.keys == {3}


def test_a_task_waits_for_its_key_and_later_ones_wait_behind_it() -> None:
    schedule = Schedule(tasks([{1}, {1, 2}, {3}]), limit=8)
    (first,) = schedule.startable()
    assert list(schedule.startable()) == []
    schedule.finish(first)
    assert [one.keys for one in schedule.startable()] == [{1, 2}, {3}]


@given(
    keys=st.lists(st.sets(st.integers(0, 5), min_size=1), max_size=12),
    limit=st.integers(1, 4),
    data=st.data(),
)
def test_writes_of_one_key_never_overlap_and_keep_their_order(
    keys: list[set[int]], limit: int, data: st.DataObject
) -> None:
    numbered = [Task(number, one) for number, one in enumerate(keys)]  # type: ignore[arg-type]
    schedule = Schedule(iter(numbered), limit)
    running: list[Task] = []
    started: list[Task] = []
    while True:
        for task in schedule.startable():
            assert all(set(task.keys).isdisjoint(other.keys) for other in running)
            running.append(task)
            started.append(task)
        assert len(running) <= limit
        if not running:
            break
        schedule.finish(running.pop(data.draw(st.integers(0, len(running) - 1))))
    assert started == numbered
