from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pytest
import scipy.sparse
from closeby.index import (
    CorruptFileError,
    FlatIndex,
    InvalidInputError,
    as_set_batch,
    as_sparse_batch,
)
from closeby.index.engine import Metric
from hypothesis import given
from hypothesis import strategies as st

sets = st.lists(st.sets(st.integers(0, 12), max_size=6), max_size=20)


def brute_force(
    similarities: dict[int, float], k: int, least: float
) -> tuple[list[int], list[float]]:
    names, scores = oracle.top(similarities, k, least)
    fill = k - len(names)
    return names + [-1] * fill, scores + [float("nan")] * fill


@given(sets, sets, st.integers(1, 25), st.sampled_from([None, 0.0, 0.3, 1.0]), st.data())
def test_sets_are_ranked_by_jaccard_then_id(
    points: list[set[int]], queries: list[set[int]], k: int, threshold: Any, data: Any
) -> None:
    names = data.draw(st.permutations(range(100, 100 + len(points))))
    removed = data.draw(st.sets(st.sampled_from(names))) if points else set()
    index = FlatIndex()
    half = len(points) // 2
    index.add(points[:half], names[:half])
    index.add(points[half:], names[half:])
    assert index.remove(sorted(removed)) == len(removed)
    assert len(index) == len(points) - len(removed)
    ids, scores = index.search(queries, k, threshold)
    assert ids.shape == scores.shape == (len(queries), k)
    assert (ids.dtype, scores.dtype) == (np.int64, np.float32)
    for row, query in enumerate(queries):
        exact = {
            name: float(oracle.jaccard(s, query))
            for name, s in zip(names, points, strict=True)
            if name not in removed
        }
        # A point that shares nothing is no neighbour, whatever the threshold.
        least = max(float(np.float32(threshold or 0)), 1e-30)
        expected_ids, expected = brute_force(exact, k, least)
        assert ids[row].tolist() == expected_ids
        np.testing.assert_array_equal(scores[row], np.float32(expected))


@pytest.mark.parametrize("metric", ["cosine", "ip"])
def test_vectors_are_ranked_by_cosine_or_inner_product(metric: Any) -> None:
    random = np.random.default_rng(5)
    points, queries = random.standard_normal((300, 20)), random.standard_normal((40, 20))
    index = FlatIndex(metric)
    index.add(points[:100])
    index.add(points[100:])
    index.remove(range(0, 300, 7))
    exact = queries @ points.T
    if metric == "cosine":
        norms = np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(points, axis=1)
        exact = exact / norms
    exact[:, ::7] = -np.inf
    expected = np.argsort(-exact, axis=1)[:, :10]
    ids, scores = index.search(queries, 10)
    np.testing.assert_array_equal(ids, expected)
    np.testing.assert_allclose(
        scores, np.take_along_axis(exact, expected, axis=1), rtol=1e-5, atol=1e-5
    )
    least = float(scores[0, 4] + scores[0, 5]) / 2
    above, _ = index.search(queries[:1], 10, least)
    assert above[0].tolist() == [*ids[0, :5], *[-1] * 5]


def test_negative_similarities_are_hits_of_vectors() -> None:
    for metric in ("cosine", "ip"):
        index = FlatIndex(metric)  # type: ignore[arg-type]
        index.add([[1.0, 0.0], [-2.0, 0.0]])
        ids, _ = index.search([[-1.0, 0.0]], 3)
        assert ids.tolist() == [[1, 0, -1]]


def test_equal_scores_go_by_id() -> None:
    index = FlatIndex("ip")
    index.add(np.ones((5, 3)), [9, 3, 7, 1, 5])
    assert index.search(np.ones((1, 3)), 3)[0].tolist() == [[1, 3, 5]]
    jaccard = FlatIndex()
    jaccard.add([[1, 2]] * 5, [9, 3, 7, 1, 5])
    assert jaccard.search([[1, 2]], 3)[0].tolist() == [[1, 3, 5]]


