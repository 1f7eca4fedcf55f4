"""Builds that are given up between their steps, whatever they build."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from closeby.index import FlatIndex, FlinngIndex, LshIndex, MaxIPIndex
from closeby.index.abandon import abandonable, checkpoint
from closeby.index.baselines import HnswIndex
from closeby.index.errors import AbandonedError


def sets(n: int) -> list[list[int]]:
    return [[i, i + 10**6, i + 2 * 10**6] for i in range(n)]


def vectors(n: int) -> Any:
    return np.random.default_rng(0).standard_normal((n, 16)).astype(np.float32)


def asked(times: int) -> Callable[[], bool]:
    """False so often, and then true."""
    left = iter([False] * times)
    return lambda: next(left, True)


MERGED = [
    (lambda: FlinngIndex(capacity=1000, settle=False), sets),
    (lambda: LshIndex(capacity=1000, settle=False), sets),
    (lambda: FlatIndex("cosine", capacity=1000), vectors),
    (lambda: MaxIPIndex(capacity=1000, settle=False), vectors),
]


@pytest.mark.parametrize(("make", "points"), MERGED)
def test_a_merge_is_given_up_at_any_of_its_steps(
    make: Callable[[], Any], points: Callable[[int], Any], tmp_path: Path
) -> None:
    index = make()
    batch = points(4000)
    index.add(batch)
    while (merge := index.next_seal()) is not None:
        index.finish(merge, merge.build(tmp_path / f"sealed-{index.frozen}"))
    before = sorted(tmp_path.iterdir())
    answer = index.search(batch[:50], 3)
    merge = index.next_tier()
    steps = 0
    while True:
        try:
            with abandonable(asked(steps)):
                segment = merge.build(tmp_path / "merged")
            break
        except AbandonedError:
            assert sorted(tmp_path.iterdir()) == before
            steps += 1
    assert steps, "the build never asked"
    np.testing.assert_array_equal(index.search(batch[:50], 3)[0], answer[0])
    index.finish(merge, segment)
    np.testing.assert_array_equal(index.search(batch[:50], 1)[0][:, 0], answer[0][:, 0])


def test_a_structure_of_faiss_is_given_up() -> None:
    index = HnswIndex("cosine", settle=False)
    batch = vectors(3000)
    index.add(batch)
    renewal = index.next_renewal()
    assert renewal is not None
    with abandonable(lambda: True), pytest.raises(AbandonedError):
        renewal.run()
    np.testing.assert_array_equal(index.search(batch[:5], 1)[0][:, 0], np.arange(5))


def test_nothing_is_given_up_elsewhere() -> None:
    with pytest.raises(AbandonedError), abandonable(lambda: True):
        checkpoint()
    checkpoint()
