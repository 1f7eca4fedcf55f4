"""Batches of points: sets or sparse vectors in CSR form, or dense vectors in one matrix."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from . import _native
from .errors import InvalidInputError

Int64Array: TypeAlias = npt.NDArray[np.int64]
UInt64Array: TypeAlias = npt.NDArray[np.uint64]
FloatArray: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class SetBatch:
    """Sets of 64-bit elements in CSR form.

    Attributes:
        indptr: int64 (n + 1,); set i is ``indices[indptr[i]:indptr[i + 1]]``.
        indices: uint64 (elements,); ascending and without repeats within each set.
    """

    indptr: Int64Array
    indices: UInt64Array

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def sizes(self) -> Int64Array:
        """Number of elements of each set, int64 (n,)."""
        return np.diff(self.indptr)

    def row(self, i: int) -> UInt64Array:
        """Elements of set i, uint64, ascending."""
        return self.indices[self.indptr[i] : self.indptr[i + 1]]

    def slice(self, start: int, stop: int) -> SetBatch:
        """Sets start .. stop, without copying the elements."""
        indptr = self.indptr[start : stop + 1]
        return SetBatch(indptr - indptr[0], self.indices[indptr[0] : indptr[-1]])

    def take(self, rows: npt.ArrayLike) -> SetBatch:
        """The sets with these numbers, in this order."""
        chosen = np.ascontiguousarray(rows, np.int64)
        return SetBatch(*_native.take_sets(self.indptr, self.indices, chosen))

    @staticmethod
    def concat(batches: Sequence[SetBatch]) -> SetBatch:
        """All the sets of several batches, in order."""
        if not batches:
            return SetBatch(np.zeros(1, np.int64), np.zeros(0, np.uint64))
        sizes = np.concatenate([batch.sizes for batch in batches])
        indptr = np.concatenate(([0], np.cumsum(sizes)))
        return SetBatch(indptr, np.concatenate([batch.indices for batch in batches]))


@dataclass(frozen=True, eq=False)
class SparseBatch(SetBatch):
    """Sparse vectors in CSR form: sets of dimensions, with a value for each of them.

    Attributes:
        indptr, indices: see ``SetBatch``; a dimension is any number 0 .. 2**64 - 1.
        values: float32 (elements,), finite.
    """

    values: FloatArray

    def slice(self, start: int, stop: int) -> SparseBatch:
        """Vectors start .. stop, without copying them."""
        first, last = self.indptr[start], self.indptr[min(stop, len(self))]
        part = super().slice(start, stop)
        return SparseBatch(part.indptr, part.indices, self.values[first:last])

    def take(self, rows: npt.ArrayLike) -> SparseBatch:
        """The vectors with these numbers, in this order."""
        chosen = np.ascontiguousarray(rows, np.int64)
        part = super().take(chosen)
        places = np.repeat(self.indptr[chosen] - part.indptr[:-1], part.sizes)
        return SparseBatch(
            part.indptr, part.indices, self.values[places + np.arange(len(part.indices))]
        )

    @staticmethod
    def concat(batches: Sequence[SetBatch]) -> SparseBatch:
        """All the vectors of several batches, in order."""
        joined = SetBatch.concat(batches)
        values = [batch.values for batch in batches if isinstance(batch, SparseBatch)]
        return SparseBatch(
            joined.indptr,
            joined.indices,
            np.concatenate(values) if values else np.zeros(0, np.float32),
        )


Batch: TypeAlias = SetBatch | FloatArray


def is_sparse(batch: Any) -> bool:
    """Whether this is a batch of sparse vectors: a ``SparseBatch`` or a scipy matrix."""
    return isinstance(batch, SparseBatch) or all(
        hasattr(batch, name) for name in ("indptr", "indices", "data")
    )


def as_sparse_batch(vectors: Any) -> SparseBatch:
    """Sparse vectors as a :class:`SparseBatch`.

    Args:
        vectors: a ``SparseBatch``, taken as it is, or a scipy CSR matrix of numbers; values of one
            dimension that stand in a row twice are added, zeros are left out.

    Raises:
        InvalidInputError: neither, or values that are not finite in float32.
    """
    if isinstance(vectors, SparseBatch):
        return vectors
    if not is_sparse(vectors) or getattr(vectors, "format", "csr") != "csr":
        raise InvalidInputError(
            "sparse vectors must be a SparseBatch or a scipy CSR matrix; call .tocsr()",
            field="vector",
        )
    if vectors.data.dtype.kind not in "fiu":
        raise InvalidInputError(
            f"vectors must be numbers, not {vectors.data.dtype}", field="vector"
        )
    summed = vectors.copy()
    summed.sum_duplicates()
    with np.errstate(over="ignore"):
        summed.data = summed.data.astype(np.float32)
    summed.eliminate_zeros()
    indptr = summed.indptr.astype(np.int64)
    bad = np.flatnonzero(~np.isfinite(summed.data))
    if len(bad):
        raise InvalidInputError(
            "vectors must be finite numbers within the range of float32",
            field="vector",
            row=int(np.searchsorted(indptr, bad[0], side="right") - 1),
        )
    return SparseBatch(indptr, summed.indices.astype(np.uint64), summed.data)


def as_set_batch(sets: Any) -> SetBatch:
    """Sets in any of the accepted forms as a :class:`SetBatch`.

    Args:
        sets: a ``SetBatch``, a scipy CSR matrix (column numbers of the non-zeros are the elements),
            a pair ``(indptr, indices)``, or a sequence of integer arrays or iterables.
            Elements are integers 0 .. 2**64 - 1, in any order; repeats count once.

    Raises:
        InvalidInputError: elements are not such integers, or the offsets do not fit.
    """
    if isinstance(sets, SetBatch):
        return sets
    if hasattr(sets, "indptr") and hasattr(sets, "indices"):
        return _from_csr(*_nonzero_csr(sets))
    if (
        isinstance(sets, tuple)
        and len(sets) == 2
        and np.ndim(sets[0]) == 1
        and np.ndim(sets[1]) == 1
    ):
        return _from_csr(*sets)
    if isinstance(sets, (str, bytes)) or not isinstance(sets, Iterable):
        raise InvalidInputError(
            "sets must be a list of integer arrays, a scipy CSR matrix or (indptr, indices)",
            field="set",
        )
    return _sorted_unique(*integer_rows(sets))


def integer_rows(rows: Iterable[Any]) -> tuple[Int64Array, UInt64Array]:
    """Offsets and numbers of rows of integers, in order and with repeats.

    Raises:
        InvalidInputError: elements are no integers 0 .. 2**64 - 1; ``row`` says where.
    """
    arrays = [_elements(row, number) for number, row in enumerate(rows)]
    indptr = np.concatenate(([0], np.cumsum([len(row) for row in arrays], dtype=np.int64)))
    values = np.concatenate(arrays) if arrays else np.zeros(0, np.uint64)
    return indptr.astype(np.int64), values


def _nonzero_csr(matrix: Any) -> tuple[Any, Any]:
    """Offsets and columns of a CSR matrix; explicit zeros are no elements."""
    if getattr(matrix, "format", "csr") != "csr":
        raise InvalidInputError("a sparse matrix must be CSR; call .tocsr()", field="set")
    data = getattr(matrix, "data", None)
    if data is not None and len(data) == len(matrix.indices) and not np.all(data):
        matrix = matrix.copy()
        matrix.eliminate_zeros()
    return matrix.indptr, matrix.indices


def _from_csr(indptr: Any, indices: Any) -> SetBatch:
    offsets = np.asarray(indptr)
    if offsets.ndim != 1 or offsets.dtype.kind not in "iu" or len(offsets) == 0:
        raise InvalidInputError(
            "indptr must be a 1-d integer array of n + 1 offsets", field="indptr"
        )
    elements = _elements(indices, None).copy()
    offsets = offsets.astype(np.int64)
    if offsets[0] != 0 or offsets[-1] != len(elements) or np.any(np.diff(offsets) < 0):
        raise InvalidInputError(
            "indptr must begin with 0, never fall, and end with len(indices)", field="indptr"
        )
    return _sorted_unique(offsets, elements)


def _elements(row: Any, number: int | None) -> UInt64Array:
    """One set's elements as uint64, refusing what is no integer of 0 .. 2**64 - 1."""
    array = row if isinstance(row, np.ndarray) else _exact_integers(row, number)
    if array.ndim != 1 or (array.dtype.kind not in "iu" and array.size):
        raise InvalidInputError(
            f"a set must be a 1-d array of integers, not {array.dtype} of shape {array.shape}",
            field="set",
            row=number,
        )
    if array.dtype.kind == "i" and array.size and array.min() < 0:
        raise InvalidInputError("set elements must be from 0 to 2**64 - 1", field="set", row=number)
    return array.astype(np.uint64)