def test_cosine_of_vectors_of_any_length() -> None:
    index = FlatIndex("cosine")
    index.add([[1e-30, 1e-30], [3e38, 3e38], [1e-44, 0.0]])
    _, scores = index.search([[5.0, 5.0]], 2)
    np.testing.assert_allclose(scores, 1, rtol=1e-6)
    ids, scores = index.search([[1e38, 0.0]], 1)
    assert ids.tolist() == [[2]]
    assert scores[0, 0] == 1


def test_ids_are_numbers_of_arrival_unless_given() -> None:
    index = FlatIndex()
    index.add([[1], [2]])
    index.add([[3]], [10])
    index.add([[4], [5]])
    assert index.search([[4], [5], [3]], 1)[0].ravel().tolist() == [11, 12, 10]


@pytest.mark.parametrize(
    "ids",
    [[0, 0], [1], [[0, 1]], [-1, 2], [0.0, 1.0], ["a", "b"], [2**63, 1], [True, False], [None, 1]],
)
def test_bad_ids_are_refused_and_change_nothing(ids: Any) -> None:
    index = FlatIndex()
    with pytest.raises(InvalidInputError) as caught:
        index.add([[1], [2]], ids)
    assert caught.value.field == "ids"
    assert len(index) == 0


def test_ids_that_are_present_are_refused_until_removed() -> None:
    index = FlatIndex()
    index.add([[1]], [5])
    with pytest.raises(InvalidInputError, match="id 5 is in the index"):
        index.add([[2], [3]], [4, 5])
    assert len(index) == 1
    assert index.remove([5, 5, 6]) == 1
    assert index.remove(5) == 0
    index.add([[2]], [5])
    assert index.search([[1], [2]], 1)[0].tolist() == [[-1], [5]]


@pytest.mark.parametrize("metric", ["jaccard", "cosine", "ip"])
def test_an_empty_index_and_no_queries(metric: Any, tmp_path: Path) -> None:
    index = FlatIndex(metric)
    query = [[1, 2]] if metric == "jaccard" else [[1.0, 2.0]]
    none = [] if metric == "jaccard" else np.zeros((0, 2), np.float32)
    index.add(none)
    index.save(tmp_path / "empty")
    for empty in (index, FlatIndex.load(tmp_path / "empty")):
        ids, scores = empty.search(query, 3)
        assert ids.tolist() == [[-1, -1, -1]]
        assert np.isnan(scores).all()
        assert len(empty) == 0
        assert empty.remove([1]) == 0
    index.add(query)
    assert index.search(none, 3)[0].shape == (0, 3)
    index.remove([0])
    assert index.search(query, 3)[0].tolist() == [[-1, -1, -1]]


def test_unusable_input_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="metric"):
        FlatIndex("hamming")  # type: ignore[arg-type]
    index = FlatIndex("cosine")
    with pytest.raises(InvalidInputError, match="no direction"):
        index.add([[1.0, 2.0], [0.0, 0.0]])
    index.add([[1.0, 2.0]])
    for vectors in ([[1.0]], [[1.0, 2.0, 3.0]], [[np.nan, 1.0]], [[0.0, 0.0]]):
        with pytest.raises(InvalidInputError):
            index.search(vectors, 1)
        with pytest.raises(InvalidInputError):
            index.add(vectors)
    for k in (0, -1, 1.5, True, None, "3"):
        with pytest.raises(InvalidInputError):
            index.search([[1.0, 2.0]], k)  # type: ignore[arg-type]
    for threshold in (np.nan, np.inf, True):
        with pytest.raises(InvalidInputError):
            index.search([[1.0, 2.0]], 1, threshold)
    assert len(index) == 1


