"""FLINNG end to end: recall floors on real data, exact scores, and everything that may happen."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pytest
from closeby.index import (
    FlatIndex,
    FlinngIndex,
    InvalidInputError,
    SetBatch,
    as_set_batch,
    featurizer_from,
    tuning,
)
from closeby.loaders import samples
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

SMALL = {"tables": 16, "sketch_bits": 128, "capacity": 64}


def recall(scores: np.ndarray, expected: np.ndarray) -> float:
    """Share of the neighbours of exact search that were found, over all queries.

    A hit counts if it is as near as the last of them: which of equally near ones is found is open.
    """
    wanted = (~np.isnan(expected)).sum(axis=1)
    last = np.where(wanted > 0, np.nanmin(expected, axis=1, initial=1), np.inf)
    found = (scores >= last[:, None]).sum(axis=1)
    return float(np.minimum(found, wanted).sum() / wanted.sum())


@pytest.fixture(scope="module")
def urls() -> SetBatch:
    """20,000 URLs as sets of four characters, drawn from all over the sample."""
    chosen = np.random.default_rng(1).permutation(np.array(samples.urls()))[:20_000]
    return featurizer_from({"kind": "shingles"}).features(chosen.tolist())


@pytest.fixture(scope="module")
def url_index(urls: SetBatch) -> FlinngIndex:
    index = FlinngIndex()
    index.add(urls)
    return index


@pytest.fixture(scope="module")
def url_truth(urls: SetBatch) -> Any:
    """Every fiftieth URL's exact ten nearest at a Jaccard similarity of .5 and more."""
    exact = FlatIndex()
    exact.add(urls)
    queries = urls.take(np.arange(0, 20_000, 50))
    return queries, *exact.search(queries, 10, threshold=0.5)


# --- recall floors -------------------------------------------------------------------------------


def test_recall_of_urls(url_index: FlinngIndex, url_truth: Any) -> None:
    queries, _, expected = url_truth
    ids, scores = url_index.search(queries, 10, threshold=0.5)
    assert recall(scores, expected) >= 0.95
    assert (ids[:, 0] >= 0).all()
    assert (scores[:, 0] == 1).all()
    assert url_index.recall_estimate() >= 0.95


def test_recall_of_urls_in_one_sealed_segment(urls: SetBatch, url_truth: Any) -> None:
    queries, _, expected = url_truth
    index = FlinngIndex(capacity=20_000)
    index.add(urls)
    _, scores = index.search(queries, 10, threshold=0.5)
    assert recall(scores, expected) >= 0.95


@pytest.mark.parametrize("capacity", [65_536, 20_000])
def test_recall_of_the_hundred_nearest_urls(urls: SetBatch, capacity: int) -> None:
    """Each of many neighbours may lie in a cell of its own."""
    exact, index = FlatIndex(), FlinngIndex(capacity=capacity)
    exact.add(urls)
    index.add(urls)
    queries = urls.take(np.arange(0, 20_000, 200))
    _, expected = exact.search(queries, 100, threshold=0.5)
    _, scores = index.search(queries, 100, threshold=0.5)
    assert recall(scores, expected) >= 0.95


def test_recall_of_urls_in_many_segments(urls: SetBatch, url_truth: Any) -> None:
    queries, _, expected = url_truth
    index = FlinngIndex(capacity=3_000)
    index.add(urls)
    assert len(index.explain()["segments"]) > 2
    _, scores = index.search(queries, 10, threshold=0.5)
    assert recall(scores, expected) >= 0.95


def test_recall_of_genes() -> None:
    genes = [gene.sequence for gene in samples.genes()]
    batch = featurizer_from({"kind": "kmers", "k": 16}).features(genes)
    exact, index = FlatIndex(), FlinngIndex()
    exact.add(batch)
    index.add(batch)
    queries = batch.take(np.arange(0, len(genes), 10))
    _, expected = exact.search(queries, 10, threshold=0.5)
    _, scores = index.search(queries, 10, threshold=0.5)
    assert recall(scores, expected) >= 0.95


