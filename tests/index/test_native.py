"""Every kernel against its slow twin, on every instruction set, and hostile arguments."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import oracle
import pytest
from closeby.index import _native
from hypothesis import given, settings
from hypothesis import strategies as st

HUGE = 2**64 - 1
# At every sketch distance any score is plausible: all candidates are compared.
ALL, ALL64 = (np.full(size * 8 + 1, np.inf, np.float32) for size in (16, 64))

elements = st.one_of(
    st.integers(0, 40), st.integers(0, HUGE), st.sampled_from([0, 2**32 - 1, 2**32, HUGE])
)
some_sets = st.lists(st.sets(elements, max_size=40), max_size=6)
seeds = st.integers(0, HUGE)

pytestmark = pytest.mark.usefixtures("instruction_set")


def csr(sets: Any) -> tuple[np.ndarray, np.ndarray]:
    indptr = np.cumsum([0, *(len(s) for s in sets)]).astype(np.int64)
    flat = [x for s in sets for x in sorted(s)]
    return indptr, np.array(flat, np.uint64)


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def random_u32(seed: int, *shape: int) -> np.ndarray:
    return rng(seed).integers(0, 2**32, shape, dtype=np.uint32)


def test_instruction_sets_are_named_and_chosen(instruction_set: str) -> None:
    assert _native.instruction_set() == instruction_set
    assert _native.instruction_sets()[0] == "baseline"
    with pytest.raises(ValueError, match="no kernels for 'mmx'"):
        _native.use_instruction_set("mmx")
    assert _native.instruction_set() == instruction_set


# --- MinHash -------------------------------------------------------------------------------------


@given(some_sets, st.integers(0, 70), seeds)
def test_minhash_by_permutations(sets: list[set[int]], values: int, seed: int) -> None:
    xors, multipliers = random_u32(1, values), random_u32(2, values) | np.uint32(1)
    got = _native.minhash_by_permutations(*csr(sets), xors, multipliers, seed)
    assert got.shape == (len(sets), values)
    assert got.dtype == np.uint32
    for row, elements in zip(got, sets, strict=True):
        assert row.tolist() == oracle.minhash_permutations(
            elements, xors.tolist(), multipliers.tolist(), seed
        )


@pytest.mark.parametrize("size", [511, 512, 513, 1025])
def test_minhash_of_sets_of_more_elements_than_are_mixed_at_a_time(size: int) -> None:
    xors, multipliers = random_u32(1, 33), random_u32(2, 33) | np.uint32(1)
    elements = rng(size).integers(0, HUGE, size, np.uint64, endpoint=True)
    got = _native.minhash_by_permutations(*csr([set(elements.tolist())]), xors, multipliers, 5)
    expected = oracle.minhash_permutations(
        elements.tolist(), xors.tolist(), multipliers.tolist(), 5
    )
    assert got[0].tolist() == expected


@given(some_sets, st.integers(1, 130), seeds)
def test_minhash_by_one_permutation(sets: list[set[int]], values: int, seed: int) -> None:
    got = _native.minhash_by_one_permutation(*csr(sets), values, seed)
    assert got.shape == (len(sets), values)
    for row, elements in zip(got, sets, strict=True):
        assert row.tolist() == oracle.minhash_one_permutation(elements, values, seed)


@given(st.integers(0, 4), st.integers(1, 9), st.integers(1, 5), st.integers(0, 7), seeds)
def test_table_keys(n: int, tables: int, K: int, spare: int, seed: int) -> None:
    signatures = random_u32(n, n, tables * K + spare)
    got = _native.minhash_table_keys(signatures, tables, K, seed)
    assert got.shape == (n, tables)
    assert got.dtype == np.uint32
    for row, signature in zip(got, signatures, strict=True):
        assert row.tolist() == oracle.table_keys(signature.tolist(), tables, K, seed)


@given(st.integers(0, 4), st.integers(0, 5), st.integers(1, 9), st.integers(0, 5))
def test_one_bit_sketches(n: int, first: int, size: int, spare: int) -> None:
    signatures = random_u32(n + 9, n, first + 8 * size + spare)
    got = _native.minhash_sketches(signatures, first, 8 * size)
    assert got.shape == (n, size)
    for row, signature in zip(got, signatures, strict=True):
        expected = oracle.one_bit_sketch(signature[first : first + 8 * size])
        np.testing.assert_array_equal(row, expected)


# --- signed random projections -------------------------------------------------------------------


def random_signs(seed: int, rotations: int, padded: int) -> np.ndarray:
    return rng(seed).choice(np.float32([-1, 1]), (rotations, 3, padded))


@given(
    st.integers(0, 3), st.integers(3, 9), st.data(), st.integers(1, 3), st.integers(0, 2**32 - 1)
)
def test_signed_projections(n: int, log: int, data: Any, rotations: int, seed: int) -> None:
    padded = 2**log
    dim = data.draw(st.integers(1, padded))
    bits = 8 * data.draw(st.integers(1, rotations * padded // 8))
    vectors = rng(seed).standard_normal((n, dim), np.float32)
    signs = random_signs(seed, rotations, padded)
    got = _native.signed_projections(vectors, signs, bits)
    assert got.shape == (n, bits // 8)
    for row, vector in zip(got, vectors, strict=True):
        exact = oracle.projections(vector, signs)[:bits]
        # float32 may round a projection near 0 to the other side of it; the scale is its deviation.
        sure = np.abs(exact) > 1e-5 * padded**1.5 * np.linalg.norm(vector)
        signs_of_row = np.unpackbits(row, bitorder="little").astype(bool)
        np.testing.assert_array_equal(signs_of_row[sure], exact[sure] < 0)


def test_small_whole_numbers_are_projected_without_rounding() -> None:
    vectors = rng(0).integers(-3, 4, (20, 50)).astype(np.float32)
    signs = random_signs(1, 5, 64)
    got = _native.signed_projections(vectors, signs, 320)
    for row, vector in zip(got, vectors, strict=True):
        np.testing.assert_array_equal(row, oracle.pack(oracle.projections(vector, signs) < 0))


def test_projection_of_zeros_is_not_negative() -> None:
    got = _native.signed_projections(np.zeros((1, 5), np.float32), random_signs(1, 1, 8), 8)
    assert got.tolist() == [[0]]


SPARSE = st.dictionaries(st.integers(0, 2**64 - 1), st.floats(-100, 100, width=32), max_size=12)


def sparse_rows(rows: list[dict[int, float]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows as offsets, ascending dimensions and values."""
    indptr = np.cumsum([0] + [len(row) for row in rows])
    dimensions = [d for row in rows for d in sorted(row)]
    values = [row[d] for row in rows for d in sorted(row)]
    return indptr, np.array(dimensions, np.uint64), np.array(values, np.float32)


