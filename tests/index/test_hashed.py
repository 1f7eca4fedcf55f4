"""Indexes that keep hashes instead of features answer as others do without re-rank."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from closeby.index import FlinngIndex, InvalidInputError, LshIndex, SetBatch, SparseBatch

ENGINES = [FlinngIndex, LshIndex]
GOLDEN = Path(__file__).parents[1] / "golden" / "hashes_v1"
"""Kept for ever; written once by running this file."""


def near_sets(count: int, seed: int = 0) -> SetBatch:
    """Sets in groups of four that share most of their elements."""
    rng = np.random.default_rng(seed)
    base = np.repeat(rng.integers(0, 1 << 50, (-(-count // 4), 34)), 4, axis=0)[:count]
    elements = np.sort(np.hstack([base, rng.integers(0, 1 << 50, (count, 6))]), axis=1)
    assert (np.diff(elements) > 0).all()
    return SetBatch(np.arange(count + 1, dtype=np.int64) * 40, elements.astype(np.uint64).ravel())


def near_vectors(count: int, seed: int = 0) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(seed)
    base = np.repeat(rng.normal(size=(-(-count // 4), 48)), 4, axis=0)[:count]
    return (base + 0.3 * rng.normal(size=base.shape)).astype(np.float32)


def sparse(vectors: np.ndarray[Any, Any]) -> SparseBatch:
    count, dim = vectors.shape
    indptr = np.arange(count + 1, dtype=np.int64) * dim
    indices = np.tile(np.arange(dim, dtype=np.uint64), count)
    return SparseBatch(indptr, indices, vectors.reshape(-1))


BATCHES = {
    "jaccard": lambda n, s=0: near_sets(n, s),
    "cosine": lambda n, s=0: near_vectors(n, s),
    "sparse": lambda n, s=0: sparse(near_vectors(n, s)),
}


def rows(batch: Any, chosen: Any) -> Any:
    return batch[chosen] if isinstance(batch, np.ndarray) else batch.take(chosen)


def twins(engine: Any, kind: str, **options: Any) -> tuple[Any, Any]:
    metric = "jaccard" if kind == "jaccard" else "cosine"
    options = {"scheme": "permutations", "seed": 3, **options}
    if kind != "jaccard":
        del options["scheme"]
    return engine(metric, **options), engine(metric, keep_features=False, **options)


def same(found: tuple[Any, Any], wanted: tuple[Any, Any]) -> None:
    np.testing.assert_array_equal(found[0], wanted[0])
    np.testing.assert_array_equal(found[1], wanted[1])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", BATCHES)
def test_answers_are_those_of_an_index_that_keeps_features_without_rerank(
    engine: Any, kind: str
) -> None:
    points, queries = BATCHES[kind](700), BATCHES[kind](40)
    whole, hashed = twins(engine, kind, capacity=256)
    for index in (whole, hashed):
        index.add(rows(points, np.arange(300)))
        index.add(rows(points, np.arange(300, 700)))
        index.remove(np.arange(0, 700, 7))
    same(hashed.search(queries, 10), whole.search(queries, 10, rerank=False))
    same(hashed.search(queries, 10, rerank=False), hashed.search(queries, 10))
    for index in (whole, hashed):
        index.compact()
        index.add(rows(BATCHES[kind](40, 9), np.arange(40)), np.arange(1_000, 1_040))
    same(hashed.search(queries, 5), whole.search(queries, 5, rerank=False))


@pytest.mark.parametrize("engine", ENGINES)
def test_sealed_arrays_are_those_of_an_index_that_keeps_features(engine: Any) -> None:
    points = near_sets(9_000)
    whole, hashed = twins(engine, "jaccard", capacity=9_000, tables=32)
    for index in (whole, hashed):
        index.add(points)
        index.compact()
    (one,), (other,) = whole.sealed, hashed.sealed
    selector = [n for n in ("bitmaps", "offsets", "positions") if n in one.segment.arrays]
    assert selector
    for name in ("ids", "coarse", "fine", *selector):
        np.testing.assert_array_equal(other.segment.arrays[name], one.segment.arrays[name], name)
    assert other.segment.sample is not None  # they ask each other, by their sketches
    assert other.segment.sample.neighbours(0.5) > 256 * 2.9
    found, scores = hashed.search(points.slice(0, 100), 4)
    assert np.mean([set(row) == set(range(4 * (i // 4), 4 * (i // 4) + 4))
                    for i, row in enumerate(found)]) > 0.9  # fmt: skip
    assert "features" not in hashed.nbytes
    # 32 tables, 2 or 4 bytes each, and a sort key
    width = 2 if engine is FlinngIndex else 4
    assert hashed.nbytes["hashes"] == 9_000 * (32 * width + 16)
    assert np.nanmax(np.abs(scores)) <= 1


@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize("engine", ENGINES)
def test_hashes_can_be_made_elsewhere(engine: Any, kind: str) -> None:
    points = BATCHES[kind](300)
    _, hashed = twins(engine, kind)
    _, there = twins(engine, kind)
    for index in (hashed, there):
        index.lay_out(48 if kind == "cosine" else None, sparse=kind == "sparse")
    batch = there.hashed(points)
    assert len(batch) == 300
    assert there.hashed(batch) is batch
    hashed.add(batch)
    there.add(points)
    same(hashed.search(points, 6), there.search(points, 6))


@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize("engine", ENGINES)
def test_file_of_hashes(engine: Any, kind: str, tmp_path: Path) -> None:
    points = BATCHES[kind](500)
    _, hashed = twins(engine, kind, capacity=200)
    hashed.add(points)
    hashed.save(tmp_path / "index")
    loaded = engine.load(tmp_path / "index")
    assert not loaded.keep_features
    same(loaded.search(points, 8), hashed.search(points, 8))
    for index in (loaded, hashed):
        index.add(BATCHES[kind](200, 5))
        index.compact()
    same(loaded.search(points, 8), hashed.search(points, 8))


def golden_index(engine: Any) -> Any:
    """Sealed points, which need no random numbers, and others behind them; some are removed."""
    sets = [[i % 10 * 1000 + j for j in range(i % 4, 30)] for i in range(40)]
    index = engine(
        "jaccard", 7, tables=8, K=1, sketch_bits=128, capacity=16, keep_features=False,
        scheme="permutations",
    )  # fmt: skip
    index.add(sets, np.arange(40) * 3 + 100)
    index.remove([115, 118])
    return index


@pytest.mark.parametrize("engine", ENGINES)
def test_files_of_version_1_load_and_answer(engine: Any) -> None:
    loaded, index = engine.load(GOLDEN / f"{engine.kind}-hashes.closeby"), golden_index(engine)
    assert len(loaded) == 38
    queries = [list(range(30)), [3000 + j for j in range(2, 28)], [2**60]]
    same(loaded.search(queries, 40), index.search(queries, 40))
    for one in (loaded, index):
        one.add([[9, 8, 7]])
        one.compact()
    same(loaded.search([[7, 8, 9], *queries], 40), index.search([[7, 8, 9], *queries], 40))


def test_hashes_of_others_are_refused() -> None:
    points = near_sets(10)
    batch = FlinngIndex(keep_features=False, tables=32).hashed(points)
    other = FlinngIndex(keep_features=False, tables=33)
    other.lay_out()
    with pytest.raises(InvalidInputError, match="other parameters"):
        other.add(batch)
    with pytest.raises(InvalidInputError, match="lay_out"):
        FlinngIndex(keep_features=False, tables=32).add(batch)
    with pytest.raises(InvalidInputError):
        FlinngIndex(tables=32).add(batch)
    with pytest.raises(InvalidInputError):
        FlinngIndex(keep_features=False, tables=32).search(batch, 3)


def test_nothing_is_an_index_too() -> None:
    index = FlinngIndex(keep_features=False)
    assert len(index.hashed([])) == 0
    index.add([])
    index.compact()
    found, scores = index.search([[1, 2]], 3)
    assert (found == -1).all()
    assert np.isnan(scores).all()
    index.add([[], [1, 2, 3]])
    assert index.search([[], [1, 2, 3]], 1)[0].ravel().tolist() == [-1, 1]


if __name__ == "__main__":
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for made in ENGINES:
        if not (path := GOLDEN / f"{made.kind}-hashes.closeby").exists():
            golden_index(made).save(path)