def test_recall_of_genes_by_group_tests(monkeypatch: Any) -> None:
    """With so few points all would be scanned: force cells."""
    monkeypatch.setattr(tuning, "SCAN_BELOW", 100)
    test_recall_of_genes()


@pytest.mark.parametrize("capacity", [65_536, 10_000])
def test_recall_of_vectors_at_high_cosine(capacity: int) -> None:
    """Each query is a point turned by a random angle whose cosine is .9."""
    random = np.random.default_rng(2)
    points = random.standard_normal((12_000, 96)).astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    near = random.permutation(12_000)[:500]
    noise = random.standard_normal((500, 96))
    noise -= (noise * points[near]).sum(axis=1, keepdims=True) * points[near]
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    queries = 0.9 * points[near] + np.sqrt(1 - 0.81) * noise
    index = FlinngIndex("cosine", capacity=capacity)
    index.add(points)
    ids, scores = index.search(queries, 1, threshold=0.8)
    assert (ids[:, 0] == near).mean() >= 0.95
    np.testing.assert_allclose(scores[ids == near[:, None]], 0.9, atol=1e-5)


def test_a_higher_target_finds_no_less(
    urls: SetBatch, url_index: FlinngIndex, url_truth: Any
) -> None:
    queries, _, expected = url_truth
    targets = (0.5, 0.8, 0.95, 0.999)
    found = [
        recall(url_index.search(queries, 10, 0.5, target_recall=t)[1], expected) for t in targets
    ]
    estimates = [url_index.recall_estimate(t) for t in targets]
    assert found == sorted(found)
    assert estimates == sorted(estimates)
    assert all(estimate >= t - 1e-9 for estimate, t in zip(estimates, targets, strict=True))
    # What is asked for with a query counts, whatever the index was built for.
    lower = FlinngIndex(target_recall=0.5, tables=url_index.tables)
    lower.add(urls)
    assert recall(lower.search(queries, 10, 0.5, target_recall=0.95)[1], expected) >= 0.95
    assert lower.recall_estimate(0.95) >= 0.95


# --- answers -------------------------------------------------------------------------------------


def assert_same(ours: Any, expected: Any) -> None:
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_scores_are_exact_and_ordered(
    urls: SetBatch, url_index: FlinngIndex, url_truth: Any
) -> None:
    queries = url_truth[0].slice(0, 60)
    ids, scores = url_index.search(queries, 20)
    for row in range(60):
        real = ids[row] >= 0
        assert (np.isnan(scores[row]) == ~real).all()
        assert len(set(ids[row, real])) == real.sum()
        pairs = [
            (-score, name) for score, name in zip(scores[row, real], ids[row, real], strict=True)
        ]
        assert pairs == sorted(pairs)
        for name, score in zip(ids[row, real], scores[row, real], strict=True):
            assert score == oracle.jaccard(queries.row(row), urls.row(name))
            assert score > 0
    _, above = url_index.search(queries, 20, threshold=0.4)
    assert np.nanmin(above) >= np.float32(0.4)


def test_answers_do_not_depend_on_the_batches(urls: SetBatch, url_truth: Any) -> None:
    """Neither on how points were added nor on how queries are asked."""
    points, queries = urls.slice(0, 9_500), url_truth[0].slice(0, 50)
    whole = FlinngIndex(capacity=1_000)
    whole.add(points)
    pieces = FlinngIndex(capacity=1_000)
    for start, stop in [
        (0, 1),
        (1, 999),
        (999, 1_000),
        (1_000, 1_001),
        (1_001, 5_500),
        (5_500, 9_500),
    ]:
        pieces.add(points.slice(start, stop))
    expected = whole.search(queries, 7)
    assert_same(pieces.search(queries, 7), expected)
    one_by_one = [whole.search(queries.slice(i, i + 1), 7) for i in range(50)]
    assert_same([np.concatenate(part) for part in zip(*one_by_one, strict=True)], expected)
    assert [s["points"] for s in pieces.explain()["segments"]] == [8_000, 1_000, 500]
    assert pieces.explain()["segments"] == whole.explain()["segments"]


