"""The paper's own structure and decode, against slow twins and exact search."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracle
import pytest
from closeby.index import FlatIndex, InvalidInputError, SetBatch, _native, featurizer_from
from closeby.index.paper import PaperFlinngIndex
from closeby.loaders import samples
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.usefixtures("instruction_set")
@given(
    n=st.integers(1, 200),
    rows=st.integers(1, 4),
    cells=st.integers(1, 60),
    tables=st.integers(1, 70),
    range_bits=st.integers(1, 4),
    k=st.integers(1, 40),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_decode_is_that_of_the_twin(
    n: int, rows: int, cells: int, tables: int, range_bits: int, k: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    known = random.integers(0, 2**32, (7, tables), dtype=np.uint32)
    keys = np.take_along_axis(known, random.integers(0, 7, (n, tables)), axis=0)
    queries = np.take_along_axis(known, random.integers(0, 7, (3, tables)), axis=0)
    cell_of = random.integers(0, cells, (n, rows)) + np.arange(rows) * cells
    stride = -(-rows * cells // 256) * 32
    bitmaps = np.zeros((tables, 1 << range_bits, stride), np.uint8)
    _native.insert_into_rows(bitmaps, keys, cell_of.astype(np.uint32))
    members = [np.flatnonzero((cell_of == c).any(axis=1)).tolist() for c in range(rows * cells)]
    first = np.cumsum([0, *map(len, members)]).astype(np.int64)
    flat = np.array([i for cell in members for i in cell], np.uint32)
    removed = set(range(0, n, 5))
    dead = np.packbits([i in removed for i in range(n)], bitorder="little")
    places, passed = _native.paper_search(bitmaps, queries, rows, first, flat, dead, k)
    for query, row, tests in zip(queries, places, passed, strict=True):
        counts = [
            oracle.cell_counts(keys[cell], query, range_bits, n)[0] if cell else 0
            for cell in members
        ]
        expected = oracle.paper_decode(counts, members, rows, removed, k)
        found = row >= 0
        assert list(zip(row[found].tolist(), tests[found].tolist(), strict=True)) == expected
        assert found[: len(expected)].all()


@pytest.mark.parametrize(
    "change",
    [
        {"rows": 0},
        {"rows": 256},
        {"k": 0},
        {"first": np.int64([0, 2, 1, 4])},
        {"first": np.int64([0, 1, 2, 3])},
        {"members": np.uint32([0, 1, 2, 8])},
        {"keys": np.zeros((1, 3), np.uint32)},
        {"bitmaps": np.zeros((2, 4, 31), np.uint8)},
        {"bitmaps": np.zeros((2, 3, 32), np.uint8)},
    ],
)
def test_arrays_that_do_not_fit_are_refused(change: dict[str, Any]) -> None:
    fitting: dict[str, Any] = {
        "bitmaps": np.zeros((2, 4, 32), np.uint8),
        "keys": np.zeros((1, 2), np.uint32),
        "rows": 1,
        "first": np.int64([0, 1, 2, 4]),
        "members": np.uint32([0, 1, 2, 3]),
        "dead": np.zeros(1, np.uint8),
        "k": 3,
    }
    assert (_native.paper_search(**fitting)[0] == -1).all()
    with pytest.raises(ValueError, match=r"."):
        _native.paper_search(**(fitting | change))


def test_cells_that_the_bitmaps_lack_are_refused() -> None:
    keys = np.zeros((1, 2), np.uint32)
    bitmaps = np.zeros((2, 4, 32), np.uint8)
    with pytest.raises(ValueError, match="no bit for"):
        _native.insert_into_rows(bitmaps, keys, np.uint32([[256]]))


@pytest.fixture(scope="module")
def urls() -> SetBatch:
    chosen = np.random.default_rng(1).permutation(np.array(samples.urls()))[:20_000]
    return featurizer_from({"kind": "shingles"}).features(chosen.tolist())


@pytest.mark.parametrize(("rows", "floor"), [(1, 0.3), (2, 0.8), (3, 0.85)])
def test_recall_of_urls(urls: SetBatch, rows: int, floor: float) -> None:
    """R10@100 as the paper measures it. One row answers too, with the points of the best cells."""
    index = PaperFlinngIndex(rows=rows, cells=2_048, tables=128, range_bits=6)
    index.add(urls)
    exact = FlatIndex()
    exact.add(urls)
    queries = urls.take(np.arange(0, 20_000, 100))
    expected, _ = exact.search(queries, 10, threshold=0.5)
    ids, scores = index.search(queries, 100)
    hits = [np.isin(row[row >= 0], ours).mean() for row, ours in zip(expected, ids, strict=True)]
    assert np.mean(hits) >= floor
    # A point is first met everywhere in ever weaker cells; it meets itself before all others.
    assert (np.diff(scores, axis=1) <= 0).all()
    itself = ids == np.arange(0, 20_000, 100)[:, None]
    assert itself.any(axis=1).mean() > 0.97


def test_combining_hashes_makes_cells_purer(urls: SetBatch) -> None:
    """The published code hashes only the first of K values, so that K changes nothing."""
    passed = {}
    for K in (1, 4):
        index = PaperFlinngIndex(rows=2, cells=512, tables=32, K=K, range_bits=8)
        index.add(urls.slice(0, 4_000))
        passed[K] = float(np.nanmean(index.search(urls.slice(5_000, 5_100), 50)[1]))
    assert passed[4] < 0.7 * passed[1]


def test_vectors() -> None:
    random = np.random.default_rng(2)
    points = random.standard_normal((5_000, 60)).astype(np.float32)
    index = PaperFlinngIndex("cosine", rows=2, cells=512, tables=64, range_bits=10)
    index.add(points)
    near = points[:200] + 0.2 * random.standard_normal((200, 60)).astype(np.float32)
    ids, _ = index.search(near, 5)
    assert (ids == np.arange(200)[:, None]).any(axis=1).mean() > 0.95


def test_answers_do_not_depend_on_batches_and_leave_out_removed_points(urls: SetBatch) -> None:
    points, queries = urls.slice(0, 3_000), urls.slice(0, 100)
    options: dict[str, Any] = {"rows": 2, "cells": 256, "tables": 32}
    whole, pieces = PaperFlinngIndex(**options), PaperFlinngIndex(**options)
    whole.add(points)
    for start in range(0, 3_000, 999):
        pieces.add(points.slice(start, min(start + 999, 3_000)))
        pieces.search(queries, 3)
    expected = whole.search(queries, 20)
    for ours, theirs in zip(pieces.search(queries, 20), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    other, _ = PaperFlinngIndex(seed=1, **options).search(queries, 20)
    assert (other == -1).all()
    assert whole.remove([0, 2, 4, 99_999]) == 3
    assert whole.remove([0, 2]) == 0
    assert len(whole) == 2_997
    ids, _ = whole.search(queries, 20)
    assert not np.isin(ids, [0, 2, 4]).any()


def test_short_answers_are_short(urls: SetBatch) -> None:
    """The published code fills what it does not find with point 0."""
    index = PaperFlinngIndex(rows=2, cells=1_024, tables=16, K=8, range_bits=10)
    index.add(urls.slice(0, 30))
    ids, scores = index.search(urls.slice(500, 520), 25)
    assert ((ids >= 0) == ~np.isnan(scores)).all()
    assert (ids == -1).any(axis=1).all()
    for row in ids:
        assert len(set(row[row >= 0].tolist())) == (row >= 0).sum()


@pytest.mark.parametrize(
    "options",
    [{"rows": 0}, {"rows": 256}, {"cells": 0}, {"tables": 0}, {"K": 0}, {"range_bits": 17}],
)
def test_parameters_out_of_range_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(InvalidInputError):
        PaperFlinngIndex(**options)


def test_an_id_is_taken_once(urls: SetBatch) -> None:
    index = PaperFlinngIndex(rows=1, cells=16, tables=8)
    index.add(urls.slice(0, 3), [5, 6, 7])
    with pytest.raises(InvalidInputError):
        index.add(urls.slice(3, 4), [6])
    assert index.explain()["points"] == 3