@pytest.mark.parametrize("name", _native.instruction_sets())
@settings(deadline=None)
@given(st.lists(SPARSE, max_size=4), st.integers(1, 12), st.integers(0, 2**64 - 1))
def test_sparse_projections(name: str, rows: list[dict[int, float]], size: int, seed: int) -> None:
    _native.use_instruction_set(name)
    try:
        got = _native.sparse_projections(*sparse_rows(rows), seed, 8 * size)
    finally:
        _native.use_instruction_set("best")
    assert got.shape == (len(rows), size)
    for bits, row in zip(got, rows, strict=True):
        dimensions = sorted(row)
        sums = oracle.sparse_projections(dimensions, [row[d] for d in dimensions], seed, 8 * size)
        np.testing.assert_array_equal(bits, oracle.pack(sums < 0))


@settings(deadline=None)
@given(st.lists(SPARSE, max_size=6), SPARSE)
def test_inner_products_of_sparse(rows: list[dict[int, float]], query: dict[int, float]) -> None:
    rows = [*rows, query]  # dimensions in common
    dimensions, values = sparse_rows([query])[1:]
    got = _native.inner_products_of_sparse(*sparse_rows(rows), dimensions, values)
    expected = [sum(row.get(d, 0.0) * query[d] for d in query) for row in rows]
    np.testing.assert_allclose(got, np.float32(expected), rtol=1e-6, atol=1e-6)


# --- group tests ---------------------------------------------------------------------------------


