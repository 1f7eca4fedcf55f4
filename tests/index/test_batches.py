from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse
from closeby.index import (
    InvalidInputError,
    SetBatch,
    SparseBatch,
    as_dense_batch,
    as_set_batch,
    as_sparse_batch,
)
from hypothesis import given
from hypothesis import strategies as st

HUGE = 2**64 - 1
SETS = [[3, 1, 2], [], [HUGE, 0, HUGE], [5]]
EXPECTED = [[1, 2, 3], [], [0, HUGE], [5]]


def rows(batch: SetBatch) -> list[list[int]]:
    return [batch.row(i).tolist() for i in range(len(batch))]


@pytest.mark.parametrize(
    "sets",
    [
        SETS,
        [set(s) for s in SETS],
        [tuple(s) for s in SETS],
        (iter(s) for s in SETS),
        [np.array(s, np.uint64) for s in SETS],
        [np.array([3, 1, 2], np.uint8), [], {HUGE, 0}, np.int64([5])],
        (np.int64([0, 3, 3, 6, 7]), np.array([3, 1, 2, HUGE, 0, HUGE, 5], np.uint64)),
        ([0, 3, 3, 6, 7], [3, 1, 2, HUGE, 0, HUGE, 5]),
    ],
)
def test_every_form_of_sets_becomes_sorted_and_unique(sets: Any) -> None:
    batch = as_set_batch(sets)
    assert batch.indptr.dtype == np.int64
    assert batch.indices.dtype == np.uint64
    assert rows(batch) == EXPECTED
    assert batch.sizes.tolist() == [3, 0, 2, 1]
    assert as_set_batch(batch) is batch


@pytest.mark.parametrize("form", [scipy.sparse.csr_matrix, scipy.sparse.csr_array])
def test_columns_of_the_non_zeros_of_a_csr_matrix_are_elements(form: Any) -> None:
    dense = np.array([[0, 2, 0, 1], [0, 0, 0, 0], [1, 1, 0, 0]])
    matrix = form(dense)
    assert rows(as_set_batch(matrix)) == [[1, 3], [], [0, 1]]
    matrix.data[0] = 0  # an explicit zero
    assert rows(as_set_batch(matrix)) == [[3], [], [0, 1]]
    assert matrix.nnz == 4, "the caller's matrix must stay as it was"
    with pytest.raises(InvalidInputError, match="CSR"):
        as_set_batch(scipy.sparse.csc_matrix(dense))


def test_the_callers_arrays_are_not_sorted_in_place() -> None:
    indptr, indices = np.int64([0, 3]), np.array([3, 1, 2], np.uint64)
    as_set_batch((indptr, indices))
    sets = [indices]
    as_set_batch(sets)
    assert indices.tolist() == [3, 1, 2]


def test_no_sets() -> None:
    for empty in ([], SetBatch.concat([]), ([0], []), np.zeros((0, 3), np.int64)):
        batch = as_set_batch(empty)
        assert len(batch) == 0
        assert batch.indptr.tolist() == [0]


@pytest.mark.parametrize(
    ("sets", "field", "row"),
    [
        ([[1], [-1]], "set", 1),
        ([[1], [2**64]], "set", 1),
        ([[1], [1.5]], "set", 1),
        ([[1], [True]], "set", 1),
        ([[1], [None]], "set", 1),
        ([[1], ["1"]], "set", 1),
        ([[1], "12"], "set", 1),
        ([[1], 7], "set", 1),
        ([[1], None], "set", 1),
        ([[1], np.array([1.0])], "set", 1),
        ([[1], np.array([[1]])], "set", 1),
        ([[1], np.array([-5])], "set", 1),
        ("abc", "set", None),
        (b"abc", "set", None),
        (7, "set", None),
        (None, "set", None),
        (([0, 2], [1]), "indptr", None),
        (([1, 1], [1]), "indptr", None),
        (([0, 2, 1], [1]), "indptr", None),
        (([0.0, 1.0], [1]), "indptr", None),
        (([], [1]), "indptr", None),
        (([0, 1], [-1]), "set", None),
        (([0, 1], [1.5]), "set", None),
    ],
)
def test_what_is_no_set_is_refused_by_field_and_row(sets: Any, field: str, row: Any) -> None:
    with pytest.raises(InvalidInputError) as caught:
        as_set_batch(sets)
    assert (caught.value.field, caught.value.row) == (field, row)


