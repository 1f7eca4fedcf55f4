"""LSH tables: kernels against their twins, recall floors, predictions, and the life of points."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pytest
from closeby.index import (
    CorruptFileError,
    FlatIndex,
    FlinngIndex,
    InvalidInputError,
    LshIndex,
    SetBatch,
    _native,
    as_set_batch,
    featurizer_from,
    tuning,
)
from closeby.loaders import samples
from hypothesis import given
from hypothesis import strategies as st

# --- kernels -------------------------------------------------------------------------------------


def tables_of(keys: np.ndarray, range_bits: int) -> tuple[np.ndarray, np.ndarray]:
    """(offsets, positions) as the kernel makes them."""
    positions = keys.T.copy()  # the kernel sorts in place
    offsets = np.full((keys.shape[1], (1 << range_bits) + 1), 99, np.uint32)
    _native.sort_postings(positions, offsets)
    return offsets, positions


def random_keys(seed: int, n: int, tables: int, different: int = 9) -> np.ndarray:
    random = np.random.default_rng(seed)
    known = random.integers(0, 2**32, (different, tables), dtype=np.uint32)
    return np.take_along_axis(known, random.integers(0, different, (n, tables)), axis=0)


def view_of(keys: np.ndarray, range_bits: int, dead: Any = None, **changed: Any) -> Any:
    n = len(keys)
    parts = {
        "sketches": (np.zeros((n, 16), np.uint8), np.zeros((n, 0), np.uint8)),
        "ids": np.arange(n),
        "points": n,
        "dead": dead,
        "sets": (np.zeros(n + 1, np.int64), np.zeros(0, np.uint32)),
        "vectors": None,
        "postings": tables_of(keys, range_bits),
    }
    return _native.SegmentView(**(parts | changed))


@given(st.integers(0, 300), st.integers(1, 7), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_postings_list_every_point_by_bucket(
    n: int, tables: int, range_bits: int, seed: int
) -> None:
    keys = random_keys(seed, n, tables, 40)
    offsets, positions = tables_of(keys, range_bits)
    for t in range(tables):
        buckets = (keys[:, t].astype(np.int64) >> (32 - range_bits)).tolist()
        expected = [[i for i in range(n) if buckets[i] == b] for b in range(1 << range_bits)]
        bounds = offsets[t].tolist()
        assert bounds[0] == 0
        assert [positions[t, a:b].tolist() for a, b in itertools.pairwise(bounds)] == expected


@pytest.mark.usefixtures("instruction_set")
@given(
    n=st.integers(0, 5_000),
    tables=st.integers(1, 20),
    probed=st.integers(1, 25),
    range_bits=st.integers(1, 8),
    seed=st.integers(0, 2**32 - 1),
)
def test_candidates_are_the_points_of_the_buckets(
    n: int, tables: int, probed: int, range_bits: int, seed: int
) -> None:
    """Each once, in order, whatever was asked before; equal sketches keep the order."""
    keys = random_keys(seed, n, tables, 300)
    queries = random_keys(seed, 4, tables, 300)
    dead = np.zeros(-(-n // 8), np.uint8)
    dead[::3] = 0b1010
    removed = {i for i in range(n) if dead[i >> 3] >> (i & 7) & 1}
    view = view_of(keys, range_bits, dead)
    for _ in range(2):
        found, _ = view.candidates(queries, np.zeros((4, 16), np.uint8), probed, max(1, n))
        for query, row in zip(queries, found, strict=True):
            mates = oracle.bucket_mates(keys, query, range_bits, min(probed, tables))
            assert row[row >= 0].tolist() == [i for i in mates if i not in removed]


def test_marks_of_many_points() -> None:
    """More points than one word of the uppermost marks covers."""
    n = 70_000 * 8
    keys = np.arange(n, dtype=np.uint32)[:, None] << np.uint32(12)
    view = view_of(keys, 20)
    places = np.array([0, 63, 64, 4_095, 4_096, 262_143, 262_144, n - 1])
    queries = keys[places].copy()
    found, _ = view.candidates(queries, np.zeros((len(places), 16), np.uint8), 1, 3)
    assert found[:, 0].tolist() == places.tolist()
    assert (found[:, 1:] == -1).all()


def test_postings_that_lie_are_passed_over() -> None:
    """Files are mapped and may be wrong: nothing outside is read, nothing wrong is answered."""
    keys = random_keys(1, 100, 3)
    offsets, positions = tables_of(keys, 4)
    sketches = np.zeros((2, 16), np.uint8)
    for bad in (np.full_like(offsets, 2**32 - 1), offsets[:, ::-1].copy(), offsets):
        wrong = (bad, np.full_like(positions, 2**32 - 1))
        found, _ = view_of(keys, 4, postings=wrong).candidates(keys[:2], sketches, 3, 10)
        assert (found == -1).all()


@pytest.mark.parametrize(
    "postings",
    [
        (np.zeros((3, 16), np.uint32), np.zeros((3, 100), np.uint32)),
        (np.zeros((2, 17), np.uint32), np.zeros((3, 100), np.uint32)),
        (np.zeros((3, 17), np.uint32), np.zeros((3, 99), np.uint32)),
        (np.zeros((0, 17), np.uint32), np.zeros((0, 100), np.uint32)),
        (np.zeros((3, 17), np.uint32), np.zeros((3, 100), np.int32)),
        (np.zeros((3, 17), np.uint32),),
        (None, None),
    ],
)
def test_postings_that_do_not_fit_are_refused(postings: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        view_of(random_keys(1, 100, 3), 4, postings=postings)


def test_a_segment_has_bitmaps_or_postings() -> None:
    with pytest.raises(ValueError, match="bitmaps or postings"):
        view_of(random_keys(1, 100, 3), 4, bitmaps=np.zeros((3, 16, 32), np.uint8))


# --- parameters ----------------------------------------------------------------------------------


@pytest.mark.parametrize("s", [0.01, 0.0625, 0.5, 0.99, 1.0])
@pytest.mark.parametrize("target", [0.5, 0.95, 0.9999])
def test_so_many_tables_are_enough_and_one_fewer_is_not(s: float, target: float) -> None:
    tables = tuning.postings_tables_for(s, target)
    assert tuning.postings_recall(s, tables) >= target - 1e-9
    assert tables == 1 or tuning.postings_recall(s, tables - 1) < target


def test_more_points_take_more_hashes() -> None:
    chosen = [LshIndex(expected_points=n).K for n in (10_000, 10**6, 10**8, 10**10)]
    assert chosen == sorted(chosen)
    assert chosen[0] < chosen[-1]


@pytest.mark.parametrize(
    "options",
    [
        {"K": 0},
        {"K": 17},
        {"tables": 0},
        {"tables": 1025},
        {"threshold": 0.05, "K": 16},
        {"metric": "cosine", "K": 33},
        {"metric": "ip"},
    ],
)
def test_parameters_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        LshIndex(**options)


def planted(similarity: float, queries: int, points: int) -> tuple[SetBatch, SetBatch]:
    """Points that share nothing with each other, and queries at this Jaccard of one point each."""
    size = 60
    shared = round(size * 2 * similarity / (1 + similarity))
    own = np.arange(points * size, dtype=np.uint64).reshape(points, size)
    away = own[:queries].copy()
    away[:, shared:] += np.uint64(1 << 40)
    return as_set_batch(list(own)), as_set_batch(list(away))


@pytest.mark.parametrize("target", [0.6, 0.8, 0.95])
@pytest.mark.parametrize("K", [2, 4, None])
def test_recall_of_planted_sets_is_what_was_predicted(target: float, K: int | None) -> None:
    points, queries = planted(0.5, 3_000, 12_000)
    index = LshIndex(K=K, capacity=12_000, target_recall=0.97)
    index.add(points)
    ids, _ = index.search(queries, 1, target_recall=target)
    measured = float((ids[:, 0] == np.arange(3_000)).mean())
    predicted = index.recall_estimate(target)
    assert predicted >= target
    assert measured == pytest.approx(predicted, abs=0.03)


@pytest.mark.parametrize("target", [0.6, 0.95])
def test_recall_of_planted_vectors_is_what_was_predicted(target: float) -> None:
    random = np.random.default_rng(3)
    points = random.standard_normal((12_000, 200)).astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    noise = random.standard_normal((3_000, 200))
    noise -= (noise * points[:3_000]).sum(axis=1, keepdims=True) * points[:3_000]
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    index = LshIndex("cosine", capacity=12_000, expected_points=12_000)
    index.add(points)
    ids, _ = index.search(0.8 * points[:3_000] + 0.6 * noise, 1, target_recall=target)
    measured = float((ids[:, 0] == np.arange(3_000)).mean())
    assert measured == pytest.approx(index.recall_estimate(target), abs=0.03)


def test_what_is_explained_is_what_is_there() -> None:
    points, _ = planted(0.5, 1, 20_000)
    index = LshIndex(capacity=20_000, expected_points=20_000)
    index.add(points)
    explained = index.explain()
    own = {name: size for name, size in index.nbytes.items() if name != "features"}
    assert explained["predicted_bytes_per_point"] == pytest.approx(
        sum(own.values()) / 20_000, rel=0.01
    )
    assert explained["predicted_recall"] >= 0.95
    assert explained["segments"][0]["tables"] == index.tables
    # Unrelated points: a query meets itself and, in each table, what agrees by chance.
    assert index.tables <= explained["expected_candidates"] < 6 * index.tables


# --- real data -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def urls() -> SetBatch:
    chosen = np.random.default_rng(1).permutation(np.array(samples.urls()))[:20_000]
    return featurizer_from({"kind": "shingles"}).features(chosen.tolist())


def tie_recall(scores: np.ndarray, expected: np.ndarray) -> float:
    real = ~np.isnan(expected)
    return float((scores[real] >= expected[real]).mean())


@pytest.mark.parametrize("capacity", [20_000, 3_000])
def test_recall_of_urls(urls: SetBatch, capacity: int) -> None:
    exact, index = FlatIndex(), LshIndex(capacity=capacity)
    queries = urls.take(np.arange(0, 20_000, 50))
    exact.add(urls)
    index.add(urls)
    _, expected = exact.search(queries, 10, threshold=0.5)
    _, scores = index.search(queries, 10, threshold=0.5)
    assert tie_recall(scores, expected) >= 0.97
    assert (scores[:, 0] == 1).all()
    _, fewer = index.search(queries, 10, threshold=0.5, target_recall=0.5)
    assert tie_recall(fewer, expected) < tie_recall(scores, expected)


def test_recall_of_genes() -> None:
    genes = featurizer_from({"kind": "kmers", "k": 16}).features(
        [gene.sequence for gene in samples.genes()]
    )
    exact, index = FlatIndex(), LshIndex(capacity=2_000)
    exact.add(genes)
    index.add(genes)
    queries = genes.take(np.arange(0, len(genes), 10))
    _, expected = exact.search(queries, 10, threshold=0.5)
    _, scores = index.search(queries, 10, threshold=0.5)
    assert tie_recall(scores, expected) >= 0.97


# --- the life of points --------------------------------------------------------------------------


def answers(index: Any, queries: Any) -> tuple[np.ndarray, np.ndarray]:
    ids, scores = index.search(queries, 5, threshold=0.4)
    return ids, scores


def same(left: Any, right: Any) -> None:
    for ours, theirs in zip(left, right, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("metric", ["jaccard", "cosine"])
def test_answers_do_not_depend_on_batches_and_survive_a_file(
    urls: SetBatch, metric: str, tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    vectors = np.repeat(random.standard_normal((1_000, 40)), 5, axis=0)
    vectors = (vectors + 0.3 * random.standard_normal(vectors.shape)).astype(np.float32)
    points: Any = urls.slice(0, 5_000) if metric == "jaccard" else vectors
    queries = points.take(np.arange(0, 5_000, 9)) if metric == "jaccard" else vectors[::9]
    options: dict[str, Any] = {"capacity": 1_100, "expected_points": 5_000}
    whole, pieces = LshIndex(metric, 3, **options), LshIndex(metric, 3, **options)
    whole.add(points)
    for start in range(0, 5_000, 700):
        stop = min(start + 700, 5_000)
        piece = points.slice(start, stop) if metric == "jaccard" else points[start:stop]
        pieces.add(piece, np.arange(start, stop))
    expected = answers(whole, queries)
    assert (expected[0][:, 1] >= 0).mean() > 0.3
    same(answers(pieces, queries), expected)
    assert pieces.remove(np.arange(0, 5_000, 2)) == 2_500
    kept = answers(pieces, queries)
    assert (kept[0][kept[0] >= 0] % 2 == 1).all()
    pieces.save(tmp_path / "lsh.closeby")
    loaded = LshIndex.load(tmp_path / "lsh.closeby")
    assert len(loaded) == 2_500
    same(answers(loaded, queries), kept)
    assert loaded.explain()["K"] == pieces.K
    pieces.compact()
    # What only the scan of the mutable segment found, far below the threshold, may be missed now.
    near = np.where(kept[1] >= pieces.threshold, kept[1], np.nan)
    assert tie_recall(answers(pieces, queries)[1], near) > 0.97
    with pytest.raises(CorruptFileError):
        FlinngIndex.load(tmp_path / "lsh.closeby")


def test_instruction_sets_agree_on_whole_answers(urls: SetBatch) -> None:
    points = urls.slice(0, 3_000)
    found = []
    for name in _native.instruction_sets():
        _native.use_instruction_set(name)
        index = LshIndex(capacity=1_024)
        index.add(points)
        found.append(answers(index, points.slice(0, 300)))
    _native.use_instruction_set("best")
    for other in found[1:]:
        same(other, found[0])


def test_one_seed_one_answer_and_empty_sets_find_nothing() -> None:
    points, _ = planted(0.5, 1, 2_000)
    index = LshIndex(capacity=2_000)
    index.add(SetBatch.concat([points, as_set_batch([[], []])]))
    ids, _ = index.search(as_set_batch([[]]), 3)
    assert (ids == -1).all()
    ids, scores = index.search(points.slice(5, 6), 3)
    assert ids.tolist() == [[5, -1, -1]]
    assert scores[0, 0] == 1
    assert LshIndex().search(points.slice(0, 2), 4)[0].shape == (2, 4)


@pytest.mark.parametrize("threshold", [1e-3, 1e-300, 5e-324])
def test_a_threshold_that_no_tables_find_is_refused(threshold: float) -> None:
    with pytest.raises(InvalidInputError, match="too far for LSH tables"):
        LshIndex("jaccard", threshold=threshold)
