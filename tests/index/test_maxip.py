"""The MaxIP engine: recall, changes, files, and input that cannot be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from closeby.index import CorruptFileError, InvalidInputError, MaxIPIndex
from closeby.index.maxip_input import MAX_NORM
from hypothesis import given, settings
from hypothesis import strategies as st


def factors(n: int, dim: int = 32, seed: int = 0) -> np.ndarray:
    """Vectors as of a factorisation: few strong directions, long-tailed norms."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).standard_normal((12, dim))
    vectors = rng.standard_normal((n, 12)) @ mixing + 0.5 * rng.standard_normal((n, dim))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors * rng.lognormal(0, 0.7, (n, 1))).astype(np.float32)


def truth(vectors: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    return np.argsort(-(queries @ vectors.T), axis=1, kind="stable")[:, :k]


def recall(found: np.ndarray, expected: np.ndarray) -> float:
    return float((found[:, :, None] == expected[:, None, :]).any(axis=1).mean())


@pytest.fixture(scope="module")
def large() -> tuple[np.ndarray, MaxIPIndex]:
    vectors = factors(30_000)
    index = MaxIPIndex(seed=1)
    index.add(vectors)
    return vectors, index


@pytest.mark.parametrize(("target", "floor"), [(0.8, 0.75), (0.95, 0.92), (0.99, 0.97)])
def test_recall_floor(large: Any, target: float, floor: float) -> None:
    vectors, index = large
    queries = factors(200, seed=5)
    ids, scores = index.search(queries, 10, target_recall=target)
    assert recall(ids, truth(vectors, queries, 10)) >= floor
    assert index.recall_estimate(target) >= target - 0.01
    np.testing.assert_allclose(scores, np.einsum("qd,qkd->qk", queries, vectors[ids]), rtol=1e-4)
    assert (np.diff(scores, axis=1) <= 0).all()


def test_less_is_read_for_a_lower_target(large: Any) -> None:
    _, index = large
    segment = index.sealed[0].segment
    efforts = [segment.effort(target, 10).probes for target in (0.6, 0.9, 0.99)]
    assert efforts[0] < efforts[1] < efforts[2] <= segment.lists.lists


def test_tuning_with_real_queries_reaches_the_target(large: Any) -> None:
    vectors, _ = large
    index = MaxIPIndex(seed=1)
    index.add(vectors)
    random = np.random.default_rng(3).standard_normal((300, 32)).astype(np.float32)
    index.tune(random[:100])
    ids, _ = index.search(random[100:], 10)
    assert recall(ids, truth(vectors, random[100:], 10)) >= 0.9


def test_seeds_repeat_and_rotations_differ() -> None:
    vectors, queries = factors(9_000), factors(40, seed=8)
    first, second = (MaxIPIndex(seed=4, rotations=2) for _ in range(2))
    for index in (first, second):
        index.add(vectors)
    for turn in (0, 1, 2):
        np.testing.assert_array_equal(
            first.search(queries, 5, turn=turn)[0], second.search(queries, 5, turn=turn)[0]
        )
    codes = first.sealed[0].segment.lists.code_sets
    assert not np.array_equal(codes[0].codes, codes[1].codes)


def test_norm_rules_direction() -> None:
    """A long vector at an angle beats the nearest one."""
    index = MaxIPIndex()
    index.add([[1.0, 0.0], [30.0, 40.0], [0.9, 0.1]])
    ids, scores = index.search([[1.0, 0.0]], 3)
    assert ids.tolist() == [[1, 0, 2]]
    np.testing.assert_allclose(scores, [[30, 1, 0.9]], rtol=1e-6)


def test_one_huge_norm_is_found_and_hurts_no_other() -> None:
    vectors = factors(10_000)
    vectors[77] *= 1e12
    index = MaxIPIndex()
    index.add(vectors)
    queries = factors(50, seed=6)
    ids, _ = index.search(queries, 11)
    expected = truth(vectors.astype(np.float64), queries.astype(np.float64), 11)
    assert recall(ids, expected) >= 0.93
    assert index.search(vectors[77:78] / 1e12, 1)[0].tolist() == [[77]]


@pytest.mark.parametrize("n", [1, 2, 31, 33, 5_000])
def test_equal_vectors(n: int) -> None:
    index = MaxIPIndex(capacity=16)
    index.add(np.ones((n, 5), np.float32))
    ids, scores = index.search(np.ones((1, 5), np.float32), 2)
    assert ids[0, 0] == 0
    assert scores[0, 0] == 5.0
    assert (ids[0, 1] == -1) == (n == 1)


def test_zero_vectors_score_zero() -> None:
    index = MaxIPIndex(capacity=8)
    index.add(np.zeros((40, 4), np.float32))
    index.add([[1.0, 0, 0, 0]])
    ids, scores = index.search([[-1.0, 0, 0, 0]], 41)
    assert ids[0, -1] == 40
    assert scores[0].tolist() == [0.0] * 40 + [-1.0]
    assert index.search(np.zeros((1, 4)), 1)[1].tolist() == [[0.0]]


def test_an_empty_index_answers_nothing() -> None:
    index = MaxIPIndex()
    ids, scores = index.search(np.ones((2, 3)), 4)
    assert (ids == -1).all()
    assert np.isnan(scores).all()
    assert len(index) == 0
    assert index.remove([1, 2]) == 0
    assert index.search_gap(np.ones(3), 0.0, 1.0, certify=True).id == -1
    index.add(np.zeros((0, 3)))
    assert index.recall_estimate() == 1.0


def test_threshold_is_least_score(large: Any) -> None:
    vectors, index = large
    query = vectors[:1]
    floor = float(np.sort(query @ vectors.T)[0, -4])
    ids, scores = index.search(query, 10, threshold=floor, target_recall=0.999)
    assert (ids[0] >= 0).sum() <= 4
    assert scores[0][ids[0] >= 0].min() >= floor


@pytest.mark.parametrize(
    ("batch", "field"),
    [
        ([[np.nan, 1.0]], "vector"),
        ([[np.inf, 1.0]], "vector"),
        ([[MAX_NORM, MAX_NORM]], "vector"),
        ([[1.0, 2.0, 3.0]], "vector"),
        ([["a", "b"]], "vector"),
        ([[1.0], [2.0, 3.0]], "vector"),
    ],
)
def test_vectors_that_cannot_be_used(batch: Any, field: str) -> None:
    index = MaxIPIndex()
    index.add([[1.0, 2.0]])
    for call in (index.add, lambda b: index.search(b, 1), lambda b: index.update([0], b)):
        with pytest.raises(InvalidInputError) as error:
            call(batch)
        assert error.value.field == field
    assert len(index) == 1


def test_parameters_out_of_range() -> None:
    for bad in ({"target_recall": 2}, {"rotations": 0}, {"rotations": 99}, {"capacity": 0}):
        with pytest.raises(InvalidInputError):
            MaxIPIndex(**bad)
    index = MaxIPIndex()
    index.add([[1.0]], ids=[7])
    with pytest.raises(InvalidInputError, match="id 7 is in the index"):
        index.add([[1.0]], ids=[7])
    with pytest.raises(InvalidInputError, match="whole number"):
        index.search([[1.0]], 0)
    with pytest.raises(InvalidInputError, match="id 8 is not in the index"):
        index.vectors([8])


# --- the oracle of conditional gradients ---------------------------------------------------------


def test_search_gap_takes_the_first_that_suffices(large: Any) -> None:
    vectors, index = large
    query = factors(1, seed=12)[0]
    best = float((vectors @ query).max())
    easy = index.search_gap(query, base=0.0, need=0.1 * best)
    assert easy.gap >= 0.1 * best
    assert easy.scanned < len(vectors) / 4
    assert easy.score == pytest.approx(float(vectors[easy.id] @ query), rel=1e-5)
    impossible = index.search_gap(query, base=0.0, need=2 * best, certify=True)
    assert impossible.exact
    assert impossible.score == pytest.approx(best, rel=1e-5)
    assert not index.search_gap(query, base=0.0, need=2 * best).exact


def test_exact_best_skips_removed_points() -> None:
    vectors = factors(6_000)
    index = MaxIPIndex()
    index.add(vectors)
    query = vectors[10]
    order = truth(vectors, query[None], 3)[0]
    index.remove(order[:2])
    assert index.exact_best(query)[0] == order[2]


# --- changes -------------------------------------------------------------------------------------


def step() -> Any:
    rows = st.integers(0, 25)
    return st.one_of(
        st.tuples(st.just("add"), st.integers(1, 9)),
        st.tuples(st.just("update"), rows),
        st.tuples(st.just("grow"), rows),
        st.tuples(st.just("remove"), rows),
        st.tuples(st.just("compact"), st.just(0)),
        st.tuples(st.just("reload"), st.just(0)),
    )


@given(steps=st.lists(step(), max_size=14), seed=st.integers(0, 1000))
@settings(max_examples=60)
def test_changes_against_a_dictionary(
    steps: list[tuple[str, int]], seed: int, tmp_path: Path
) -> None:
    rng = np.random.default_rng(seed)
    index, model = MaxIPIndex(seed=seed, capacity=6), {}
    next_id = 0
    for action, number in steps:
        if action == "add":
            rows = rng.standard_normal((number, 4)).astype(np.float32)
            index.add(rows)
            model |= {next_id + i: row for i, row in enumerate(rows)}
            next_id += number
        elif action in ("update", "grow") and number in model:
            scale = 100 if action == "grow" else 1
            model[number] = scale * rng.standard_normal(4).astype(np.float32)
            index.update(number, model[number])
        elif action == "remove":
            assert index.remove([number]) == (model.pop(number, None) is not None)
        elif action == "compact":
            index.compact()
        elif action == "reload":
            index.save(tmp_path / "index")
            index = MaxIPIndex.load(tmp_path / "index")
        assert len(index) == len(model)
        query = rng.standard_normal((1, 4)).astype(np.float32)
        ids, scores = index.search(query, len(model) + 2)
        expected = {i: float(query[0] @ row) for i, row in model.items()}
        assert sorted(ids[0][ids[0] >= 0].tolist()) == sorted(model)
        for i, score in zip(ids[0].tolist(), scores[0].tolist(), strict=True):
            if i >= 0:
                assert score == pytest.approx(expected[i], rel=1e-3, abs=1e-3)
    known = np.array(sorted(model), np.int64)
    if len(known):
        np.testing.assert_array_equal(index.vectors(known), [model[i] for i in known.tolist()])
        ids, vectors = index.points()
        np.testing.assert_array_equal(ids, known)
        np.testing.assert_array_equal(vectors, index.vectors(known))


def test_lists_without_points_cost_no_probes() -> None:
    rng = np.random.default_rng(0)
    long = 5 * rng.standard_normal((6_000, 8)) + 40
    short = rng.standard_normal((6_000, 8))
    index = MaxIPIndex()
    index.add(np.vstack([long, short]))
    index.remove(np.arange(6_000))
    queries = np.ones((1, 8)) + 0.1 * rng.standard_normal((20, 8))
    for searched in (index, index.fork()):
        ids, _ = searched.search(queries, 10, target_recall=0.6)
        assert recall(ids - 6_000, truth(short, queries, 10)) >= 0.5


def test_update_with_a_greater_norm_rebuilds_nothing() -> None:
    vectors = factors(9_000)
    index = MaxIPIndex()
    index.add(vectors)
    segment = index.sealed[0].segment
    index.update(5, vectors[5] * 50)
    assert [sealed.segment for sealed in index.sealed] == [segment]
    ids, scores = index.search(vectors[5:6], 1)
    assert ids.tolist() == [[5]]
    assert scores[0, 0] == pytest.approx(50 * float(vectors[5] @ vectors[5]), rel=1e-4)
    assert len(index) == 9_000


def test_points_are_searchable_at_once_and_sealed_in_tiers() -> None:
    index = MaxIPIndex(capacity=500)
    vectors = factors(6_000)
    for start in range(0, 6_000, 250):
        index.add(vectors[start : start + 250])
        newest = vectors[start + 249]
        ids, _ = index.search((newest / (newest @ newest))[None], start + 250)
        assert start + 249 in ids[0]
    sizes = [len(sealed.segment) for sealed in index.sealed]
    assert sum(sizes) == 6_000
    assert len(sizes) <= 6
    assert recall(index.search(vectors[:50], 10)[0], truth(vectors, vectors[:50], 10)) >= 0.95


def test_a_fork_changes_on_its_own(large: Any) -> None:
    vectors, index = large
    index.update(3, vectors[3])  # into the tail
    fork = index.fork()
    assert fork.remove([3, 4]) == 2
    fork.add(vectors[:1] * 9)
    assert len(fork) == len(vectors) - 1
    assert len(index) == len(vectors)
    np.testing.assert_array_equal(index.vectors([3, 4]), vectors[3:5])
    assert fork.sealed[0].segment.lists.vectors is index.sealed[0].segment.lists.vectors


# --- files ---------------------------------------------------------------------------------------


def test_a_loaded_index_answers_alike(large: Any, tmp_path: Path) -> None:
    vectors, index = large
    index.save(tmp_path / "index.closeby")
    loaded = MaxIPIndex.load(tmp_path / "index.closeby")
    queries = factors(30, seed=9)
    for got, expected in zip(loaded.search(queries, 7), index.search(queries, 7), strict=True):
        np.testing.assert_array_equal(got, expected)
    assert loaded.explain()["predicted_recall"] == index.explain()["predicted_recall"]
    loaded.add(vectors[:1])
    assert loaded.search(vectors[:1], 40)[0].max() == len(vectors)
    assert loaded.remove([3]) == 1  # the file itself is read only
    assert len(loaded) == len(vectors)


def test_damage_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "index"
    index = MaxIPIndex(capacity=10)
    index.add(factors(100, 8))
    index.add(factors(3, 8, seed=2))
    index.save(path)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for at in rng.integers(0, len(content), 60).tolist():
        damaged = bytearray(content)
        damaged[at] ^= 1 + int(rng.integers(255))
        path.write_bytes(damaged)
        try:
            loaded = MaxIPIndex.load(path)
        except CorruptFileError:
            continue
        assert len(loaded) == 103  # the byte was padding
    for size in (0, 5, 30, len(content) // 2, len(content) - 64):
        path.write_bytes(content[:size])
        with pytest.raises(CorruptFileError):
            MaxIPIndex.load(path)


def test_arrays_that_do_not_fit_each_other_are_a_corrupt_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from closeby.index import maxip_files

    index = MaxIPIndex(capacity=10)
    index.add(factors(100, 8))
    write = maxip_files.write_arrays

    def write_wrong(path: Path, header: Any, arrays: dict[str, np.ndarray]) -> None:
        write(path, header, arrays | {"0.starts": arrays["0.starts"] + 1})

    monkeypatch.setattr(maxip_files, "write_arrays", write_wrong)
    index.save(tmp_path / "index")
    with pytest.raises(CorruptFileError, match="starts"):
        MaxIPIndex.load(tmp_path / "index")


def test_how_far_searches_look_can_be_fixed() -> None:
    rows = factors(12_000, 16)
    index = MaxIPIndex()
    index.add(rows)
    index.fix_effort(3, 77, 2.0)
    for target in (0.5, 0.99):
        effort = index.sealed[0].segment.effort(target, 10)
        assert (effort.probes, effort.candidates) == (3, 77)
        assert effort.kappa == pytest.approx(2.0 / 4)
    index.fix_effort(10**6, 12_000, 0.0)  # all of it
    found, _ = index.search(rows[:5], 1)
    assert found[:, 0].tolist() == (rows[:5] @ rows.T).argmax(axis=1).tolist()
    MaxIPIndex().fix_effort(1, 1, 0.0)  # nothing to read
    for wrong in ((0, 1, 1.0), (1, 0, 1.0), (1, 1, -1.0), (1, 1, float("nan"))):
        with pytest.raises(InvalidInputError):
            index.fix_effort(*wrong)


def test_a_point_can_be_taken() -> None:
    rows = factors(300, 8)
    index = MaxIPIndex(capacity=100)
    index.add(rows)
    for i in (7, 299, 150):  # sealed, unsealed, sealed
        assert index.take(i).tolist() == rows[i].tolist()
        assert i not in index.search(rows[i : i + 1], 300)[0]
        with pytest.raises(InvalidInputError, match="not in the index"):
            index.take(i)
    assert len(index) == 297
    index.compact()
    assert sorted(index.points()[0].tolist()) == sorted(set(range(300)) - {7, 299, 150})