@pytest.mark.parametrize("metric", ["jaccard", "cosine", "ip"])
def test_a_file_holds_what_is_not_removed(metric: Any, tmp_path: Path) -> None:
    random = np.random.default_rng(6)
    points: Any = random.standard_normal((50, 9)).astype(np.float32)
    if metric == "jaccard":
        points = as_set_batch(list(random.integers(0, 40, (50, 9))))
    index = FlatIndex(metric)
    index.add(points, np.arange(50) * 2 + 1)
    index.remove([1, 99, 51])
    index.save(tmp_path / "file")
    loaded = FlatIndex.load(tmp_path / "file")
    ids, scores = loaded.search(points, 60)
    expected_ids, expected = index.search(points, 60)
    np.testing.assert_array_equal(ids, expected_ids)
    # The matrix product rounds by the shape of the matrix, which has no removed points any more.
    tolerance = 0 if metric == "jaccard" else 3e-6
    np.testing.assert_allclose(scores, expected, rtol=0, atol=tolerance)
    assert loaded.nbytes.keys() == {"ids", "features"}
    assert loaded.explain()["points"] == 47
    assert loaded.recall_estimate() == 1


def test_searches_while_points_come_and_go() -> None:
    """A search sees a state that was complete: hits with the right scores, none removed before."""
    index = FlatIndex()
    index.add([[0, 1, 2, 3]], [0])
    failures: list[BaseException] = []
    done = threading.Event()

    def read() -> None:
        try:
            while not done.is_set():
                ids, scores = index.search([[0, 1, 2, 3]], 5)
                assert ids[0, 0] == 0
                assert scores[0, 0] == 1
                assert set(scores[0, 1:][ids[0, 1:] >= 0].tolist()) <= {np.float32(3 / 5)}
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for i in range(1, 1500):
        index.add([[0, 1, 2, 10 + i]], [i])
        if i % 3 == 0:
            index.remove([i - 1])
    done.set()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]


@pytest.mark.parametrize("metric", ["jaccard", "cosine", "ip"])
def test_segments_sealed_into_files_answer_as_one_index(metric: Metric, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    batch: Any
    if metric == "jaccard":
        sets = [rng.choice(60, rng.integers(1, 20), replace=False) for _ in range(100)]
        batch = as_set_batch([[int(e) for e in s] + [1 << 40] for s in sets])
    else:
        batch = rng.normal(size=(100, 7)).astype(np.float32)
    ids = rng.permutation(1000)[:100].astype(np.int64)
    whole, sealed = FlatIndex(metric), FlatIndex(metric, capacity=8)
    written: dict[Any, tuple[int, Path]] = {}

    def build(merge: Any) -> None:
        path = tmp_path / f"segment-{len(list(tmp_path.iterdir()))}"
        segment = merge.build(path)
        sealed.finish(merge, segment)
        written[segment] = (merge.chunks, path)

    for index in (whole, sealed):
        index.add(batch, ids)
        assert index.remove(ids[[3, 50, 99]]) == 3
    while (merge := sealed.next_seal()) is not None:
        build(merge)
    while (merge := sealed.next_tier()) is not None:
        build(merge)
    gone = ids[[7, 98]]
    assert whole.remove(gone) == sealed.remove(gone) == 2
    for k, threshold in ((5, None), (120, 0.2)):
        expected, found = (index.search(batch, k, threshold) for index in (whole, sealed))
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_allclose(found[1], expected[1], rtol=1e-6)
    assert len(sealed) == len(whole) == 95
    files = [written[each.segment] for each in sealed._segments.sealed]
    again = FlatIndex.restored(sealed.parameters, files)
    again.remove(gone)
    # What was not sealed is not in the files.
    kept = [i for i in range(96) if ids[i] not in {*gone, *ids[[3, 50]]}]
    assert len(again) == len(kept)
    fresh = FlatIndex(metric)
    fresh.add(batch.take(np.array(kept)) if metric == "jaccard" else batch[kept], ids[kept])
    np.testing.assert_array_equal(again.search(batch, 9)[0], fresh.search(batch, 9)[0])
    with pytest.raises(CorruptFileError):
        FlatIndex.restored(sealed.parameters | {"dim": 5}, files)
    path = files[0][1]
    content = bytearray(path.read_bytes())
    content[len(content.rstrip(b"\0")) - 1] ^= 1  # behind it is padding
    path.write_bytes(content)
    with pytest.raises(CorruptFileError, match=path.name):
        FlatIndex.restored(sealed.parameters, files)


# --- sparse vectors ------------------------------------------------------------------------------


def sparse_matrix(rows: int = 60, seed: int = 5) -> Any:
    matrix = scipy.sparse.random(rows, 300, 0.05, "lil", random_state=seed, dtype=np.float32)
    matrix[:, 0] = 0.01  # no row without direction
    return matrix.tocsr()


def check_against_dense(index: FlatIndex, matrix: Any, alive: np.ndarray, metric: str) -> None:
    dense = FlatIndex(metric)  # type: ignore[arg-type]
    dense.add(matrix.toarray()[alive], alive)
    ids, scores = index.search(matrix[:10], 7)
    expected_ids, expected = dense.search(matrix[:10].toarray(), 7)
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-6)
    apart = np.abs(np.diff(expected, axis=1)).min(axis=1) > 1e-5
    assert apart.any()
    np.testing.assert_array_equal(ids[apart], expected_ids[apart])