@given(
    st.lists(st.sets(st.integers(0, HUGE), max_size=5), max_size=6),
    st.lists(st.integers(0, 5), max_size=9),
    st.integers(0, 6),
    st.integers(0, 6),
)
def test_take_slice_and_concat(sets: list[set[int]], wanted: list[int], a: int, b: int) -> None:
    expected = [sorted(s) for s in sets]
    batch = as_set_batch(sets)
    wanted = [i for i in wanted if i < len(sets)]
    assert rows(batch.take(wanted)) == [expected[i] for i in wanted]
    start, stop = sorted((min(a, len(sets)), min(b, len(sets))))
    assert rows(batch.slice(start, stop)) == expected[start:stop]
    assert rows(SetBatch.concat([batch.take(wanted), batch])) == [
        *(expected[i] for i in wanted),
        *expected,
    ]
    for part in (batch.take(wanted), batch.slice(start, stop)):
        assert part.indptr[0] == 0
        assert part.indptr.dtype == np.int64
        assert part.indices.dtype == np.uint64


# --- vectors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "vectors",
    [
        [[1, 2], [3, 4]],
        np.array([[1, 2], [3, 4]], np.int8),
        np.array([[1, 3], [2, 4]], np.float64).T,
        np.array([[1, 0, 2, 0], [3, 0, 4, 0]], np.float16)[:, ::2],
    ],
)
def test_every_form_of_vectors_becomes_float32_rows(vectors: Any) -> None:
    dense = as_dense_batch(vectors, 2)
    assert dense.dtype == np.float32
    assert dense.flags.c_contiguous
    assert dense.tolist() == [[1, 2], [3, 4]]


def test_one_vector_is_one_row_and_none_is_none() -> None:
    assert as_dense_batch([1.0, 2.0]).tolist() == [[1, 2]]
    assert len(as_dense_batch([])) == 0
    assert as_dense_batch(np.zeros((0, 7)), 7).shape == (0, 7)


@pytest.mark.parametrize(
    ("vectors", "row"),
    [
        ([[1.0, np.nan]], 0),
        ([[1.0, 2.0], [np.inf, 2.0]], 1),
        ([[1.0, 2.0], [1.0, 2.0], [1e39, 0.0]], 2),
        ([[1.0], [1.0, 2.0]], None),
        ([["a", "b"]], None),
        ([[None, 1.0]], None),
        ([[True, False]], None),
        ([[1j, 2j]], None),
        ([[[1.0, 2.0]]], None),
        ([[1.0, 2.0, 3.0]], None),
        (7.0, None),
        (None, None),
        (np.zeros((2, 0)), None),
    ],
)
def test_what_are_no_vectors_is_refused(vectors: Any, row: Any) -> None:
    with pytest.raises(InvalidInputError) as caught:
        as_dense_batch(vectors, 2)
    assert caught.value.field == "vector"
    assert caught.value.row == row
    with pytest.raises(InvalidInputError):
        as_dense_batch(np.zeros((2, 0)))


# --- sparse vectors ------------------------------------------------------------------------------


def test_sparse_vectors_are_sliced_taken_and_joined_as_rows_of_the_matrix() -> None:
    matrix = scipy.sparse.random(12, 40, 0.2, "csr", random_state=2, dtype=np.float32)

    def dense(batch: SparseBatch) -> Any:
        parts = (batch.values, batch.indices.astype(np.int64), batch.indptr)
        return scipy.sparse.csr_matrix(parts, (len(batch), 40)).toarray()

    batch, rows = as_sparse_batch(matrix), matrix.toarray()
    np.testing.assert_array_equal(dense(batch), rows)
    np.testing.assert_array_equal(dense(batch.slice(3, 20)), rows[3:])
    np.testing.assert_array_equal(dense(batch.slice(3, 8).take([4, 0, 0])), rows[[7, 3, 3]])
    joined = SparseBatch.concat([batch.slice(2, 5), batch.take([])])
    np.testing.assert_array_equal(dense(joined), rows[2:5])
    assert len(SparseBatch.concat([])) == 0


def test_values_of_one_dimension_are_added_and_zeros_are_no_elements() -> None:
    parts = (np.array([1.0, 2.0, 3.0, 0.0, 5.0, -5.0]), np.array([7, 2, 7, 1, 4, 4]))
    matrix = scipy.sparse.csr_matrix((*parts, np.array([0, 3, 6])), (2, 9))
    batch = as_sparse_batch(matrix)
    assert batch.indptr.tolist() == [0, 2, 2]
    assert batch.indices.tolist() == [2, 7]
    assert batch.values.tolist() == [2, 4]
    assert batch.values.dtype == np.float32
    assert matrix.nnz == 6  # what was given is left as it is


def test_sparse_vectors_are_refused_where_dense_ones_are_wanted() -> None:
    matrix = scipy.sparse.csr_matrix(np.eye(3, dtype=np.float32))
    for batch in (matrix, as_sparse_batch(matrix)):
        with pytest.raises(InvalidInputError, match=r"\.toarray\(\)"):
            as_dense_batch(batch)
