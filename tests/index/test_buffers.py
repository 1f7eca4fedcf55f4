"""Columns and flags that one thread changes while others read."""

from __future__ import annotations

import threading

import numpy as np
from closeby.index.buffers import marked


def test_marked_places_are_places_while_flags_change() -> None:
    flags = np.ones(100_000, bool)
    done = threading.Event()

    def change() -> None:
        rng = np.random.default_rng(0)
        while not done.is_set():
            rows = rng.integers(0, len(flags), 2_000)
            flags[rows] = False
            flags[rows] = True

    writer = threading.Thread(target=change)
    writer.start()
    try:
        for _ in range(500):
            places = marked(flags)
            assert places.dtype == np.int64
            assert len(places) > len(flags) // 2
            assert (np.diff(places) > 0).all()
            assert places[0] >= 0
            assert places[-1] < len(flags)
    finally:
        done.set()
        writer.join()


def test_marked_places() -> None:
    assert marked(np.array([False, True, True, False, True])).tolist() == [1, 2, 4]
    assert marked(np.zeros(0, bool)).tolist() == []
