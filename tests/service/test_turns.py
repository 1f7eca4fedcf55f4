"""Large writes take turns; small ones and queries do not wait for them."""

from __future__ import annotations

import os
import threading

from closeby.service.turns import turn

TURNS = max(1, (os.cpu_count() or 2) // 2)


def test_no_more_large_writes_at_once_than_half_the_processors() -> None:
    inside, most, counting = 0, 0, threading.Lock()
    start = threading.Barrier(3 * TURNS)

    def write() -> None:
        nonlocal inside, most
        start.wait()
        for _ in range(20):
            with turn(large=True):
                with counting:
                    inside += 1
                    most = max(most, inside)
                threading.Event().wait(0.0005)
                with counting:
                    inside -= 1

    threads = [threading.Thread(target=write) for _ in range(3 * TURNS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most <= TURNS
    assert inside == 0


def test_small_writes_pass_while_all_turns_are_taken() -> None:
    taken, done = threading.Barrier(TURNS + 1), threading.Event()

    def write() -> None:
        with turn(large=True):
            taken.wait(10)
            done.wait(10)

    threads = [threading.Thread(target=write) for _ in range(TURNS)]
    for thread in threads:
        thread.start()
    taken.wait(10)
    with turn(large=False):
        assert not done.is_set()
    done.set()
    for thread in threads:
        thread.join()
    with turn(large=True):  # they were given back
        pass
