"""Parameters fitted to a sample: what is alike takes longer keys, and memory is kept to."""

from __future__ import annotations

import numpy as np
import pytest
from closeby.index import (
    FlinngIndex,
    InvalidInputError,
    LshIndex,
    SetBatch,
    SparseBatch,
    fit_lsh,
    fit_sets,
)


def sets_of(universe: int, n: int = 3_000, size: int = 40) -> SetBatch:
    """Random sets whose pairs have a Jaccard similarity of about size / (2 universe)."""
    rng = np.random.default_rng(0)
    rows = [np.sort(rng.choice(universe, size, replace=False)).astype(np.uint64) for _ in range(n)]
    return SetBatch(np.arange(n + 1, dtype=np.int64) * size, np.concatenate(rows))


def test_sets_that_are_alike_get_longer_keys() -> None:
    apart = fit_sets(sets_of(1_000_000), expected_points=1_000_000)
    alike = fit_sets(sets_of(300), expected_points=1_000_000)
    assert (apart["K"], apart["tables"]) == (1, 32)
    assert alike["K"] > 1
    assert alike["tables"] > apart["tables"]
    assert fit_sets(sets_of(300), expected_points=1_000_000) == alike


@pytest.mark.parametrize("memory", [29, 40, 60, 90, 120])
def test_memory_is_kept_to_and_predicted(memory: int) -> None:
    points = sets_of(300, n=20_000)
    fitted = fit_sets(points, expected_points=len(points), memory_bytes_per_point=memory)
    index = FlinngIndex(**fitted)
    index.add(points)
    index.compact()
    held = sum(size for part, size in index.nbytes.items() if part != "features")
    predicted = index.explain()["predicted_bytes_per_point"]
    assert held / len(points) == pytest.approx(predicted, rel=0.02)
    # What the segment keeps of its samples, of up to 384 points whatever its size, comes on top.
    segment = index.sealed[0].segment
    learnt = segment.selector.calibration.arrays | segment.sample.arrays
    bounded = predicted - sum(array.nbytes for array in learnt.values()) / len(points)
    # A bitmap's end is filled up to 32 bytes: of so few points, that is a tenth.
    assert bounded <= memory * 1.1


def test_what_cannot_be_fitted_is_refused() -> None:
    sets = sets_of(1_000, n=10)
    with pytest.raises(InvalidInputError, match="at least 29"):
        fit_sets(sets, expected_points=10, memory_bytes_per_point=28)
    with pytest.raises(InvalidInputError, match="two sets"):
        fit_sets([[1], []], expected_points=10)
    with pytest.raises(InvalidInputError, match="target_recall"):
        fit_sets(sets, expected_points=10, target_recall=2)


def test_points_that_are_alike_get_longer_keys_and_meet_fewer_strangers() -> None:
    apart, alike = sets_of(1_000_000), sets_of(120)
    told = {}
    for name, sets in (("apart", apart), ("alike", alike)):
        fitted = fit_lsh(sets, expected_points=len(sets), threshold=0.6)
        index = LshIndex(capacity=4_096, **fitted)
        index.add(sets)
        index.compact()
        told[name] = index.explain() | fitted
    assert told["alike"]["K"] > told["apart"]["K"]
    unfitted = LshIndex(capacity=4_096, expected_points=len(alike), threshold=0.6)
    unfitted.add(alike)
    unfitted.compact()
    met = told["alike"]["expected_candidates"]
    assert met < unfitted.explain()["expected_candidates"]


def test_tables_are_fitted_to_vectors_too() -> None:
    random = np.random.default_rng(1)
    centre = random.standard_normal(60)
    vectors = random.standard_normal((500, 60))
    apart = fit_lsh(vectors, "cosine", expected_points=100_000)
    alike = fit_lsh(vectors + centre, "cosine", expected_points=100_000)
    assert alike["K"] > apart["K"]
    assert apart["threshold"] == 0.8
    indptr, indices = np.arange(501) * 60, np.tile(np.arange(60, dtype=np.uint64), 500)
    sparse = SparseBatch(indptr, indices, vectors.astype(np.float32).reshape(-1))
    assert fit_lsh(sparse, "cosine", expected_points=100_000) == apart
    assert LshIndex("cosine", **apart).tables == apart["tables"]
    with pytest.raises(InvalidInputError, match="two points"):
        fit_lsh(vectors[:1], "cosine", expected_points=10)
    with pytest.raises(InvalidInputError, match="metric"):
        fit_lsh(vectors, "ip", expected_points=10)