def test_answers_do_not_depend_on_the_order_within_a_segment(urls: SetBatch) -> None:
    points, queries = urls.slice(0, 9_000), urls.slice(100, 140)
    order = np.random.default_rng(4).permutation(9_000)
    straight, shuffled = FlinngIndex(capacity=9_000), FlinngIndex(capacity=9_000)
    straight.add(points)
    shuffled.add(points.take(order), order)
    assert_same(shuffled.search(queries, 5), straight.search(queries, 5))


def test_equal_seeds_give_equal_answers_and_others_do_not(urls: SetBatch) -> None:
    points, queries = urls.slice(0, 9_000), urls.slice(0, 200)
    answers = []
    for seed in (1, 1, 2):
        index = FlinngIndex(seed=seed, tables=8, target_recall=0.5)
        index.add(points)
        answers.append(index.search(queries, 50)[0])
    np.testing.assert_array_equal(answers[0], answers[1])
    assert (answers[0] != answers[2]).any()


@pytest.mark.parametrize("metric", ["jaccard", "cosine"])
def test_a_loaded_index_answers_the_same_and_goes_on(
    metric: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(tuning, "SCAN_BELOW", 50)
    random = np.random.default_rng(5)
    points: Any = random.standard_normal((500, 24)).astype(np.float32)
    if metric == "jaccard":
        points = as_set_batch(list(random.integers(0, 60, (500, 12))))
    index = FlinngIndex(metric, 9, **SMALL)
    index.add(points[:450] if metric == "cosine" else points.slice(0, 450))
    index.remove([3, 100, 449])
    path = tmp_path / "index"
    index.save(path)
    loaded = FlinngIndex.load(path)
    assert_same(loaded.search(points, 9), index.search(points, 9))
    for both in (index, loaded):
        assert len(both) == 447
        both.add(points[450:] if metric == "cosine" else points.slice(450, 500))
        assert both.remove([3, 4, 460]) == 2
    assert_same(loaded.search(points, 9), index.search(points, 9))
    assert loaded.search(points[:1] if metric == "cosine" else points.slice(0, 1), 1)[0] == [[0]]
    for name in ("seed", "tables", "K", "sketch_bits", "target_recall", "threshold", "scheme"):
        assert getattr(loaded, name) == getattr(index, name)


def test_searches_of_many_threads_give_the_same(url_index: FlinngIndex, url_truth: Any) -> None:
    queries = url_truth[0]
    expected = url_index.search(queries, 10)
    answers: list[Any] = [None] * 4

    def search(number: int) -> None:
        answers[number] = url_index.search(queries, 10)

    threads = [threading.Thread(target=search, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for answer in answers:
        assert_same(answer, expected)


# --- edges ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["jaccard", "cosine"])
def test_no_points_one_point_and_no_queries(metric: Any, tmp_path: Path) -> None:
    point: Any = [[1, 2, 3]] if metric == "jaccard" else [[1.0, 2.0, 3.0]]
    none: Any = [] if metric == "jaccard" else np.zeros((0, 3), np.float32)
    index = FlinngIndex(metric)
    index.add(none)
    index.save(tmp_path / "empty")
    for empty in (index, FlinngIndex.load(tmp_path / "empty")):
        ids, scores = empty.search(point, 4)
        assert ids.tolist() == [[-1] * 4]
        assert np.isnan(scores).all()
        assert len(empty) == empty.remove([0]) == 0
        assert empty.recall_estimate() == 1
        assert empty.search(none, 4)[0].shape == (0, 4)
        empty.compact()
        assert sum(empty.nbytes.values()) == 0
        empty.add(point)
        ids, scores = empty.search(point, 4)
        assert ids.tolist() == [[0, -1, -1, -1]]
        assert scores[0, 0] == pytest.approx(1)
        assert empty.search(none, 4)[0].shape == (0, 4)


def test_empty_sets_are_never_found_and_find_nothing() -> None:
    index = FlinngIndex(**SMALL)
    index.add([[], [1, 2], [], [3]] * 40)
    ids, _ = index.search([[], [1, 2], [9]], 200, threshold=0)
    assert (ids[[0, 2]] == -1).all()
    assert sorted(ids[1][ids[1] >= 0]) == list(range(1, 160, 4))
    only_empty = FlinngIndex(**SMALL)
    only_empty.add([[]] * 100)
    assert (only_empty.search([[], [1]], 5)[0] == -1).all()


def test_more_hits_wanted_than_points() -> None:
    index = FlinngIndex(**SMALL)
    index.add([[i, i + 1, 500] for i in range(150)])
    ids, scores = index.search([[500]], 1_000)
    assert sorted(ids[0][:150]) == list(range(150))
    assert (ids[0][150:] == -1).all()
    assert np.isnan(scores[0][150:]).all()


def test_a_thousand_copies_of_one_set(monkeypatch: Any) -> None:
    """All in the same cells with the same keys: found, in the order of their ids."""
    monkeypatch.setattr(tuning, "SCAN_BELOW", 100)
    random = np.random.default_rng(3)
    others = random.integers(1_000, 10**9, (2_000, 20))
    sets = [list(range(20))] * 1_000 + list(others)
    for capacity in (65_536, 3_000, 700):
        index = FlinngIndex(tables=32, capacity=capacity)
        index.add(sets)
        ids, scores = index.search([list(range(20))], 50)
        assert (scores == 1).all()
        assert len(set(ids[0])) == 50
        assert ids.max() < 1_000


@pytest.mark.parametrize("metric", ["jaccard", "cosine"])
def test_removed_points_are_gone_everywhere(metric: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(tuning, "SCAN_BELOW", 50)
    random = np.random.default_rng(8)
    points: Any = random.standard_normal((300, 16)).astype(np.float32)
    if metric == "jaccard":
        points = as_set_batch(list(random.integers(0, 10**6, (300, 10))))
    index = FlinngIndex(metric, **SMALL)
    index.add(points)
    gone = np.arange(0, 300, 3)
    assert index.remove(gone) == 100
    assert index.remove(gone) == 0
    assert index.remove(np.append(gone, [1, 1, 999])) == 1
    assert index.remove([]) == 0
    assert len(index) == 199
    for _ in range(2):
        ids, _ = index.search(points, 300)
        assert not np.isin(ids, [*gone, 1]).any()
        assert set(ids[:, 0]) >= set(range(2, 300, 3))
        index.compact()
        assert [s["removed"] for s in index.explain()["segments"]] == [0]
    assert index.remove(np.arange(300)) == 199
    assert (index.search(points, 5)[0] == -1).all()
    index.compact()
    assert (index.search(points, 5)[0] == -1).all()
    assert len(index) == 0
    index.add(points)
    assert len(index) == 300


@pytest.mark.parametrize("where", [3, 40, 70, 130])
def test_a_point_that_is_removed_and_added_again_stays(where: int) -> None:
    """In whichever segments its old and its new place are, and whatever is merged later."""
    sets = [[i, i + 1_000, i + 2_000] for i in range(100, 400)]
    index = FlinngIndex(**SMALL)
    index.add(sets[:140])
    assert index.remove([where]) == 1
    index.add([[7, 8, 9]], [where])
    for start in range(140, 300, 20):
        index.add(sets[start : start + 20])
        ids, scores = index.search([[7, 8, 9]], 3)
        assert (ids[0, 0], scores[0, 0]) == (where, 1)
        assert len(index) == start + 20
    index.compact()
    assert index.search([[7, 8, 9]], 1)[0].tolist() == [[where]]
    assert index.remove([where]) == 1
    assert index.search([[7, 8, 9]], 1)[0].tolist() == [[-1]]


def test_an_id_that_is_present_is_refused_and_nothing_is_added() -> None:
    index = FlinngIndex(**SMALL)
    index.add([[i] for i in range(150)], np.arange(150) * 2)
    for present in (0, 100, 298):
        with pytest.raises(InvalidInputError, match=f"id {present} is in the index"):
            index.add([[7], [8]], [1, present])
    with pytest.raises(InvalidInputError, match="twice"):
        index.add([[7], [8]], [1, 1])
    assert len(index) == 150
    index.remove([100])
    index.add([[7], [8]], [1, 100])
    assert len(index) == 151
    index.add([[9]])  # the next free number
    assert index.search([[9]], 2)[0].tolist() == [[18, 299]]


def test_the_largest_id() -> None:
    index = FlinngIndex(**SMALL)
    index.add([[1]], [2**63 - 1])
    assert index.search([[1]], 1)[0].tolist() == [[2**63 - 1]]
    with pytest.raises(InvalidInputError):
        index.add([[2]])  # there is no next number
    index.add([[2]], [5])
    assert index.remove([2**63 - 1]) == 1


def test_one_set_of_many_elements_among_small_ones() -> None:
    index = FlinngIndex(**SMALL)
    index.add([list(range(50_000)), *([i, i + 10**6] for i in range(100))])
    ids, scores = index.search([list(range(40_000)), [5, 5 + 10**6]], 2)
    assert (ids[0, 0], scores[0, 0]) == (0, np.float32(0.8))
    assert (ids[1, 0], scores[1, 0]) == (6, 1)


def test_large_sets_choose_one_permutation() -> None:
    index = FlinngIndex(tables=16, sketch_bits=128)
    random = np.random.default_rng(6)
    sets = [random.choice(10**6, 1_000, replace=False) for _ in range(50)]
    index.add(sets)
    assert index.explain()["scheme"] == "one_permutation"
    mixed = [np.append(s[:800], random.integers(10**7, 10**8, 200)) for s in sets]
    ids, scores = index.search(mixed, 1)
    assert ids.ravel().tolist() == list(range(50))
    np.testing.assert_allclose(scores, 800 / 1200, atol=0.01)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"metric": "ip"}, "metric"),
        ({"metric": "hamming"}, "metric"),
        ({"target_recall": 1.0}, "target_recall"),
        ({"target_recall": 0.1}, "target_recall"),
        ({"threshold": 0}, "threshold"),
        ({"threshold": 1.1}, "threshold"),
        ({"threshold": float("nan")}, "threshold"),
        ({"threshold": 0.02}, "threshold"),
        ({"tables": 7}, "tables"),
        ({"tables": 2_000}, "tables"),
        ({"K": 0}, "K"),
        ({"K": 17}, "K"),
        ({"sketch_bits": 100}, "sketch_bits"),
        ({"capacity": 0}, "capacity"),
        ({"expected_points": 0}, "capacity"),
        ({"scheme": "other"}, "scheme"),
    ],
)
def test_parameters_out_of_range_are_refused_by_field(options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        FlinngIndex(**options)
    assert caught.value.field == field


def test_unusable_input_is_refused_and_changes_nothing() -> None:
    index = FlinngIndex("cosine", **SMALL)
    for bad in ([[0.0, 0.0]], [[np.nan, 1.0]], [[1.0], [1.0, 2.0]], [["a"]]):
        with pytest.raises(InvalidInputError):
            index.add(bad)
    index.add([[1.0, 2.0]])
    for bad in ([[1.0, 2.0, 3.0]], [[1.0]], [[0.0, 0.0]]):
        with pytest.raises(InvalidInputError):
            index.add(bad)
        with pytest.raises(InvalidInputError):
            index.search(bad, 1)
    for k in (0, -1, 2.0, True, None):
        with pytest.raises(InvalidInputError):
            index.search([[1.0, 2.0]], k)  # type: ignore[arg-type]
    for options in ({"threshold": np.nan}, {"target_recall": 2}, {"target_recall": 0.2}):
        with pytest.raises(InvalidInputError):
            index.search([[1.0, 2.0]], 1, **options)  # type: ignore[arg-type]
    assert len(index) == 1


def test_explain_says_what_there_is(url_index: FlinngIndex) -> None:
    told = url_index.explain()
    assert told["points"] == sum(s["points"] for s in told["segments"]) == 20_000
    assert told["nbytes"] == url_index.nbytes
    assert told["nbytes"]["sketches"] >= 20_000 * 64
    assert 0.95 <= told["predicted_recall"] <= 1
    assert told["index"] == "flinng"


# --- threads -------------------------------------------------------------------------------------


def test_searches_while_points_are_added_removed_and_sealed(monkeypatch: Any) -> None:
    """A search sees each point once: those present throughout always, removed ones never again."""
    monkeypatch.setattr(tuning, "SCAN_BELOW", 64)
    index = FlinngIndex(**SMALL)
    always = [[i, i + 10_000, i + 20_000] for i in range(40)]
    index.add(always, np.arange(40))
    failures: list[BaseException] = []
    removed: set[int] = set()
    done = threading.Event()

    def read() -> None:
        try:
            while not done.is_set():
                gone = set(removed)
                ids, scores = index.search(always, 5)
                assert ids[:, 0].tolist() == list(range(40))
                assert (scores[:, 0] == 1).all()
                found = ids[ids >= 0].tolist()
                assert not gone & set(found)
                for row in ids:
                    real = row[row >= 0].tolist()
                    assert len(set(real)) == len(real)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for start in range(100, 3_000, 50):
        ids = np.arange(start, start + 50)
        index.add([[i % 40, i % 40 + 10_000, i] for i in ids], ids)
        index.remove(ids[::5])
        removed.update(ids[::5].tolist())
    index.compact()
    done.set()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]
    assert len(index) == 40 + 2_900 * 4 // 5