class Points:
    """Random points of one segment with everything that the kernels and their twins need."""

    def __init__(
        self,
        n: int,
        *,
        tables: int = 11,
        range_bits: int = 3,
        group_size: int = 3,
        spare_strides: int = 0,
        sketch_bytes: int = 16,
        seed: int = 0,
        different: int = 6,
    ) -> None:
        random = rng(seed)
        self.n, self.range_bits, self.group_size = n, range_bits, group_size
        # Few different keys, so that counts vary and tie.
        known = random.integers(0, 2**32, (different, tables), dtype=np.uint32)
        self.keys = np.take_along_axis(known, random.integers(0, different, (n, tables)), axis=0)
        self.queries = np.take_along_axis(known, random.integers(0, different, (3, tables)), axis=0)
        cells = -(-n // group_size)
        stride = (-(-cells // 256) + spare_strides) * 32
        self.bitmaps = np.zeros((tables, 1 << range_bits, stride), np.uint8)
        self.sketches = random.integers(0, 4, (n, sketch_bytes)).astype(np.uint8)
        self.query_sketches = random.integers(0, 4, (3, sketch_bytes)).astype(np.uint8)
        self.sets = [set(random.integers(0, 30, random.integers(0, 12)).tolist()) for _ in range(n)]
        self.query_sets = [{1, 2, 3, 4, 5}, set(), {HUGE, *range(20)}]
        self.ids = random.permutation(n).astype(np.int64) + 1000
        self.dead = np.zeros(-(-n // 8), np.uint8)

    def insert(self) -> Points:
        half = self.n // 2
        _native.insert_into_groups(self.bitmaps, self.keys[:half], 0, self.group_size)
        _native.insert_into_groups(self.bitmaps, self.keys[half:], half, self.group_size)
        return self

    def remove(self, positions: Any) -> Points:
        for position in positions:
            self.dead[position >> 3] |= 1 << (position & 7)
        return self

    @property
    def removed(self) -> set[int]:
        return {i for i in range(self.n) if self.dead[i >> 3] >> (i & 7) & 1}

    def view(self, **changed: Any) -> Any:
        indptr, indices = csr(self.sets)
        parts = {
            "bitmaps": self.bitmaps,
            "group_size": self.group_size,
            "sketches": (self.sketches[:, :16].copy(), self.sketches[:, 16:].copy()),
            "ids": self.ids,
            "points": self.n,
            "dead": self.dead,
            "sets": (indptr, indices),
            "vectors": None,
        } | changed
        return _native.SegmentView(**parts)

    def cells(self, query: np.ndarray, want: int) -> list[int]:
        counts = oracle.cell_counts(self.keys, query, self.range_bits, self.group_size)
        return oracle.best_cells(counts, want)

    def places(self, cells: list[int]) -> list[int]:
        g = self.group_size
        return [i for c in cells for i in range(c * g, min(c * g + g, self.n))]


def scanned(view: Any, points: Points, cells: int, candidates: int) -> list[dict[int, int]]:
    """{position: distance} of each query's candidates."""
    positions, distances = view.candidates(points.queries, points.query_sketches, cells, candidates)
    found = []
    for row, distance in zip(positions, distances, strict=True):
        filled = row >= 0
        assert (distance[~filled] == 65535).all()
        assert len(set(row[filled])) == filled.sum()
        found.append(dict(zip(row[filled].tolist(), distance[filled].tolist(), strict=True)))
    return found


@given(
    n=st.integers(0, 700),
    tables=st.integers(1, 40),
    range_bits=st.integers(1, 5),
    group_size=st.integers(1, 40),
    spare_strides=st.integers(0, 2),
    want=st.integers(1, 60),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=60)
def test_group_test_finds_the_cells_that_pass_most(**case: int) -> None:
    want = case.pop("want")
    points = Points(**case).insert()
    # More candidates than points: what was scanned is exactly the points of the chosen cells.
    found = scanned(points.view(), points, want, points.n + 1)
    for query, got in zip(points.queries, found, strict=True):
        assert sorted(got) == points.places(points.cells(query, want))


@pytest.mark.parametrize("tables", [7, 8, 15, 16, 17, 31, 32, 64, 255, 256])
def test_counts_do_not_overflow_where_every_cell_passes_every_test(tables: int) -> None:
    points = Points(300, tables=tables, group_size=1, different=1, seed=tables).insert()
    assert [sorted(got) for got in scanned(points.view(), points, 5, 99)] == [[0, 1, 2, 3, 4]] * 3
    # One point fails one test: it is the last of all.
    points.keys[2, tables - 1] ^= 0x80000000
    points.bitmaps[:] = 0
    points.insert()
    assert sorted(scanned(points.view(), points, 299, 999)[0]) == [0, 1, *range(3, 300)]


def test_a_bitmap_has_the_bits_of_its_points_and_no_others() -> None:
    points = Points(100, tables=5, range_bits=4, group_size=7).insert()
    expected = np.zeros_like(points.bitmaps)
    for position, keys in enumerate(points.keys):
        cell = position // 7
        for table, key in enumerate(keys):
            expected[table, key >> 28, cell // 8] |= 1 << cell % 8
    np.testing.assert_array_equal(points.bitmaps, expected)


@given(
    n=st.integers(0, 120),
    sketch_bytes=st.sampled_from([16, 32, 64]),
    want=st.integers(1, 130),
    removed=st.sets(st.integers(0, 119), max_size=60),
    seed=st.integers(0, 2**32 - 1),
)
def test_sketch_scan_of_all_points(
    n: int, sketch_bytes: int, want: int, removed: set[int], seed: int
) -> None:
    points = Points(n, sketch_bytes=sketch_bytes, seed=seed).remove(i for i in removed if i < n)
    found = scanned(points.view(bitmaps=None), points, 1, want)
    for query, got in zip(points.query_sketches, found, strict=True):
        expected = oracle.sketch_scan(points.sketches, query, range(n), points.removed, want)
        assert list(got.items()) == [(position, distance) for distance, position in expected]


@given(
    n=st.integers(1, 200),
    group_size=st.integers(1, 20),
    cells=st.integers(1, 12),
    want=st.integers(1, 40),
    seed=st.integers(0, 2**32 - 1),
)
def test_sketch_scan_of_the_best_cells(
    n: int, group_size: int, cells: int, want: int, seed: int
) -> None:
    points = Points(n, group_size=group_size, seed=seed).insert().remove(range(0, n, 5))
    found = scanned(points.view(), points, cells, want)
    for keys, query, got in zip(points.queries, points.query_sketches, found, strict=True):
        places = points.places(points.cells(keys, cells))
        expected = oracle.sketch_scan(points.sketches, query, places, points.removed, want)
        # Which of equally distant points come in is open; their distances are not.
        assert sorted(got.values()) == [distance for distance, _ in expected]
        for position, distance in got.items():
            assert position in places
            assert position not in points.removed
            assert [(distance, position)] == oracle.sketch_scan(
                points.sketches, query, [position], set(), 1
            )


@pytest.mark.parametrize("sketch_bytes", [16, 32, 64])
@pytest.mark.parametrize("want", [1, 30, 60])
@pytest.mark.parametrize("group_size", [1, 7, 40])
def test_sketch_scan_of_more_points_than_the_shortlist_takes(
    sketch_bytes: int, want: int, group_size: int
) -> None:
    """Only a shortlist by the first bytes is ranked by the whole sketch; many tie for its end."""
    points = Points(1500, sketch_bytes=sketch_bytes, group_size=group_size, different=1).insert()
    points.remove(range(0, 1500, 3))
    cells = 1200 // group_size
    places = range(cells * group_size)  # every cell passes every test: the first are taken
    listed = max(_native.SHORTLIST * want, _native.LEAST_SHORTLIST)
    found = scanned(points.view(), points, cells, want)
    for query, got in zip(points.query_sketches, found, strict=True):
        expected = oracle.sketch_scan(points.sketches, query, places, points.removed, want, listed)
        assert list(got.items()) == [(position, distance) for distance, position in expected]


def test_sketch_distances_reach_every_value() -> None:
    points = Points(1, sketch_bytes=64)
    points.sketches = np.uint8([[255] * 64])
    points.query_sketches = np.uint8([[0] * 64, [255] * 64, [1] * 64])
    assert scanned(points.view(bitmaps=None), points, 1, 1) == [{0: 512}, {0: 0}, {0: 448}]


def test_nothing_is_found_where_all_points_are_removed() -> None:
    points = Points(50).insert().remove(range(50))
    for view in (points.view(), points.view(bitmaps=None)):
        assert scanned(view, points, 4, 7) == [{}, {}, {}]
        ids, scores = view.search_sets(
            points.queries, points.query_sketches, *csr(points.query_sets), 9, 4, 7, 3, 0.0, ALL
        )
        assert (ids == -1).all()
        assert np.isnan(scores).all()


# --- exact re-rank -------------------------------------------------------------------------------


@given(
    n=st.integers(0, 60),
    k=st.integers(1, 70),
    least=st.sampled_from([1e-30, 0.2, 0.5]),
    salt=seeds,
    width=st.sampled_from([np.uint32, np.uint64]),
    seed=st.integers(0, 2**32 - 1),
)
def test_search_sets_ranks_by_exact_jaccard(
    n: int, k: int, least: float, salt: int, width: Any, seed: int
) -> None:
    points = Points(n, seed=seed).insert().remove(range(0, n, 7))
    indptr, indices = csr(points.sets)
    view = points.view(sets=(indptr, indices.astype(width)))
    queries = csr(points.query_sets)
    ids, scores = view.search_sets(
        points.queries, points.query_sketches, *queries, salt, n + 1, max(k, n), k, least, ALL
    )
    for row, query in enumerate(points.query_sets):
        exact = {
            int(points.ids[i]): float(oracle.jaccard(points.sets[i], query))
            for i in range(n)
            if i not in points.removed and query
        }
        expected_ids, expected = oracle.top(exact, k, float(np.float32(least)))
        assert ids[row, : len(expected_ids)].tolist() == expected_ids
        assert scores[row, : len(expected)].tolist() == expected
        assert (ids[row, len(expected) :] == -1).all()
        assert np.isnan(scores[row, len(expected) :]).all()


@given(some_sets, st.sets(elements, max_size=60), seeds)
@settings(max_examples=80)
def test_jaccard_of_rows(sets: list[set[int]], query: set[int], salt: int) -> None:
    indptr, indices = csr(sets)
    positions = np.arange(len(sets), dtype=np.int64)[::-1].copy()
    query_array = np.array(sorted(query), np.uint64)
    expected = [oracle.jaccard(sets[i], query) for i in positions]
    got = _native.jaccard_of_rows(indptr, indices, positions, query_array, salt)
    assert got.tolist() == [float(x) for x in expected]
    if all(x < 2**32 for s in sets for x in s):
        narrow = indices.astype(np.uint32)
        got = _native.jaccard_of_rows(indptr, narrow, positions, query_array, salt)
        assert got.tolist() == [float(x) for x in expected]


@pytest.mark.parametrize("salt", [0, 1, HUGE, 0xDEADBEEF12345678])
def test_jaccard_of_ranges_and_the_largest_element(salt: int) -> None:
    big = np.arange(1500, dtype=np.uint64)
    indptr, indices = csr([{HUGE}, {HUGE, 1}, {1}, set(), set(big.tolist()) | {HUGE}])
    every = np.arange(5, dtype=np.int64)
    with_marker = np.append(big, np.uint64(HUGE))
    got = _native.jaccard_of_rows(indptr, indices, every, with_marker, salt)
    assert got.tolist() == [np.float32(x) for x in (1 / 1501, 2 / 1501, 1 / 1501, 0, 1)]
    got = _native.jaccard_of_rows(indptr, indices, every, big, salt)
    assert got.tolist() == [np.float32(x) for x in (0, 1 / 1501, 1 / 1500, 0, 1500 / 1501)]


@pytest.mark.parametrize("width", [np.uint32, np.uint64])
@pytest.mark.parametrize("salt", [0, 7])
def test_jaccard_where_buckets_overflow(width: Any, salt: int) -> None:
    """Of so many elements some find their bucket full, and are looked up in the stored sets.

    Twice as many buckets as elements, of four: about ten are asked for five times.
    """
    query = np.unique(rng(salt).integers(0, 2**32, 32_700, np.uint64))
    others = np.setdiff1d(rng(salt + 1).integers(0, 2**32, 1_000, np.uint64), query)
    stored = [query, query[:9_000], query[1::2], others, query[-1:], query[:0]]
    stored.append(np.sort(np.concatenate([query[::5], others])))
    indptr = np.cumsum([0, *map(len, stored)]).astype(np.int64)
    got = _native.jaccard_of_rows(
        indptr, np.concatenate(stored).astype(width), np.arange(len(stored)), query, salt
    )
    shared = [len(np.intersect1d(row, query)) for row in stored]
    joint = [len(np.union1d(row, query)) for row in stored]
    assert got.tolist() == (np.float32(shared) / np.float32(joint)).tolist()


FIRST = np.zeros(1, np.int64)


@pytest.mark.parametrize("shift", [0, 12, 24])
def test_jaccard_of_elements_that_differ_in_few_bits(shift: int) -> None:
    """Zero, powers of two and multiples of one: what a multiplication hashes worst."""
    numbers = np.unique(np.append(np.arange(256) << shift, 1 << np.arange(32))).astype(np.uint64)
    for query in (numbers, numbers[1:], numbers[::3], numbers[-1:], numbers[:1]):
        got = _native.jaccard_of_rows(
            np.int64([0, len(numbers)]), numbers.astype(np.uint32), FIRST, query.copy(), 3
        )
        assert got.tolist() == [np.float32(len(query)) / np.float32(len(numbers))]


@given(
    n=st.integers(1, 150),
    k=st.integers(1, 20),
    least=st.sampled_from([-np.inf, 0.1, 0.4]),
    seed=st.integers(0, 2**32 - 1),
)
def test_ranking_that_stops_early_gives_the_same_hits(
    n: int, k: int, least: float, seed: int
) -> None:
    """With bounds that hold: at each sketch distance, the best score at it or farther off."""
    points = Points(n, seed=seed)
    points.sketches[: n // 2] = points.query_sketches[0]  # as near as can be
    view = points.view(bitmaps=None)
    query = points.queries[:1], points.query_sketches[:1], *csr(points.query_sets[:1])
    bounds = np.full(129, -np.inf, np.float32)
    for position, distance in scanned(view, points, 1, n)[0].items():
        score = oracle.jaccard(points.sets[position], points.query_sets[0])
        bounds[: distance + 1] = np.maximum(bounds[: distance + 1], score)
    all_compared = view.search_sets(*query, 7, 1, n + k, k, least, ALL)
    stopped = view.search_sets(*query, 7, 1, n + k, k, least, bounds)
    for ours, expected in zip(stopped, all_compared, strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_ranking_stops_where_no_candidate_can_be_a_hit() -> None:
    points = Points(100)
    view = points.view(bitmaps=None)
    query = points.queries[:1], points.query_sketches[:1], *csr(points.query_sets[:1])
    nothing = np.full(129, 0.1, np.float32)
    ids, _ = view.search_sets(*query, 7, 1, 100, 5, 0.2, nothing)
    assert (ids == -1).all()


@pytest.mark.parametrize("size", [100, 10_000])
@pytest.mark.parametrize("shift", [0, 8, 24, 40, 50])
@pytest.mark.parametrize("salt", [0, 3])
def test_elements_of_any_pattern_find_a_place(size: int, shift: int, salt: int) -> None:
    """Every element has two places, and a table that cannot hold them all is made anew: for ever,
    if elements that share their low bits had too few places to choose from."""
    indptr = np.int64([0, size])
    only = np.int64([0])
    dense = np.arange(size, dtype=np.uint64) << np.uint64(shift)
    spread = np.sort(rng(1).choice(2**14, size, replace=False)).astype(np.uint64)
    for elements in (dense, spread << np.uint64(shift), dense + np.uint64(2**32 - 1)):
        assert _native.jaccard_of_rows(indptr, elements, only, elements, salt)[0] == 1


@given(some_sets, some_sets, seeds)
@settings(max_examples=80)
def test_jaccard_of_all(sets: list[set[int]], queries: list[set[int]], salt: int) -> None:
    got = _native.jaccard_of_all(*csr(sets), *csr(queries), salt)
    assert got.shape == (len(queries), len(sets))
    assert got.tolist() == [[float(oracle.jaccard(s, query)) for s in sets] for query in queries]


def test_jaccard_of_all_with_elements_that_many_queries_share() -> None:
    random = rng(3)
    sets = [set(random.integers(0, 300, 60).tolist()) | {HUGE} for _ in range(40)]
    got = _native.jaccard_of_all(*csr(sets), *csr(sets[:30]), 12)
    assert got.tolist() == [[float(oracle.jaccard(a, b)) for b in sets] for a in sets[:30]]


@given(
    n=st.integers(0, 40),
    dim=st.integers(1, 70),
    k=st.integers(1, 45),
    seed=st.integers(0, 2**32 - 1),
)
def test_search_vectors_ranks_by_inner_product(n: int, dim: int, k: int, seed: int) -> None:
    points = Points(n, seed=seed).insert()
    # Small whole numbers: exact in float32 whatever the order of summing, and with many ties.
    vectors = rng(seed).integers(-2, 3, (n, dim)).astype(np.float32)
    queries = rng(seed + 1).integers(-2, 3, (3, dim)).astype(np.float32)
    view = points.view(sets=None, vectors=vectors)
    ids, scores = view.search_vectors(
        points.queries, points.query_sketches, queries, n + 1, max(n, k), k, -np.inf, ALL
    )
    for row, query in enumerate(queries):
        exact = dict(zip(points.ids.tolist(), (vectors @ query).tolist(), strict=True))
        expected_ids, expected = oracle.top(exact, k)
        assert ids[row, : len(expected_ids)].tolist() == expected_ids
        assert scores[row, : len(expected)].tolist() == expected


@pytest.mark.parametrize("dim", [1, 7, 8, 15, 16, 17, 100, 1000])
def test_inner_products_are_close_to_exact(dim: int) -> None:
    points = Points(20)
    vectors = rng(dim).standard_normal((20, dim)).astype(np.float32)
    queries = rng(1).standard_normal((3, dim)).astype(np.float32)
    view = points.view(bitmaps=None, sets=None, vectors=vectors, ids=np.arange(20))
    ids, scores = view.search_vectors(
        points.queries, points.query_sketches, queries, 1, 20, 20, -np.inf, ALL
    )
    exact = queries.astype(np.float64) @ vectors.T.astype(np.float64)
    np.testing.assert_allclose(
        scores, np.take_along_axis(exact, ids, axis=1), rtol=0, atol=2e-6 * dim
    )


def test_every_instruction_set_gives_the_same_bits() -> None:
    """Also where floats are rounded, and with sizes that fill many vectors."""
    random = rng(42)
    points = Points(5000, tables=45, range_bits=6, group_size=5, sketch_bytes=64, different=50)
    points.insert()
    vectors = random.standard_normal((5000, 77)).astype(np.float32)
    queries = random.standard_normal((3, 77)).astype(np.float32)
    signs = random_signs(7, 3, 128)
    sets = csr([set(random.integers(0, HUGE, 300, np.uint64).tolist()) for _ in range(20)])
    xors, multipliers = random_u32(1, 300), random_u32(2, 300) | np.uint32(1)

    def everything() -> list[np.ndarray]:
        view = points.view(sets=None, vectors=vectors)
        query = points.queries, points.query_sketches
        signatures = _native.minhash_by_permutations(*sets, xors, multipliers, 3)
        return [
            signatures,
            _native.minhash_by_one_permutation(*sets, 300, 3),
            _native.minhash_table_keys(signatures, 60, 3, 9),
            _native.minhash_sketches(signatures, 5, 256),
            _native.signed_projections(vectors, signs, 384),
            *view.candidates(*query, 40, 100),
            *view.estimate(*query, 40, 100, 50, -np.inf, ALL64),
            *view.search_vectors(*query, queries, 40, 100, 50, -np.inf, ALL64),
            *points.view().search_sets(
                *query, *csr(points.query_sets), 1, 40, 100, 50, 0.01, ALL64
            ),
        ]

    here = everything()
    _native.use_instruction_set("baseline")
    for ours, plain in zip(here, everything(), strict=True):
        assert ours.tobytes() == plain.tobytes()


# --- features ------------------------------------------------------------------------------------

texts = st.one_of(
    st.text(max_size=40),
    st.text("ab \n.é√🙂0Z", max_size=40),
    st.text("ACGTUacgtuN", max_size=80),
)


def one_text(unit: str, text: str, n: int, *, canonical: bool = True) -> list[int]:
    """The distinct elements of the middle one of three texts, which must not see the others."""
    around = b"xyzzy ACGT"
    indptr, found = _native.shingle_batch(unit, [around, text.encode(), around], n, canonical)
    indptr, found = _native.sort_unique(indptr, found)
    return found[indptr[1] : indptr[2]].tolist()


@given(texts, st.integers(1, 12))
@settings(max_examples=100)
def test_shingles(text: str, n: int) -> None:
    assert one_text("byte", text, n) == sorted(oracle.byte_shingles(text, n))
    assert one_text("char", text, n) == sorted(oracle.char_shingles(text, n))
    assert one_text("word", text, n) == sorted(oracle.word_shingles(text, n))


@given(texts, st.integers(1, 32), st.booleans())
@settings(max_examples=100)
def test_kmers(text: str, k: int, canonical: bool) -> None:
    expected = sorted(oracle.kmers(text, k, canonical=canonical))
    assert one_text("dna", text, k, canonical=canonical) == expected


@given(st.lists(st.binary(max_size=30), max_size=8), st.sampled_from(["byte", "char", "word"]))
def test_bytes_that_are_no_utf8_are_read_within_bounds(data: list[bytes], unit: str) -> None:
    indptr, found = _native.shingle_batch(unit, data, 3)
    assert len(indptr) == len(data) + 1
    assert indptr[-1] == len(found) <= sum(map(len, data))


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_hash_tokens(tokens: list[bytes]) -> None:
    assert _native.hash_tokens(tokens).tolist() == [oracle.hash_bytes(token) for token in tokens]


AMINO = ("A", "RK", "N", "WYF", "TU")
LETTERS = np.zeros(256, np.uint8)
for group in AMINO:
    LETTERS[[ord(letter) for letter in group + group.lower()]] = ord(group[0])
COMPLEMENTS = np.zeros(256, np.uint8)
COMPLEMENTS[[*b"ACGT"]] = [*b"TGCA"]


@given(st.text("ARNWKYFTUarnwX*é", max_size=80), st.integers(1, 20))
@settings(max_examples=100)
def test_kmers_of_any_letters(text: str, k: int) -> None:
    pair = _native.shingle_batch("letters", ["RAK", text, "RAK"], k, copies=1, letters=LETTERS)
    expected = oracle.letter_kmers(text.encode().decode("latin-1"), k, AMINO, canonical=False)
    assert pair[1][pair[0][1] : pair[0][2]].tolist() == sorted(expected)


@given(st.text("ACGTacgtuN", max_size=120), st.integers(1, 40))
@settings(max_examples=100)
def test_long_kmers_of_both_strands(text: str, k: int) -> None:
    groups = ("A", "C", "G", "TU")
    letters = np.zeros(256, np.uint8)
    for group in groups:
        letters[[ord(letter) for letter in group + group.lower()]] = ord(group[0])
    pair = _native.shingle_batch(
        "letters", [text], k, copies=1, letters=letters, complements=COMPLEMENTS
    )
    assert pair[1].tolist() == sorted(oracle.letter_kmers(text, k, groups, canonical=True))


@given(st.lists(st.lists(elements, max_size=12), max_size=6), st.integers(1, 5))
def test_ngrams_of_numbers(rows: list[list[int]], n: int) -> None:
    indptr = np.cumsum([0, *map(len, rows)]).astype(np.int64)
    flat = np.array([x for row in rows for x in row], np.uint64)
    got, found = _native.ngram_batch(indptr, flat, n)
    for i, row in enumerate(rows):
        assert found[got[i] : got[i + 1]].tolist() == oracle.ngrams(row, n)


@given(
    st.lists(st.lists(st.sampled_from([0, 1, 7, 2**32, 2**64 - 1]), max_size=60), max_size=6),
    st.integers(1, 9),
)
def test_repeats_become_elements_up_to_a_bound(rows: list[list[int]], most: int) -> None:
    indptr = np.cumsum([0, *map(len, rows)]).astype(np.int64)
    flat = np.array([x for row in rows for x in row], np.uint64)
    got, found = _native.sort_unique(indptr, flat, most)
    for i, row in enumerate(rows):
        assert found[got[i] : got[i + 1]].tolist() == sorted(oracle.copies(row, most))


@pytest.mark.parametrize("size", [0, 1, 24, 25, 255, 256, 257, 4096, 4097, 70_000, 1_100_000])
@pytest.mark.parametrize("spread", ["hashes", "packed", "few", "low bits", "fall"])
def test_rows_of_every_length_and_spread_are_sorted(size: int, spread: str) -> None:
    rng = np.random.default_rng(size)
    values = rng.integers(0, 2**64 - 1, size, np.uint64, endpoint=True)
    if spread == "packed":
        values = (values % 2**7 << np.uint64(24)) | values >> np.uint64(40)
    elif spread == "few":
        values %= np.uint64(5)
    elif spread == "low bits":  # all but one alike above bit 20, so that the highest tell nothing
        values %= np.uint64(2**20)
        values[: size // 100] |= np.uint64(2**63)
    elif spread == "fall":
        values = np.sort(values)[::-1].copy()
    expected = np.unique(values)
    got, found = _native.sort_unique(np.array([0, size]), values.copy())
    np.testing.assert_array_equal(found, expected)
    assert got.tolist() == [0, len(expected)]


@given(st.lists(st.lists(elements, max_size=20), max_size=6))
def test_sort_unique(rows: list[list[int]]) -> None:
    indptr = np.cumsum([0, *map(len, rows)]).astype(np.int64)
    flat = np.array([x for row in rows for x in row], np.uint64)
    got, found = _native.sort_unique(indptr, flat)
    assert got[0] == 0
    for i, row in enumerate(rows):
        assert found[got[i] : got[i + 1]].tolist() == sorted(set(row))


@given(some_sets, st.data())
def test_take_sets(sets: list[set[int]], data: Any) -> None:
    indptr, indices = csr(sets)
    rows = data.draw(st.lists(st.integers(0, len(sets) - 1), max_size=9)) if sets else []
    widths = [np.uint64] if any(x >= 2**32 for s in sets for x in s) else [np.uint32, np.uint64]
    for width in widths:
        got, found = _native.take_sets(indptr, indices.astype(width), np.array(rows, np.int64))
        assert found.dtype == np.uint64
        taken = [found[a:b].tolist() for a, b in itertools.pairwise(got)]
        assert taken == [sorted(sets[row]) for row in rows]


# --- what cannot be used is refused --------------------------------------------------------------

POINTS = Points(20, tables=4)
CSR = csr([{1, 2}, {3}])
BAD_CSR = [
    (np.int64([1, 3]), CSR[1]),
    (np.int64([0, 2]), CSR[1]),
    (np.int64([0, 4]), CSR[1]),
    (np.int64([0, 9, 3]), CSR[1]),
    (np.int64([0, -1, 3]), CSR[1]),
    (np.int64([]), CSR[1]),
    (np.int64([]), np.uint64([])),
    (np.int32([0, 2, 3]), CSR[1]),
    (CSR[0], CSR[1].astype(np.int64)),
    (CSR[0].reshape(1, -1), CSR[1]),
    (CSR[0], None),
    (None, CSR[1]),
    (None, None),
    ([0, 2, 3], [1, 2, 3]),
]
U32 = random_u32(3, 4)
REFUSED = (ValueError, TypeError, OverflowError)


@pytest.mark.parametrize("pair", BAD_CSR)
def test_offsets_that_do_not_fit_are_refused(pair: Any) -> None:
    with pytest.raises(REFUSED):
        _native.minhash_by_permutations(*pair, U32, U32, 0)
    with pytest.raises(REFUSED):
        _native.minhash_by_one_permutation(*pair, 4, 0)
    with pytest.raises(REFUSED):
        _native.sort_unique(*pair)
    with pytest.raises(REFUSED):
        _native.jaccard_of_all(*pair, *CSR, 0)
    with pytest.raises(REFUSED):
        _native.jaccard_of_all(*CSR, *pair, 0)
    with pytest.raises(REFUSED):
        POINTS.view().search_sets(
            POINTS.queries[:2], POINTS.query_sketches[:2], *pair, 0, 1, 1, 1, 0.0, ALL
        )


SIGNATURES = random_u32(1, 3, 16)
VECTORS, SIGNS = np.ones((2, 8), np.float32), random_signs(0, 2, 8)
LONG = 2**62
CSR_VALUES = np.ones(len(CSR[1]), np.float32)

BAD_CALLS: list[tuple[str, tuple[Any, ...]]] = [
    ("minhash_by_permutations", (*CSR, U32, U32[:3], 0)),
    ("minhash_by_permutations", (*CSR, U32.astype(np.int32), U32, 0)),
    ("minhash_by_permutations", (*CSR, U32[::2], U32[::2], 0)),
    ("minhash_by_permutations", (*CSR, None, U32, 0)),
    ("minhash_by_permutations", (*CSR, U32, U32, -1)),
    ("minhash_by_permutations", (*CSR, U32, U32, 2**64)),
    ("minhash_by_one_permutation", (*CSR, 0, 0)),
    ("minhash_by_one_permutation", (*CSR, -5, 0)),
    ("minhash_by_one_permutation", (*CSR, 2**30, 0)),
    ("minhash_by_one_permutation", (*CSR, None, 0)),
    ("minhash_table_keys", (SIGNATURES, 0, 1, 0)),
    ("minhash_table_keys", (SIGNATURES, 5, 0, 0)),
    ("minhash_table_keys", (SIGNATURES, -4, -4, 0)),
    ("minhash_table_keys", (SIGNATURES, 17, 1, 0)),
    ("minhash_table_keys", (SIGNATURES, 6, 3, 0)),
    ("minhash_table_keys", (SIGNATURES, 2**32, 2**32, 0)),
    ("minhash_table_keys", (SIGNATURES, 8, 2**61, 0)),
    ("minhash_table_keys", (SIGNATURES[:0], LONG, 4, 0)),
    ("minhash_table_keys", (SIGNATURES[0], 1, 1, 0)),
    ("minhash_table_keys", (SIGNATURES.T, 1, 1, 0)),
    ("minhash_table_keys", (None, 1, 1, 0)),
    ("minhash_sketches", (SIGNATURES, 0, 0)),
    ("minhash_sketches", (SIGNATURES, 0, 12)),
    ("minhash_sketches", (SIGNATURES, 0, 24)),
    ("minhash_sketches", (SIGNATURES, 9, 8)),
    ("minhash_sketches", (SIGNATURES, -8, 8)),
    ("minhash_sketches", (SIGNATURES, 0, -8)),
    ("minhash_sketches", (SIGNATURES, 2**63 - 8, 8)),
    ("minhash_sketches", (None, 0, 8)),
    ("signed_projections", (VECTORS, SIGNS, 24)),
    ("signed_projections", (VECTORS, SIGNS, 12)),
    ("signed_projections", (VECTORS, SIGNS, 0)),
    ("signed_projections", (VECTORS, SIGNS[:, :2], 8)),
    ("signed_projections", (VECTORS, SIGNS[:, :, :4].copy(), 8)),
    ("signed_projections", (np.ones((2, 9), np.float32), SIGNS, 8)),
    ("signed_projections", (VECTORS, random_signs(0, 1, 12), 8)),
    ("signed_projections", (VECTORS.astype(np.float64), SIGNS, 8)),
    ("signed_projections", (VECTORS[0], SIGNS, 8)),
    ("signed_projections", (None, SIGNS, 8)),
    ("signed_projections", (VECTORS, None, 8)),
    ("sparse_projections", (*CSR, CSR_VALUES[:-1], 0, 8)),
    ("sparse_projections", (*CSR, CSR_VALUES.astype(np.float64), 0, 8)),
    ("sparse_projections", (*CSR, CSR_VALUES, 0, 0)),
    ("sparse_projections", (*CSR, CSR_VALUES, 0, 12)),
    ("sparse_projections", (*CSR, CSR_VALUES, 0, LONG)),
    ("sparse_projections", (*CSR, CSR_VALUES, -1, 8)),
    ("sparse_projections", (*CSR, None, 0, 8)),
    ("inner_products_of_sparse", (*CSR, CSR_VALUES[:-1], CSR[1], CSR_VALUES)),
    ("inner_products_of_sparse", (*CSR, CSR_VALUES, CSR[1], CSR_VALUES[:-1])),
    ("inner_products_of_sparse", (*CSR, CSR_VALUES, CSR[1], None)),
    ("insert_into_groups", (POINTS.bitmaps, POINTS.keys[:, :3].copy(), 0, 3)),
    ("insert_into_groups", (POINTS.bitmaps, POINTS.keys, 0, 0)),
    ("insert_into_groups", (POINTS.bitmaps, POINTS.keys, 0, -3)),
    ("insert_into_groups", (POINTS.bitmaps, POINTS.keys, -1, 3)),
    ("insert_into_groups", (POINTS.bitmaps, POINTS.keys, 760, 3)),
    ("insert_into_groups", (POINTS.bitmaps, POINTS.keys, 2**63 - 5, 3)),
    ("insert_into_groups", (POINTS.bitmaps, POINTS.keys, 0, 2**32)),
    ("insert_into_groups", (POINTS.bitmaps, POINTS.keys, 0, 2**32 + 1)),
    ("insert_into_groups", (POINTS.bitmaps, POINTS.keys, LONG, 2**60)),
    ("insert_into_groups", (POINTS.bitmaps[:, :7].copy(), POINTS.keys, 0, 3)),
    ("insert_into_groups", (POINTS.bitmaps[:, :0].copy(), POINTS.keys, 0, 3)),
    ("insert_into_groups", (np.zeros((1, 1 << 17, 32), np.uint8), POINTS.keys[:, :1].copy(), 0, 3)),
    ("insert_into_groups", (POINTS.bitmaps.astype(np.int8), POINTS.keys, 0, 3)),
    ("insert_into_groups", (POINTS.bitmaps, POINTS.keys.astype(np.int32), 0, 3)),
    ("insert_into_groups", (POINTS.bitmaps, None, 0, 3)),
    ("insert_into_groups", (None, POINTS.keys, 0, 3)),
    ("insert_into_groups", (None, None, 0, 3)),
    ("jaccard_of_rows", (*CSR, np.int64([2]), CSR[1], 0)),
    ("jaccard_of_rows", (*CSR, np.int64([-1]), CSR[1], 0)),
    ("jaccard_of_rows", (np.int64([]), CSR[1], np.int64([]), CSR[1], 0)),
    ("jaccard_of_rows", (np.int64([0, 9]), CSR[1], np.int64([0]), CSR[1], 0)),
    ("jaccard_of_rows", (np.int64([0, 9, 3]), CSR[1], np.int64([0]), CSR[1], 0)),
    ("jaccard_of_rows", (np.int64([0, -9, 3]), CSR[1], np.int64([1]), CSR[1], 0)),
    ("jaccard_of_rows", (CSR[0], CSR[1].astype(np.float64), np.int64([0]), CSR[1], 0)),
    ("jaccard_of_rows", (CSR[0], CSR[1].reshape(1, -1), np.int64([0]), CSR[1], 0)),
    ("jaccard_of_rows", (CSR[0], [1, 2, 3], np.int64([0]), CSR[1], 0)),
    ("jaccard_of_rows", (CSR[0], None, np.int64([0]), CSR[1], 0)),
    ("jaccard_of_rows", (*CSR, None, CSR[1], 0)),
    ("jaccard_of_rows", (*CSR, np.int64([0]), None, 0)),
    ("take_sets", (*CSR, np.int64([2]))),
    ("take_sets", (*CSR, np.int64([-1]))),
    ("take_sets", (np.int64([]), CSR[1], np.int64([]))),
    ("take_sets", (np.int64([0, 9, 3]), CSR[1], np.int64([0]))),
    ("take_sets", (np.int64([0, -9, 3]), CSR[1], np.int64([1]))),
    ("take_sets", (CSR[0], CSR[1].astype(np.float64), np.int64([0]))),
    ("take_sets", (CSR[0], None, np.int64([0]))),
    ("take_sets", (*CSR, None)),
    ("shingle_batch", ("byte", [b"abc"], 0)),
    ("shingle_batch", ("byte", [b"abc"], -1)),
    ("shingle_batch", ("dna", [b"ACGT"], 33)),
    ("shingle_batch", ("line", [b"abc"], 3)),
    ("shingle_batch", ("byte", ["a\ud800"], 3)),
    ("shingle_batch", ("byte", [b"abc"], 3, True, -1)),
    ("shingle_batch", ("letters", [b"abc"], 3)),
    ("ngram_batch", (*CSR, 0)),
    ("shingle_batch", ("byte", [None], 3)),
    ("shingle_batch", ("byte", None, 3)),
    ("shingle_batch", (None, [b"abc"], 3)),
    ("hash_tokens", (["abc"],)),
    ("hash_tokens", ([None],)),
    ("hash_tokens", (None,)),
]


@pytest.mark.parametrize(("name", "arguments"), BAD_CALLS)
def test_bad_arguments_are_refused(name: str, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(REFUSED):
        getattr(_native, name)(*arguments)


NO_MORE = np.zeros((20, 0), np.uint8)
BAD_VIEWS: list[dict[str, Any]] = [
    {"points": 21},
    {"points": -1},
    {"points": LONG},
    {"group_size": 0},
    {"group_size": -1},
    {"group_size": 2**32},
    {"group_size": 2**63 - 1},
    {"sketches": (POINTS.sketches[:, :15].copy(), NO_MORE)},
    {"sketches": (POINTS.sketches[:19], NO_MORE)},
    {"sketches": (POINTS.sketches, NO_MORE[:19])},
    {"sketches": (POINTS.sketches, POINTS.sketches[:, :8].copy())},
    {"sketches": (POINTS.sketches.astype(np.uint16), NO_MORE)},
    {"sketches": (POINTS.sketches, None)},
    {"sketches": (POINTS.sketches,)},
    {"sketches": POINTS.sketches},
    {"sketches": None},
    {"ids": POINTS.ids[:19]},
    {"ids": POINTS.ids.astype(np.int32)},
    {"dead": np.zeros(2, np.uint8)},
    {"dead": np.zeros(3, np.uint16)},
    {"bitmaps": POINTS.bitmaps[:, :, :31].copy()},
    {"bitmaps": POINTS.bitmaps[:, :, :0].copy()},
    {"bitmaps": POINTS.bitmaps[:, :3].copy()},
    {"bitmaps": POINTS.bitmaps[:, :0].copy()},
    {"bitmaps": POINTS.bitmaps[0]},
    {"sets": CSR},
    {"sets": (csr(POINTS.sets)[0],)},
    {"sets": (csr(POINTS.sets)[0] + 1, csr(POINTS.sets)[1])},
    {"sets": (csr(POINTS.sets)[0].astype(np.int32), csr(POINTS.sets)[1])},
    {"sets": (csr(POINTS.sets)[0], csr(POINTS.sets)[1].astype(np.int64))},
    {"sets": (csr(POINTS.sets)[0], csr(POINTS.sets)[1].tolist())},
    {"sets": (csr(POINTS.sets)[0], None)},
    {"sets": (None, csr(POINTS.sets)[1])},
    {"vectors": np.zeros((20, 3), np.float32)},
    {"sets": None, "vectors": np.zeros((19, 3), np.float32)},
    {"sets": None, "vectors": np.zeros((20, 3))},
    {"sets": None, "vectors": np.zeros(20, np.float32)},
]


@pytest.mark.parametrize("changed", BAD_VIEWS)
def test_segments_that_do_not_fit_together_are_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(REFUSED):
        POINTS.view(**changed)


KEYS, SKETCHES = POINTS.queries, POINTS.query_sketches
QUERIES = csr(POINTS.query_sets)


@given(
    n=st.integers(0, 300),
    group_size=st.integers(1, 40),
    sketch_bytes=st.sampled_from([16, 32]),
    seed=st.integers(0, 2**32 - 1),
    candidates=st.integers(20, 60),
    k=st.integers(1, 20),
    least=st.sampled_from([-np.inf, 0.0, 0.5, 0.55]),
    steps=st.sampled_from([3, 40, 1000]),
)
@settings(max_examples=60, deadline=None)
def test_estimates_rank_candidates_by_score_then_id(
    candidates: int, k: int, least: float, steps: int, **case: int
) -> None:
    points = Points(**case).insert().remove(range(0, case["n"], 5))
    bits = 8 * case["sketch_bytes"]
    estimates = np.float32(np.round((1 - 2 * np.arange(bits + 1) / bits) * steps) / steps)
    estimates = np.maximum(estimates, 0)  # many distances of one score
    query = points.queries, points.query_sketches, 4, candidates
    view = points.view(sets=None)
    ids, scores = view.estimate(*query, k, least, estimates)
    found = scanned(view, points, 4, candidates)
    for row, got_ids, got_scores in zip(found, ids, scores, strict=True):
        ranked = {int(points.ids[at]): float(estimates[d]) for at, d in row.items()}
        expected_ids, expected_scores = oracle.top(ranked, k, least)
        assert got_ids[got_ids >= 0].tolist() == expected_ids
        assert got_scores[~np.isnan(got_scores)].tolist() == expected_scores


def test_without_features_there_are_candidates_alone() -> None:
    bare, whole = POINTS.view(sets=None), POINTS.view()
    for found, wanted in zip(
        bare.candidates(KEYS, SKETCHES, 2, 5), whole.candidates(KEYS, SKETCHES, 2, 5), strict=True
    ):
        np.testing.assert_array_equal(found, wanted)
    highest = np.ones(SKETCHES.shape[1] * 8 + 1, np.float32)
    values = np.ones(len(QUERIES[1]), np.float32)
    named, scores = bare.estimate(KEYS, SKETCHES, 2, 5, 3, 0.0, highest)
    assert (scores == 1).any()
    # Without ids, hits are called by their places.
    places, same = POINTS.view(sets=None, ids=None).estimate(KEYS, SKETCHES, 2, 5, 5, 0.0, highest)
    assert (same == 1).any()
    assert set(POINTS.ids[places[places >= 0]]) >= set(named[named >= 0])
    with pytest.raises(ValueError, match="segment of sets"):
        bare.search_sets(KEYS, SKETCHES, *QUERIES, 1, 2, 5, 3, 0.0, highest)
    with pytest.raises(ValueError, match="segment of sparse vectors"):
        bare.search_sparse(KEYS, SKETCHES, *QUERIES, values, 2, 5, 3, 0.0, highest)
    with pytest.raises(ValueError, match="segment of vectors"):
        bare.search_vectors(
            KEYS, SKETCHES, np.ones((len(KEYS), 3), np.float32), 2, 5, 3, 0.0, highest
        )


BAD_SEARCHES: list[tuple[str, tuple[Any, ...]]] = [
    ("candidates", (KEYS[:2], SKETCHES, 1, 1)),
    ("estimate", (KEYS[:2], SKETCHES, 1, 1, 1, 0.0, ALL)),
    ("estimate", (KEYS, SKETCHES, 1, 1, 2, 0.0, ALL)),
    ("estimate", (KEYS, SKETCHES, 1, 1, 0, 0.0, ALL)),
    ("estimate", (KEYS, SKETCHES, 1, 1, 1, 0.0, ALL[:-1])),
    ("estimate", (KEYS, SKETCHES, 1, 1, 1, 0.0, None)),
    ("candidates", (KEYS[:, :3].copy(), SKETCHES, 1, 1)),
    ("candidates", (KEYS, SKETCHES[:, :8].copy(), 1, 1)),
    ("candidates", (KEYS, SKETCHES, 0, 1)),
    ("candidates", (KEYS, SKETCHES, -1, 1)),
    ("candidates", (KEYS, SKETCHES, 1, 0)),
    ("candidates", (KEYS.astype(np.int16), SKETCHES, 1, 1)),
    ("candidates", (KEYS[0], SKETCHES[0], 1, 1)),
    ("candidates", (None, SKETCHES, 1, 1)),
    ("candidates", (KEYS, None, 1, 1)),
    ("candidates", (None, None, 1, 1)),
    ("search_sets", (KEYS, SKETCHES, *QUERIES, 0, 1, 1, 0, 0.0, ALL)),
    ("search_sets", (KEYS, SKETCHES, *QUERIES, 0, 1, 1, 2, 0.0, ALL)),
    ("search_sets", (KEYS, SKETCHES, *QUERIES, 0, 0, 1, 1, 0.0, ALL)),
    ("search_sets", (KEYS, SKETCHES, *CSR, 0, 1, 1, 1, 0.0, ALL)),
    ("search_sets", (KEYS, SKETCHES, *QUERIES, -1, 1, 1, 1, 0.0, ALL)),
    ("search_sets", (KEYS, SKETCHES, *QUERIES, 0, 1, 1, 1, None, ALL)),
    ("search_sets", (KEYS, SKETCHES, *QUERIES, 0, 1, 1, 1, 0.0, ALL[1:])),
    ("search_sets", (KEYS, SKETCHES, *QUERIES, 0, 1, 1, 1, 0.0, ALL64)),
    ("search_sets", (KEYS, SKETCHES, *QUERIES, 0, 1, 1, 1, 0.0, None)),
    ("search_vectors", (KEYS, SKETCHES, np.zeros((3, 4), np.float32), 1, 1, 1, 0.0, ALL)),
]


@pytest.mark.parametrize(("name", "arguments"), BAD_SEARCHES)
def test_queries_that_do_not_fit_are_refused(name: str, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(REFUSED):
        getattr(POINTS.view(), name)(*arguments)


def test_queries_of_the_wrong_kind_or_dimension_are_refused() -> None:
    view = POINTS.view(sets=None, vectors=np.zeros((20, 3), np.float32))
    with pytest.raises(ValueError, match="on a segment of sets"):
        view.search_sets(KEYS, SKETCHES, *QUERIES, 0, 1, 1, 1, 0.0, ALL)
    for queries in (np.zeros((3, 4)), np.zeros((2, 3)), np.zeros((3, 0))):
        with pytest.raises(ValueError, match=r"dimension|one query vector"):
            view.search_vectors(KEYS, SKETCHES, queries.astype(np.float32), 1, 1, 1, 0.0, ALL)


def test_huge_numbers_of_cells_and_candidates_are_cut_to_what_there_is() -> None:
    view = POINTS.insert().view()
    ids, _ = view.search_sets(KEYS, SKETCHES, *QUERIES, 0, LONG, LONG, 30, 0.0, ALL)
    assert (ids[0] >= 0).sum() == 20
    assert (ids[1] == -1).all()
