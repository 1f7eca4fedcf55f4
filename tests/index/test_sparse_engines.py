"""Sparse vectors in the engines of segments: against exact search, through files and removals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from closeby.index import (
    FlatIndex,
    FlinngIndex,
    InvalidInputError,
    LshIndex,
    SparseBatch,
    _native,
)

ENGINES = [FlinngIndex, LshIndex]


def documents(count: int, seed: int = 0, *, of: int | None = None) -> SparseBatch:
    """Weighted words in families of ten, any 64-bit numbers; members are at cosine .8 to 1."""
    random = np.random.default_rng(seed)
    shared = np.random.default_rng(5)
    groups = (count if of is None else of) // 10 + 1
    words = np.sort(shared.integers(0, 1 << 63, (groups, 30)).astype(np.uint64), axis=1)
    weights = shared.exponential(size=(groups, 30))
    group = np.arange(count) // 10 if of is None else random.integers(0, of // 10, count)
    values = weights[group] * random.uniform(0.6, 1.4, (count, 30))
    indptr = np.arange(0, 30 * count + 1, 30)
    return SparseBatch(indptr, words[group].ravel(), values.ravel().astype(np.float32))


def dense_product(a: SparseBatch, i: int, b: SparseBatch, j: int) -> float:
    """The obvious inner product of two rows."""
    left = dict(zip(a.row(i).tolist(), a.values[a.indptr[i] : a.indptr[i + 1]], strict=True))
    right = dict(zip(b.row(j).tolist(), b.values[b.indptr[j] : b.indptr[j + 1]], strict=True))
    return float(sum(float(left[d]) * float(right[d]) for d in left.keys() & right.keys()))


@pytest.mark.parametrize("wide", [False, True])
def test_exact_scores_are_those_of_counting(wide: bool) -> None:
    random = np.random.default_rng(2)
    sizes = random.integers(0, 12, 40)
    indptr = np.concatenate(([0], np.cumsum(sizes)))
    rows = [np.sort(random.choice(30, size, replace=False)) for size in sizes]
    indices = np.concatenate(rows).astype(np.uint64) + np.uint64((1 << 40) * wide)
    vectors = SparseBatch(indptr, indices, random.standard_normal(indptr[-1]).astype(np.float32))
    stored = indices if wide else indices.astype(np.uint32)
    sketches = np.zeros((40, 16), np.uint8), np.zeros((40, 0), np.uint8)
    view = _native.SegmentView(
        sketches, np.arange(40), 40, None, (indptr, stored), None, values=vectors.values
    )
    highest = np.full(129, np.inf, np.float32)
    keys, zeros = np.zeros((40, 1), np.uint32), np.zeros((40, 16), np.uint8)
    ids, scores = view.search_sparse(
        keys, zeros, indptr, indices, vectors.values, 1, 40, 40, float("-inf"), highest
    )
    for i in range(40):
        expected = {j: dense_product(vectors, i, vectors, j) for j in range(40)}
        for j, score in zip(ids[i].tolist(), scores[i].tolist(), strict=True):
            assert score == pytest.approx(expected[j], abs=1e-5)
        assert sorted(ids[i].tolist()) == list(range(40))
        assert (np.diff(scores[i]) <= 0).all()
    with pytest.raises(ValueError, match="values"):
        _native.SegmentView(
            sketches, np.arange(40), 40, None, (indptr, stored), None, values=vectors.values[1:]
        )


@pytest.mark.parametrize("engine", ENGINES)
def test_neighbours_are_found_sealed_and_not(engine: Any) -> None:
    points, queries = documents(9_000), documents(300, seed=1, of=9_000)
    exact, index = FlatIndex("cosine"), engine("cosine", expected_points=9_000)
    exact.add(points)
    index.add(points)
    _, truth = exact.search(queries, 10, threshold=0.8)
    for sealed in (False, True):
        if sealed:
            index.compact()
        ids, scores = index.search(queries, 10, threshold=0.8)
        assert (scores >= 0.8).sum() >= 0.93 * (truth >= 0.8).sum()
        normal = exact.check(points)
        asked = exact.check(queries)
        for row in range(0, 300, 60):
            for at in range(3):
                expected = dense_product(asked, row, normal, int(ids[row, at]))
                assert scores[row, at] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_files_merges_and_removals_keep_values(engine: Any, tmp_path: Path) -> None:
    points = documents(1_200)
    index = engine("cosine", capacity=500)
    index.add(points)
    index.remove(np.arange(0, 1_200, 3))
    index.save(tmp_path / "index")
    loaded = engine.load(tmp_path / "index")
    queries = points.slice(0, 200)
    for other in (loaded, engine.restored(index.parameters)):
        if other is not loaded:
            other.add(points.take(np.flatnonzero(np.arange(1_200) % 3)), _kept(1_200))
        for a, b in zip(index.search(queries, 5), other.search(queries, 5), strict=True):
            np.testing.assert_array_equal(a, b)
    index.compact()
    ids, scores = index.search(queries, 1)
    assert (ids[np.arange(200) % 3 != 0, 0] == np.flatnonzero(np.arange(200) % 3)).all()
    np.testing.assert_allclose(scores[np.arange(200) % 3 != 0, 0], 1, atol=1e-5)


def _kept(count: int) -> Any:
    return np.flatnonzero(np.arange(count) % 3)


@pytest.mark.parametrize("engine", ENGINES)
def test_dense_and_sparse_do_not_mix(engine: Any) -> None:
    index = engine("cosine")
    index.add(documents(10))
    with pytest.raises(InvalidInputError, match="sparse: give"):
        index.search(np.ones((1, 4), np.float32), 1)
    dense = engine("cosine")
    dense.add(np.eye(4, dtype=np.float32))
    with pytest.raises(InvalidInputError, match="are dense"):
        dense.add(documents(2))
    with pytest.raises(InvalidInputError, match="no direction"):
        index.add(
            SparseBatch(np.zeros(2, np.int64), np.zeros(0, np.uint64), np.zeros(0, np.float32))
        )