@pytest.mark.parametrize("metric", ["cosine", "ip"])
def test_sparse_vectors_are_found_as_dense_ones_are(metric: Any, tmp_path: Path) -> None:
    matrix = sparse_matrix()
    index = FlatIndex(metric)
    index.add(matrix[:25])
    index.add(as_sparse_batch(matrix[25:]))
    check_against_dense(index, matrix, np.arange(60), metric)
    assert index.remove([3, 30]) == 2
    alive = np.delete(np.arange(60), [3, 30])
    check_against_dense(index, matrix, alive, metric)
    index.save(tmp_path / "sparse")
    loaded = FlatIndex.load(tmp_path / "sparse")
    check_against_dense(loaded, matrix, alive, metric)
    loaded.add(matrix[:1], [99])
    assert loaded.search(matrix[:1], 2)[0][0, 1] == 99 or metric == "ip"


def test_sparse_segments_of_files_are_searched_as_the_points_were(tmp_path: Path) -> None:
    matrix = sparse_matrix()
    index = FlatIndex("cosine", capacity=20)
    index.add(matrix)
    index.remove([7])
    index.freeze()
    paths = []
    while (merge := index.next_seal()) is not None:
        paths.append(tmp_path / f"{len(paths)}")
        index.finish(merge, merge.build(paths[-1]))
    check_against_dense(index, matrix, np.delete(np.arange(60), 7), "cosine")
    again = FlatIndex.restored(index.parameters, [(1, path) for path in paths])
    again.remove([7])
    check_against_dense(again, matrix, np.delete(np.arange(60), 7), "cosine")
    with pytest.raises(InvalidInputError, match="are sparse"):
        again.add(matrix.toarray())


def test_dense_and_sparse_vectors_do_not_mix() -> None:
    matrix = sparse_matrix()
    dense, sparse = FlatIndex("cosine"), FlatIndex("cosine")
    dense.add(matrix.toarray())
    sparse.add(matrix)
    with pytest.raises(InvalidInputError, match="are dense"):
        dense.search(matrix, 1)
    with pytest.raises(InvalidInputError, match="are sparse"):
        sparse.search(matrix.toarray(), 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.tocsc(), "CSR"),
        (lambda m: m.astype(complex), "numbers"),
        (lambda m: m * np.float32(np.inf), "finite"),
        (lambda m: m.astype(np.float64) * 1e300, "finite"),
        (lambda m: m * 0, "no direction"),
    ],
)
def test_unusable_sparse_vectors_are_refused(change: Any, message: str) -> None:
    index = FlatIndex("cosine")
    with pytest.raises(InvalidInputError, match=message):
        index.add(change(sparse_matrix()))
    assert len(index) == 0
