"""All pairs above a threshold, clusters and representatives, against exact all-pairs."""

from __future__ import annotations

import numpy as np
import pytest
from closeby.index import InvalidInputError, SetBatch, as_set_batch, featurizer_from
from closeby.index.duplicates import (
    DuplicateSearch,
    SetStore,
    clusters,
    duplicate_pairs,
    expected_recall,
    representatives,
)
from closeby.loaders import after_scheme, samples


def jaccard_pairs(batch: SetBatch, threshold: float) -> dict[tuple[int, int], float]:
    """The slow, obvious twin."""
    rows = [set(batch.row(i).tolist()) for i in range(len(batch))]
    found = {}
    for b in range(len(rows)):
        for a in range(b):
            if rows[a] and rows[b]:
                score = len(rows[a] & rows[b]) / len(rows[a] | rows[b])
                if score >= threshold:
                    found[a, b] = score
    return found


def reported(blocks) -> dict[tuple[int, int], float]:
    found: dict[tuple[int, int], float] = {}
    for block in blocks:
        pairs = zip(block.a.tolist(), block.b.tolist(), block.scores.tolist(), strict=True)
        for a, b, score in pairs:
            assert (a, b) not in found, "a pair came twice"
            found[a, b] = score
    return found


def families(rng: np.random.Generator, n: int, size: int, highest: int) -> SetBatch:
    """Sets in families of 5 whose members keep .8 to 1 of one base set's elements."""
    bases = rng.integers(0, highest, (n // 5, size), np.uint64)
    rows = []
    for base in np.repeat(bases, 5, axis=0):
        redrawn = rng.random(size) < rng.random() * 0.2
        rows.append(np.where(redrawn, rng.integers(0, highest, size, np.uint64), base))
    return as_set_batch(rows)


@pytest.fixture(scope="module")
def urls() -> SetBatch:
    spec = {"kind": "shingles", "unit": "byte", "n": 4}
    texts = [after_scheme(url) for url in list(samples.urls())[:1500]]
    return featurizer_from(spec).features(texts)


@pytest.mark.parametrize("highest", [1 << 32, 1 << 63])
@pytest.mark.parametrize("threshold", [0.6, 0.8, 0.95])
def test_pairs_are_those_of_an_exact_comparison(highest: int, threshold: float) -> None:
    batch = families(np.random.default_rng(1), 600, 50, highest)
    exact = jaccard_pairs(batch, threshold)
    found = reported(duplicate_pairs(batch, threshold, target_recall=0.9999))
    assert len(exact) > 20
    assert found.items() <= exact.items(), "precision is 1 and scores are exact"
    assert len(found) >= 0.99 * len(exact)


def test_pairs_of_real_urls(urls: SetBatch) -> None:
    some = urls.slice(0, 500)
    exact = jaccard_pairs(some, 0.8)
    found = reported(duplicate_pairs(some, 0.8))
    assert len(exact) > 100
    assert found.items() <= exact.items()
    assert len(found) >= 0.99 * len(exact)


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.9])
def test_recall_at_the_threshold_is_what_the_formula_says(threshold: float) -> None:
    """Pairs of exactly one similarity, so few tables that the formula is far from 1."""
    rng = np.random.default_rng(2)
    shared = 90
    own = round(shared * (1 - threshold) / threshold / 2)
    n = 3000
    core = rng.integers(0, 1 << 60, (n, shared), np.uint64)
    sides = [rng.integers(0, 1 << 60, (n, own), np.uint64) for _ in range(2)]
    both = np.concatenate([np.hstack([core, side]) for side in sides])
    search = DuplicateSearch(as_set_batch(list(both)), threshold * 0.999, target_recall=0.6)
    found = sum(len(block) for block in search.pairs())
    expected = expected_recall(shared / (shared + 2 * own), search.plan)
    assert expected == pytest.approx(search.plan.recall, abs=0.05)
    assert found / n == pytest.approx(expected, abs=0.04)


def test_plan_promises_the_target() -> None:
    for target in (0.9, 0.99, 0.999):
        plan = DuplicateSearch([[1, 2, 3], [1, 2, 4]], 0.8, target_recall=target).plan
        assert plan.recall >= target
        assert plan.recall == pytest.approx(1 - (1 - 0.8**plan.K) ** plan.tables)


def test_answers_depend_on_points_and_seed_alone(urls: SetBatch) -> None:
    def listed(**options):
        return [
            np.concatenate(columns)
            for columns in zip(*DuplicateSearch(urls, 0.7, **options).pairs(), strict=True)
        ]

    one, again, many = listed(), listed(), listed(threads=3)
    for left, right, threaded in zip(one, again, many, strict=True):
        np.testing.assert_array_equal(left, right)
        np.testing.assert_array_equal(left, threaded)


@pytest.mark.parametrize("threads", [1, 3])
def test_clusters_without_pairs_are_those_of_all_pairs(urls: SetBatch, threads: int) -> None:
    search = DuplicateSearch(urls, 0.7, threads=threads)
    labels = search.clusters()
    np.testing.assert_array_equal(labels, clusters(search.pairs(), len(urls)))
    assert 0 < len(np.unique(labels)) < len(urls)


def test_blocks_stay_small(monkeypatch: pytest.MonkeyPatch, urls: SetBatch) -> None:
    whole = reported(duplicate_pairs(urls, 0.7))
    monkeypatch.setattr("closeby.index.duplicates.PAIR_BLOCK", 7)
    monkeypatch.setattr("closeby.index.duplicates.EFFORT", 11)
    blocks = list(duplicate_pairs(urls, 0.7))
    assert max(map(len, blocks)) <= 7
    assert reported(blocks) == whole


