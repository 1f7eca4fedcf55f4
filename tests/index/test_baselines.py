import faiss
import numpy as np
import pytest
from closeby.index.baselines import BinaryHnswIndex
from closeby.index.batches import as_set_batch
from closeby.index.errors import InvalidInputError
from closeby.index.flat import FlatIndex
from closeby.index.minhash import MinHashFamily


@pytest.fixture(scope="module")
def families():
    """1,000 sets in 100 families: the first of each, and nine that share 60 of its 80 elements."""
    rng = np.random.default_rng(7)
    sets = []
    for _ in range(100):
        first = rng.integers(0, 2**63, 80, dtype=np.uint64)
        sets.append(first)
        for _ in range(9):
            sets.append(np.concatenate((first[:60], rng.integers(0, 2**63, 20, dtype=np.uint64))))
    return as_set_batch(sets)


def built(families, **options):
    index = BinaryHnswIndex(**options)
    index.add(families.slice(0, 400))
    index.add(families.slice(400, 1000))
    return index


def test_finds_the_family_of_each_query(families):
    queries = families.take(range(0, 1000, 10))
    ids, scores = built(families).search(queries, 10)
    assert np.mean(ids // 10 == np.arange(100)[:, None]) > 0.99
    assert np.all(scores[:, 0] == 1)
    assert np.all(np.diff(scores, axis=1) <= 0)
    # The others share 60 of 100 elements; a 512-bit estimate has a deviation of about .035.
    assert np.mean(scores[:, 1:]) == pytest.approx(0.6, abs=0.02)


def test_sketches_in_place_of_sets_give_the_same(families):
    sketches = MinHashFamily(3, tables=0, sketch_bits=256).sketch(families)
    by_sets = built(families, seed=3, sketch_bits=256)
    by_sketches = BinaryHnswIndex(sketch_bits=256)
    by_sketches.add(sketches[:400])
    by_sketches.add(sketches[400:])
    for ours, theirs in zip(
        by_sets.search(families, 5), by_sketches.search(sketches, 5), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_exact_rerank_gives_exact_scores(families):
    exact = FlatIndex()
    exact.add(families)
    queries = families.take(range(50))
    ids, scores = built(families, candidates=50).search(queries, 10)
    expected_ids, expected = exact.search(queries, 10)
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_array_equal(scores, expected)


def test_ids_threshold_and_short_answers(families):
    index = BinaryHnswIndex(ef_search=64)
    index.add(families.slice(0, 20), ids=np.arange(100, 120))
    ids, scores = index.search(families.slice(0, 1), 30, threshold=0.3)
    assert set(ids[0, :10]) == set(range(100, 110))
    assert np.all(ids[0, 10:] == -1)
    assert np.all(np.isnan(scores[0, 10:]))
    assert len(index) == 20


def test_empty_index_and_empty_batches(families):
    index = BinaryHnswIndex()
    ids, scores = index.search(families.slice(0, 2), 3)
    assert ids.tolist() == [[-1] * 3] * 2
    assert np.all(np.isnan(scores))
    index.add(families.slice(0, 0))
    assert len(index) == 0
    assert index.search(families.slice(0, 0), 3)[0].shape == (0, 3)


def test_bytes_grow_with_the_points(families):
    size = built(families).nbytes
    assert size["sketches"] == 1000 * 64
    assert size["graph"] >= 1000 * 32 * 4
    assert size["features"] == 0
    assert built(families, candidates=20).nbytes["features"] >= 1000 * 80 * 8


def test_threads_of_faiss_are_put_back(families):
    before = faiss.omp_get_max_threads()
    built(families, threads=before + 1).search(families.slice(0, 3), 3)
    assert faiss.omp_get_max_threads() == before


def test_wrong_input(families):
    index = built(families)
    with pytest.raises(InvalidInputError, match="id 5 is in the index"):
        index.add(families.slice(0, 1), ids=[5])
    with pytest.raises(InvalidInputError, match="64 bytes, not 8"):
        index.search(np.zeros((1, 8), np.uint8), 3)
    with pytest.raises(InvalidInputError, match="re-rank needs sets"):
        BinaryHnswIndex(candidates=10).add(np.zeros((1, 64), np.uint8))
    with pytest.raises(InvalidInputError, match="metric"):
        BinaryHnswIndex("cosine")
    with pytest.raises(InvalidInputError, match="k must"):
        index.search(families, 0)
