"""Threads that share the cells of one query: the same answers, whoever comes, and when."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from closeby.index import FlinngIndex, LshIndex, SetBatch, _native, segmented
from closeby.index.crew import Crew

N, TABLES, QUERIES = 40_000, 9, 12


@pytest.fixture(scope="module", params=["cells", "large cells", "buckets", "all"])
def view(request: pytest.FixtureRequest) -> Any:
    """A segment of many cells: counts and scans of a query are several parts."""
    random = np.random.default_rng(3)
    sketches = random.integers(0, 256, (N, 64), np.uint8)
    keys = random.integers(0, 1 << 32, (N, TABLES), np.uint32)
    dead = random.integers(0, 256, N // 8, np.uint8)
    how: dict[str, Any] = {}
    if request.param == "buckets":
        positions = np.ascontiguousarray(keys.T)
        offsets = np.empty((TABLES, 1 + (1 << 5)), np.uint32)
        _native.sort_postings(positions, offsets)
        how = {"postings": (offsets, positions)}
    elif request.param != "all":
        size = 2 if request.param == "cells" else 3_000
        stride = 32 * -(-N // (size * 256))
        bitmaps = np.zeros((TABLES, 16, stride), np.uint8)
        _native.insert_into_groups(bitmaps, keys, 0, size)
        how = {"bitmaps": bitmaps, "group_size": size}
    vectors = random.standard_normal((N, 8), np.float32)
    parts = (np.ascontiguousarray(sketches[:, :16]), np.ascontiguousarray(sketches[:, 16:]))
    return _native.SegmentView(parts, np.arange(N), N, dead, None, vectors, **how)


@contextmanager
def helped(helpers: int) -> Iterator[_native.Team]:
    team = _native.Team()
    threads = [threading.Thread(target=team.help) for _ in range(helpers)]
    for thread in threads:
        thread.start()
    try:
        yield team
    finally:
        team.end()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("name", _native.instruction_sets())
@pytest.mark.parametrize("helpers", [0, 1, 3])
def test_candidates_are_those_of_one_thread(view: Any, helpers: int, name: str) -> None:
    random = np.random.default_rng(4)
    keys = random.integers(0, 1 << 32, (QUERIES, TABLES), np.uint32)
    sketches = random.integers(0, 256, (QUERIES, 64), np.uint8)
    _native.use_instruction_set(name)
    try:
        for breadth in (1, 9, 5_000):
            alone = view.candidates(keys, sketches, breadth, 50)
            with helped(helpers) as team:
                together = view.candidates(keys, sketches, breadth, 50, team)
                again = view.candidates(keys, sketches, breadth, 50, team)
            for one, other, third in zip(alone, together, again, strict=True):
                np.testing.assert_array_equal(other, one)
                np.testing.assert_array_equal(third, one)
    finally:
        _native.use_instruction_set("best")


def test_helpers_that_come_when_all_is_done_return() -> None:
    with helped(0) as team:
        pass
    team.help()


@pytest.mark.parametrize("engine", [FlinngIndex, LshIndex])
def test_one_query_shares_its_cells_if_it_takes_long_enough(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(5)
    sets = SetBatch(np.arange(30_001) * 20, random.integers(0, 1 << 20, 600_000, np.uint64))
    sets.indices.reshape(-1, 20).sort(axis=1)
    index = engine(capacity=12_000 if engine is FlinngIndex else 8_192)
    index.add(sets)
    query = sets.take(np.array([77]))
    asked: list[int] = []
    original = Crew.team

    def watched(self: Crew, helpers: int) -> Any:
        asked.append(helpers)
        return original(self, helpers)

    monkeypatch.setattr(Crew, "team", watched)
    alone = index.search(query, 5)
    quick = index.search(query, 5, threads=2)
    assert asked == []
    monkeypatch.setattr(segmented, "SHARED_FROM_NS", 0)
    for threads in (2, 4):
        for rerank in (True, False):
            shared = index.search(query, 5, threads=threads, rerank=rerank)
            expected = index.search(query, 5, rerank=rerank)
            for one, other in zip(expected, shared, strict=True):
                np.testing.assert_array_equal(other, one)
    assert asked == [1, 1, 3, 3]
    many = index.search(sets.slice(0, 30), 5, threads=3)
    assert asked == [1, 1, 3, 3]  # enough queries to share those
    np.testing.assert_array_equal(many[0], index.search(sets.slice(0, 30), 5)[0])
    for one, other in zip(alone, quick, strict=True):
        np.testing.assert_array_equal(other, one)