def test_copies_take_part_in_all_pairs() -> None:
    sets = [[1, 2, 3, 4, 5], [9], [1, 2, 3, 4, 5], [1, 2, 3, 4, 6], [1, 2, 3, 4, 6], [], []]
    found = reported(duplicate_pairs(sets, 0.6, target_recall=0.9999))
    assert found == jaccard_pairs(as_set_batch(sets), 0.6)
    assert len(found) == 6


def test_copies_above_the_bound_are_a_star() -> None:
    sets = [[1, 2, 3]] * 5 + [[1, 2, 3, 4]]
    found = reported(duplicate_pairs(sets, 0.7, target_recall=0.9999, copies=2))
    assert {*found} == {(0, 1), (0, 2), (0, 3), (0, 4), (0, 5), (1, 5)}
    np.testing.assert_array_equal(
        DuplicateSearch(sets, 0.7, target_recall=0.9999).clusters(), [0] * 6
    )


def test_a_hundred_thousand_copies_are_not_a_square_of_pairs() -> None:
    batch = SetBatch(
        np.arange(100_001, dtype=np.int64) * 3, np.tile(np.arange(3, dtype=np.uint64), 100_000)
    )
    search = DuplicateSearch(batch, 0.8)
    assert sum(map(len, search.pairs())) == 100_000 - 32 + 32 * 31 // 2
    assert not search.clusters().any()


def test_near_but_different_points_are_clustered_without_all_comparisons() -> None:
    """20,000 sets that are all near one another: 200 million pairs, 20,000 comparisons a table."""
    n, size = 20_000, 64
    rows = np.tile(np.arange(size, dtype=np.uint64), (n, 1))
    rows[:, -1] = np.arange(n) + size
    batch = SetBatch(np.arange(n + 1, dtype=np.int64) * size, rows.reshape(-1))
    assert not DuplicateSearch(batch, 0.8).clusters().any()


def test_vectors_against_exact_cosines() -> None:
    rng = np.random.default_rng(3)
    base = rng.standard_normal((300, 48))
    rows = np.concatenate([base, base + rng.standard_normal(base.shape) * 0.3, base[:20] * 2])
    rows = np.concatenate([rows, np.zeros((2, 48))]).astype(np.float32)
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
    cosines = np.triu(unit @ unit.T, 1)
    exact = {*map(tuple, np.argwhere(cosines >= 0.9).tolist())}
    search = DuplicateSearch(rows, 0.9, target_recall=0.9999)
    found = reported(search.pairs())
    assert search.metric == "cosine"
    assert len(exact) > 250
    assert len({*found} & exact) >= 0.99 * len(exact)
    assert {*found} - exact == set()
    for (a, b), score in found.items():
        assert score == pytest.approx(cosines[a, b], abs=1e-5)
    np.testing.assert_array_equal(search.clusters(), clusters(search.pairs(), len(rows)))


def test_clusters_are_connected_components_named_by_their_earliest_point() -> None:
    blocks = duplicate_pairs([[1], [2], [1], [3], [2], [2]], 1.0)
    np.testing.assert_array_equal(clusters(blocks, 6), [0, 1, 0, 3, 1, 1])


@pytest.mark.parametrize(
    ("rule", "kept"),
    [("first", [0, 1, 3]), ("last", [2, 3, 5]), ("longest", [2, 3, 4]), ("shortest", [0, 1, 3])],
)
def test_representatives(rule, kept) -> None:
    labels, lengths = [0, 1, 0, 3, 1, 1], [2, 1, 7, 4, 5, 5]
    np.testing.assert_array_equal(representatives(labels, rule, lengths), kept)


def test_representatives_refuse_what_they_cannot_do() -> None:
    with pytest.raises(InvalidInputError, match="one of first, last"):
        representatives([0], "best")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="length"):
        representatives([0], "longest")


def test_set_store_takes_4_bytes_an_element_where_it_can() -> None:
    store = SetStore()
    store.append(as_set_batch([[1, 2], [], [3]]))
    store.append(as_set_batch([[1 << 31]]))
    indptr, elements = store.take()
    assert (indptr.tolist(), elements.tolist()) == ([0, 2, 2, 3, 4], [1, 2, 3, 1 << 31])
    assert elements.dtype == np.uint32
    store.append(as_set_batch([[1, 2]]))
    store.append(as_set_batch([[1 << 32]]))
    assert store.take()[1].tolist() == [1, 2, 1 << 32]


@pytest.mark.parametrize("points", [[], [[]], [[], []], [[1, 2]], np.zeros((3, 4), np.float32)])
def test_points_without_pairs(points) -> None:
    search = DuplicateSearch(points, 0.8)
    assert [*search.pairs()] == []
    np.testing.assert_array_equal(search.clusters(), np.arange(len(points)))


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"threshold": 0}, "threshold"),
        ({"threshold": 1.1}, "threshold"),
        ({"threshold": float("nan")}, "threshold"),
        ({"threshold": 0.8, "target_recall": 1}, "target_recall"),
        ({"threshold": 0.8, "threads": 0}, "threads"),
        ({"threshold": 0.8, "copies": 0}, "copies"),
    ],
)
def test_arguments_out_of_range(options, field: str) -> None:
    with pytest.raises(InvalidInputError) as raised:
        DuplicateSearch([[1]], **options)
    assert raised.value.field == field


def test_a_threshold_too_far_for_hashes_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="raise threshold"):
        [*duplicate_pairs([[1, 2], [3]], 0.001)]