# --- against a model -----------------------------------------------------------------------------

elements = st.integers(0, 400)
some_sets = st.lists(st.frozensets(elements, max_size=12), min_size=1, max_size=40)


class AgainstExactSearch(RuleBasedStateMachine):
    """An index with small segments against a dict: never a wrong hit, few missing ones."""

    found = wanted = 0
    directory: Path

    @initialize(seed=st.integers(0, 3), sketch_bits=st.sampled_from([128, 512]))
    def begin(self, seed: int, sketch_bits: int) -> None:
        options = SMALL | {"sketch_bits": sketch_bits, "capacity": 32}
        self.index = FlinngIndex(seed=seed, **options)
        self.model: dict[int, frozenset[int]] = {}
        self.next_id = 0

    @rule(sets=some_sets)
    def add(self, sets: list[frozenset[int]]) -> None:
        self.index.add(sets)
        for s in sets:
            self.model[self.next_id] = s
            self.next_id += 1

    @rule(data=st.data(), sets=some_sets)
    def add_with_ids(self, data: Any, sets: list[frozenset[int]]) -> None:
        free = st.integers(0, 2_000).filter(lambda i: i not in self.model)
        ids = data.draw(
            st.lists(free, min_size=len(sets), max_size=len(sets), unique=True), label="ids"
        )
        self.index.add(sets, ids)
        self.model.update(zip(ids, sets, strict=True))
        self.next_id = max(self.next_id, max(ids) + 1)

    @rule(
        base=st.frozensets(st.integers(0, 400), min_size=8, max_size=20), copies=st.integers(2, 70)
    )
    def add_similar(self, base: frozenset[int], copies: int) -> None:
        """Near neighbours, so that the recall is about something."""
        self.add([base | {1_000 + i % 7} for i in range(copies)])

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def remove(self, data: Any) -> None:
        present = st.sampled_from(sorted(self.model))
        ids = data.draw(st.lists(present | st.integers(0, 2_000), max_size=30), label="ids")
        assert self.index.remove(ids) == len(set(ids) & self.model.keys())
        for i in ids:
            self.model.pop(i, None)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def replace(self, data: Any) -> None:
        """What an upsert does: the same id with another set."""
        i = data.draw(st.sampled_from(sorted(self.model)), label="id")
        self.index.remove([i])
        self.model[i] = data.draw(st.frozensets(elements, min_size=1, max_size=12), label="set")
        self.index.add([self.model[i]], [i])

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def add_present(self, data: Any) -> None:
        i = data.draw(st.sampled_from(sorted(self.model)), label="id")
        with pytest.raises(InvalidInputError):
            self.index.add([[1], [2]], [10**6, i])

    @rule()
    def compact(self) -> None:
        self.index.compact()

    @rule()
    def save_and_load(self) -> None:
        path = self.directory / "index"
        self.index.save(path)
        self.index = FlinngIndex.load(path)

    @precondition(lambda self: self.model)
    @rule(
        query=st.frozensets(elements, max_size=12),
        some=st.randoms(use_true_random=False),
        k=st.integers(1, 12),
        threshold=st.sampled_from([None, 0.5]),
    )
    def search(self, query: frozenset[int], some: Any, k: int, threshold: float | None) -> None:
        own = [self.model[i] for i in some.choices(sorted(self.model), k=12)]
        queries = [query, *own]
        for row in zip(queries, *self.index.search(queries, k, threshold), strict=True):
            self.check(*row, k, threshold)

    def check(
        self, query: Any, ids: np.ndarray, scores: np.ndarray, k: int, threshold: float | None
    ) -> None:
        real = ids >= 0
        assert (np.isnan(scores) == ~real).all()
        for i, score in zip(ids[real].tolist(), scores[real], strict=True):
            assert i in self.model, "it was removed"
            assert score == oracle.jaccard(self.model[i], query)
            assert score >= np.float32(threshold or 1e-30)
        pairs = [(-float(s), int(i)) for i, s in zip(ids[real], scores[real], strict=True)]
        assert pairs == sorted(set(pairs))
        exact = {i: float(oracle.jaccard(s, query)) for i, s in self.model.items()}
        _, expected = oracle.top(exact, k, 0.5)
        type(self).wanted += len(expected)
        type(self).found += sum(float(s) >= e for s, e in zip(scores[real], expected, strict=False))

    @invariant()
    def counts(self) -> None:
        if hasattr(self, "model"):
            assert len(self.index) == len(self.model)

    def teardown(self) -> None:
        """Every life ends with a search for what is there: chance may have asked for little."""
        queries = [self.model[i] for i in sorted(getattr(self, "model", {}))[:60]]
        if queries:
            for row in zip(queries, *self.index.search(queries, 5), strict=True):
                self.check(*row, 5, None)


def test_against_exact_search(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(tuning, "SCAN_BELOW", 48)  # so that merged segments have group tests
    AgainstExactSearch.directory = tmp_path
    AgainstExactSearch.found = AgainstExactSearch.wanted = 0
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(
        AgainstExactSearch, settings=settings(max_examples=30, stateful_step_count=30)
    )
    assert AgainstExactSearch.wanted > 300, "too little was looked for"
    assert AgainstExactSearch.found / AgainstExactSearch.wanted >= 0.95


def test_answers_do_not_depend_on_the_number_of_threads() -> None:
    random = np.random.default_rng(12)
    index = FlinngIndex(capacity=2_000)
    index.add([random.integers(0, 3_000, 40) for _ in range(9_000)])
    queries = [random.integers(0, 3_000, 40) for _ in range(101)]
    ids, scores = index.search(queries, 5)
    for threads in (2, 3, 200):
        again = index.search(queries, 5, threads=threads)
        np.testing.assert_array_equal(ids, again[0])
        np.testing.assert_array_equal(scores, again[1])
    assert index.search([], 5, threads=4)[0].shape == (0, 5)
