"""Large writes take turns; small ones, and work that others wait for, do not wait for them."""

from __future__ import annotations

import threading

import pytest
from closeby.service.turns import Turns, ahead, turn


@pytest.mark.parametrize("at_once", [1, 3])
def test_no_more_large_writes_at_once_than_turns(at_once: int) -> None:
    turns = Turns(at_once)
    inside, most, counting = 0, 0, threading.Lock()
    start = threading.Barrier(3 * at_once)

    def write() -> None:
        nonlocal inside, most
        start.wait()
        for _ in range(20):
            with turns.take(wait=True):
                with counting:
                    inside += 1
                    most = max(most, inside)
                threading.Event().wait(0.0005)
                with counting:
                    inside -= 1

    threads = [threading.Thread(target=write) for _ in range(3 * at_once)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == at_once
    assert inside == 0


def test_what_others_wait_for_goes_ahead_and_turns_begin_after_it() -> None:
    turns = Turns(1)
    waited, began = threading.Event(), threading.Event()

    def write() -> None:
        waited.set()
        with turns.take(wait=True):
            began.set()

    thread = threading.Thread(target=write)
    with turns.take(wait=True), turns.take(wait=False):  # does not hang
        pass
    with turns.take(wait=False):
        thread.start()
        assert waited.wait(10)
        assert not began.wait(0.05)
    assert began.wait(10)
    thread.join()


def test_a_turn_is_given_back_by_work_that_fails() -> None:
    turns = Turns(1)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), turns.take(wait=True):
            raise ZeroDivisionError
    with turns.take(wait=True):
        pass


def test_small_writes_and_work_ahead_pass_while_all_turns_are_taken() -> None:
    with ahead(large=True), ahead(large=True), turn(large=False), ahead(large=False):
        pass
