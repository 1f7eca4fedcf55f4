"""Every MaxIP kernel against its slow twin, on every instruction set, and hostile arguments."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import oracle
import pytest
from closeby.index import _maxip, maxip_lists
from hypothesis import given
from hypothesis import strategies as st


@pytest.fixture(params=_maxip.instruction_sets(), autouse=True)
def maxip_instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    _maxip.use_instruction_set(request.param)
    yield request.param
    _maxip.use_instruction_set("best")


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@given(st.integers(1, 5), st.integers(1, 9), st.floats(-3, 3), st.integers(0, 2**32 - 1))
def test_code_scan(blocks: int, words: int, bar: float, seed: int) -> None:
    random = rng(seed)
    codes = random.integers(0, 256, (blocks, 4 * words, 32), np.uint8)
    factors = random.standard_normal(blocks * 32).astype(np.float32)
    factors[random.random(blocks * 32) < 0.2] = np.nan
    tables = random.integers(0, 64, (8 * words, 16), np.uint8)
    case = (codes, factors, tables, 0.013, -2.0, 0.5, bar)
    places, estimates = _maxip.scan_codes(*case)
    expected_places, expected = oracle.scan_codes(*case)
    assert places.tolist() == expected_places
    assert estimates.tolist() == expected


def test_sums_reach_the_highest_entry_without_overflow() -> None:
    codes = np.full((1, 128, 32), 255, np.uint8)  # 1,024 dimensions
    tables = np.full((256, 16), 63, np.uint8)
    _, estimates = _maxip.scan_codes(codes, np.ones(32, np.float32), tables, 1.0, 0.0, 0.0, 0.0)
    assert estimates.tolist() == [256 * 63.0] * 32


@given(st.integers(0, 4), st.integers(1, 100), st.integers(0, 2**32 - 1))
def test_rotation_keeps_inner_products(n: int, dim: int, seed: int) -> None:
    vectors = rng(seed).standard_normal((n, dim)).astype(np.float32)
    signs = maxip_lists.rotation_signs(dim, seed)
    rotated = _maxip.rotate(vectors, signs)
    assert rotated.shape == (n, signs.shape[1])
    np.testing.assert_allclose(rotated @ rotated.T, vectors @ vectors.T, atol=1e-3)


def test_rotation_is_the_same_in_all_instruction_sets() -> None:
    vectors = rng(1).standard_normal((20, 50)).astype(np.float32)
    signs = maxip_lists.rotation_signs(50, 3)
    answers = []
    for name in _maxip.instruction_sets():
        _maxip.use_instruction_set(name)
        answers.append(_maxip.rotate(vectors, signs))
    assert all(np.array_equal(answers[0], answer) for answer in answers)


@given(st.integers(0, 200), st.integers(1, 70), st.integers(0, 3), st.integers(0, 2**32 - 1))
def test_products(n: int, dim: int, queries: int, seed: int) -> None:
    rows = rng(seed).standard_normal((n, dim)).astype(np.float32)
    query = rng(seed + 1).standard_normal((queries, dim)).astype(np.float32)
    got = _maxip.products(rows, query)
    np.testing.assert_allclose(got, query.astype(np.float64) @ rows.T, atol=1e-4)


@given(
    st.integers(0, 40), st.integers(1, 70), st.floats(-30, 30), st.booleans(),
    st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_byte_products(n: int, dim: int, size: float, chosen: bool, seed: int) -> None:
    random = rng(seed)
    vectors = (10.0**size * random.standard_normal((n, dim))).astype(np.float32)
    rounded = maxip_lists.ByteRows.of(vectors)
    query = random.standard_normal(dim).astype(np.float32)
    places = random.integers(0, n, 2 * n) if chosen and n else None
    got = _maxip.byte_products(rounded.rows, rounded.scales, query, places)
    expected = oracle.byte_products(rounded.rows, rounded.scales, query, places)
    np.testing.assert_array_equal(got, expected)
    exact = (vectors if places is None else vectors[places]).astype(np.float64) @ query
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)[
        slice(None) if places is None else places
    ]
    assert (np.abs(got - exact) <= 0.02 * lengths * np.linalg.norm(query) + 1e-36).all()


def test_byte_products_of_extremes() -> None:
    for dim in (16, 512, 4_096):  # sums reach their bound
        rows = np.full((5, dim), -127, np.int8)
        query = np.ones(dim, np.float32)
        got = _maxip.byte_products(rows, np.ones(5, np.float32), query)
        np.testing.assert_allclose(got, -127.0 * dim, rtol=1e-5)
    zeros = _maxip.byte_products(rows, np.ones(5, np.float32), 0 * query)
    assert zeros.tolist() == [0.0] * 5
    with pytest.raises(ValueError, match="places"):
        _maxip.byte_products(rows, np.ones(5, np.float32), query, np.array([5]))
    with pytest.raises(ValueError, match="rows must be"):
        _maxip.byte_products(rows, np.ones(4, np.float32), query)


@pytest.mark.parametrize("dim", [1, 20, 64, 100, 300])
def test_estimates_from_codes_are_unbiased_and_close(dim: int) -> None:
    random = rng(dim)
    residuals = random.standard_normal((3200, dim)).astype(np.float32)
    query = random.standard_normal(dim)
    signs = maxip_lists.rotation_signs(dim, 1)
    squares = np.zeros(3200)
    nowhere = np.zeros((1, dim), np.float32)
    coded = maxip_lists.encode(residuals, np.zeros(3200, np.int64), nowhere, signs, squares)
    codes, factors = coded.codes, coded.factors
    np.testing.assert_allclose(squares, (residuals.astype(np.float64) ** 2).sum(axis=1), rtol=1e-5)
    bits = maxip_lists.code_bits(dim)
    rotated = _maxip.rotate(query[None].astype(np.float32), signs)[0, :bits]
    by_point = codes.transpose(0, 2, 1).reshape(3200, bits // 8)
    signs_of = 1.0 - 2.0 * np.unpackbits(by_point, axis=1, bitorder="little")
    errors = factors * (signs_of @ rotated) - residuals @ query
    spread = np.linalg.norm(query) * np.sqrt(squares.mean() / bits)
    assert np.abs(errors).mean() < 1.2 * spread
    # One rotation serves all points, so the errors of one query share a little.
    assert abs(errors.mean()) < 0.2 * spread


@given(st.integers(1, 3), st.integers(1, 70), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_encode(blocks: int, dim: int, lists: int, seed: int) -> None:
    random = rng(seed)
    vectors = random.standard_normal((blocks * 32, dim)).astype(np.float32)
    centroids = random.standard_normal((lists, dim)).astype(np.float32)
    owners = random.integers(-1, lists, blocks * 32)
    vectors[0] = centroids[owners[0]]  # at its centre: no residual at all
    signs = maxip_lists.rotation_signs(dim, seed)
    squares = np.empty(blocks * 32)
    coded = maxip_lists.encode(vectors, owners, centroids, signs, squares)
    residuals = np.where(owners[:, None] >= 0, vectors - centroids[owners], 0).astype(np.float32)
    rotated = _maxip.rotate(residuals, signs)
    codes, factors, expected = oracle.encode(rotated, owners, maxip_lists.code_bits(dim))
    np.testing.assert_array_equal(coded.codes, codes)
    np.testing.assert_allclose(coded.factors, factors, rtol=1e-6)
    np.testing.assert_allclose(squares, expected, rtol=1e-12)


@given(st.integers(0, 9), st.integers(1, 40), st.floats(-36, 17), st.integers(0, 2**32 - 1))
def test_round_rows(n: int, dim: int, size: float, seed: int) -> None:
    vectors = (10.0**size * rng(seed).standard_normal((n, dim))).astype(np.float32)
    vectors[: n // 3] = 0
    rounded = maxip_lists.ByteRows.of(vectors)
    rows, scales = oracle.round_rows(vectors, rounded.rows.shape[1])
    np.testing.assert_array_equal(rounded.rows, rows)
    np.testing.assert_array_equal(rounded.scales, scales)


@given(st.integers(1, 30), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_take_nearer(n: int, lists: int, seed: int) -> None:
    random = rng(seed)
    scores = random.integers(-4, 4, (n, lists)).astype(np.float32)  # many are equal
    halves = random.integers(0, 3, lists).astype(np.float32)
    points = random.permutation(2 * n)[:n]
    best = random.integers(-3, 3, 2 * n).astype(np.float32)
    owners = np.full(2 * n, -7, np.int64)
    expected = oracle.take_nearer(scores, halves, points, 100, best, owners)
    _maxip.take_nearer(scores, halves, points, 100, best, owners)
    np.testing.assert_array_equal(best, expected[0])
    np.testing.assert_array_equal(owners, expected[1])


@given(st.integers(0, 50), st.integers(1, 20), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_sum_rows(n: int, dim: int, lists: int, seed: int) -> None:
    random = rng(seed)
    vectors = random.standard_normal((n, dim)).astype(np.float32)
    owners = random.integers(0, lists, n)
    expected = np.zeros((lists, dim))
    np.add.at(expected, owners, vectors.astype(np.float64))
    np.testing.assert_array_equal(_maxip.sum_rows(vectors, owners, lists), expected)


def test_building_refuses_what_does_not_fit() -> None:
    vectors, owners = np.ones((32, 8), np.float32), np.zeros(32, np.int64)
    centroids, signs = np.ones((2, 8), np.float32), np.ones((3, 64), np.float32)
    codes, factors, squares = np.zeros((1, 8, 32), np.uint8), np.ones(32, np.float32), np.ones(32)
    parts: list[Any] = [vectors, owners, centroids, signs, 64, codes, factors, squares]
    _maxip.encode(*parts)
    for at, wrong, message in (
        (0, vectors[:31], "one of 32"), (1, owners + 2, "rows of the centroids"),
        (2, centroids[:, :7].copy(), "one dimension"), (4, 96, "within the rotation"),
        (5, codes[:, :4].copy(), "row for each place"), (6, factors[:9], "row for each place"),
        (7, squares[:9], "row for each place"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            _maxip.encode(*parts[:at], wrong, *parts[at + 1 :])
    with pytest.raises(ValueError, match="row for each vector"):
        _maxip.round_rows(vectors, np.zeros((32, 7), np.int8), factors)
    with pytest.raises(ValueError, match="rows of best"):
        _maxip.take_nearer(vectors, np.ones(8, np.float32), owners + 32, 0, factors, owners.copy())
    with pytest.raises(ValueError, match="halves must fit"):
        _maxip.take_nearer(vectors, np.ones(7, np.float32), owners, 0, factors, owners.copy())
    with pytest.raises(ValueError, match="one length"):
        _maxip.take_nearer(vectors, np.ones(8, np.float32), owners, 0, factors, owners[:9].copy())
    with pytest.raises(ValueError, match="from 0 to lists"):
        _maxip.sum_rows(vectors, owners + 1, 1)
    with pytest.raises(ValueError, match="a list for each"):
        _maxip.sum_rows(vectors, owners[:9], 1)


def index_parts(n: int = 500, dim: int = 24, seed: int = 0) -> tuple[np.ndarray, Any]:
    vectors = rng(seed).standard_normal((n, dim)).astype(np.float32)
    return vectors, maxip_lists.Lists.build(np.arange(n) * 3, vectors, seed)


def test_search_that_reads_everything_is_exact_and_alike_everywhere() -> None:
    vectors, lists = index_parts()
    queries = rng(7).standard_normal((9, 24)).astype(np.float32)
    effort = maxip_lists.MaxIPEffort(lists.lists, 500, 500, 0.5)
    ids, scores, scanned = lists.search(queries, 5, effort, -np.inf)
    truth = np.argsort(-(queries @ vectors.T), axis=1)[:, :5]
    assert ids.tolist() == (truth * 3).tolist()
    np.testing.assert_allclose(scores, np.take_along_axis(queries @ vectors.T, truth, 1), rtol=1e-4)
    assert (scanned == len(lists.ids)).all()


def test_all_instruction_sets_find_the_same_with_little_effort() -> None:
    _, lists = index_parts(3000)
    queries = rng(7).standard_normal((30, 24)).astype(np.float32)
    answers = []
    for name in _maxip.instruction_sets():
        _maxip.use_instruction_set(name)
        answers.append(lists.search(queries, 7, maxip_lists.MaxIPEffort(9, 40, 20, 0.4), -np.inf))
    for answer in answers[1:]:
        for got, expected in zip(answer, answers[0], strict=True):
            np.testing.assert_array_equal(got, expected)


def test_equal_scores_come_by_rising_id() -> None:
    vectors = np.ones((300, 8), np.float32)
    lists = maxip_lists.Lists.build(np.arange(300)[::-1].copy(), vectors, 0)
    effort = maxip_lists.MaxIPEffort(lists.lists, 300, 300, 0.0)
    ids, _, _ = lists.search(np.ones((1, 8), np.float32), 300, effort, -np.inf)
    assert ids[0].tolist() == list(range(300))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"starts": np.array([0, 1], np.int64)}, "starts"),
        ({"starts": np.array([1, 1, 2], np.int64)}, "starts"),
        ({"starts": np.array([0, 3, 2], np.int64)}, "starts"),
        ({"spreads": np.ones(3, np.float32)}, "spreads"),
        ({"factors": np.ones(63, np.float32)}, "row for each place"),
        ({"vectors": np.ones((64, 17), np.float32)}, "one dimension"),
        ({"rounded": np.ones((64, 24), np.int8)}, "one dimension"),
        ({"centroids": np.ones((2, 32), np.int8)}, "one dimension"),
        ({"scales": np.ones(63, np.float32)}, "row for each place"),
        ({"centroid_scales": np.ones(1, np.float32)}, "row for each place"),
        ({"codes": np.zeros((2, 6, 32), np.uint8)}, "multiple of 32"),
        ({"codes": np.zeros((2, 8, 16), np.uint8)}, "32 points"),
        ({"codes": np.zeros((2, 16, 32), np.uint8)}, "more bits"),
        ({"signs": np.ones((3, 48), np.float32)}, "power of two"),
        ({"ids": np.zeros(1, np.int64)}, "row for each place"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changed: dict[str, np.ndarray], message: str) -> None:
    parts: dict[str, Any] = {
        "centroids": np.ones((2, 16), np.int8),
        "centroid_scales": np.ones(2, np.float32),
        "spreads": np.ones(2, np.float32),
        "starts": np.array([0, 1, 2], np.int64),
        "signs": np.ones((3, 64), np.float32),
        "codes": np.zeros((2, 8, 32), np.uint8),
        "factors": np.ones(64, np.float32),
        "rounded": np.ones((64, 16), np.int8),
        "scales": np.ones(64, np.float32),
        "vectors": np.ones((64, 8), np.float32),
        "ids": np.arange(64, dtype=np.int64),
    }
    _maxip.ListsView(*parts.values())
    with pytest.raises(ValueError, match=message):
        _maxip.ListsView(*(parts | changed).values())


def test_searches_that_make_no_sense_are_refused() -> None:
    _, lists = index_parts(100, 8)
    view = lists._views[0]
    queries = np.ones((1, 8), np.float32)
    for arguments in ((0, 1, 9, 9), (1, 0, 9, 9), (5, 1, 4, 4), (5, 1, 9, 4), (1, 1, 3, 4)):
        with pytest.raises(ValueError, match="k and probes"):
            view.search(queries, *arguments, 0.0, 0.0)
    with pytest.raises(ValueError, match="dimension"):
        view.search(np.ones((1, 7), np.float32), 1, 1, 9, 9, 0.0, 0.0)
    with pytest.raises(ValueError, match="no kernels"):
        _maxip.use_instruction_set("mmx")