def _exact_integers(row: Any, number: int | None) -> npt.NDArray[Any]:
    """A Python iterable as uint64, without the detour over float that NumPy takes above 2**63."""
    try:
        items = list(row)
    except TypeError:
        items = [None]
    if any(
        isinstance(item, (bool, np.bool_)) or not isinstance(item, (int, np.integer))
        for item in items
    ):
        raise InvalidInputError("set elements must be integers", field="set", row=number)
    try:
        return np.array(items, np.uint64)
    except OverflowError:
        raise InvalidInputError(
            "set elements must be from 0 to 2**64 - 1", field="set", row=number
        ) from None


def _sorted_unique(indptr: Int64Array, indices: UInt64Array) -> SetBatch:
    return SetBatch(
        *_native.sort_unique(np.ascontiguousarray(indptr), np.ascontiguousarray(indices))
    )


def as_dense_batch(vectors: Any, dim: int | None = None) -> FloatArray:
    """Vectors as float32 (n, dim), C-contiguous; a single vector becomes one row.

    Args:
        vectors: array-like of numbers, (n, dim) or (dim,).
        dim: the dimension that they must have, if known.

    Raises:
        InvalidInputError: ragged, not numbers, a value that is not finite in float32, or of the
            wrong dimension.
    """
    if is_sparse(vectors):
        raise InvalidInputError(
            'vectors must be dense here: call .toarray(), or use "flinng", "lsh" or "flat"',
            field="vector",
        )
    try:
        array = np.asarray(vectors)
    except ValueError:
        raise InvalidInputError("vectors must all have the same length", field="vector") from None
    if array.dtype.kind not in "fiu":
        raise InvalidInputError(f"vectors must be numbers, not {array.dtype}", field="vector")
    if array.ndim == 1:
        array = array.reshape(1, -1) if array.size or dim else array.reshape(0, 0)
    if array.ndim != 2:
        raise InvalidInputError(f"vectors must be (n, dim), not {array.shape}", field="vector")
    if dim is not None and len(array) and array.shape[1] != dim:
        raise InvalidInputError(
            f"vectors must have {dim} dimensions, not {array.shape[1]}", field="vector", limit=dim
        )
    if len(array) and array.shape[1] == 0:
        raise InvalidInputError("vectors must have at least one dimension", field="vector")
    with np.errstate(over="ignore"):
        dense = np.ascontiguousarray(array, np.float32)
    bad = np.flatnonzero(~np.isfinite(dense).all(axis=1))
    if len(bad):
        raise InvalidInputError(
            "vectors must be finite numbers within the range of float32",
            field="vector",
            row=int(bad[0]),
        )
    return dense
