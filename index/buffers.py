"""Growing columns of points in order of arrival.

One writer appends while readers hold snapshots: a buffer only writes behind what a snapshot
covers, and moves to a larger array instead of stretching the one that readers may hold.
"""

from __future__ import annotations

from typing import Any, overload

import numpy as np
import numpy.typing as npt

from .batches import Batch, FloatArray, Int64Array, SetBatch, SparseBatch, UInt64Array
from .hashed import HashedBatch, Stored


def marked(flags: npt.NDArray[np.bool_]) -> Int64Array:
    """Places where flags are set, rising, int64, though another thread may change them meanwhile.

    Of a copy: NumPy counts the flags, then looks for as many, and where some were cleared in
    between it leaves garbage behind the last.
    """
    return np.flatnonzero(flags.copy()).astype(np.int64, copy=False)


class Column:
    """Rows of fixed width and type that can be appended to."""

    def __init__(self, dtype: npt.DTypeLike, width: tuple[int, ...] = ()) -> None:
        self._array = np.zeros((0, *width), dtype)
        self._rows = 0

    def __len__(self) -> int:
        return self._rows

    def append(self, rows: npt.NDArray[Any]) -> None:
        """Add rows behind the last."""
        end = self._rows + len(rows)
        if end > len(self._array):
            grown = np.zeros(
                (max(end, 2 * len(self._array), 1024), *self._array.shape[1:]), self._array.dtype
            )
            grown[: self._rows] = self._array[: self._rows]
            self._array = grown
        self._array[self._rows : end] = rows
        self._rows = end

    def snapshot(self) -> npt.NDArray[Any]:
        """All rows so far, without a copy; later appends do not change them."""
        return self._array[: self._rows]

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes."""
        return int(self._array.nbytes)


class SetColumn:
    """Sets in CSR form that can be appended to."""

    def __init__(self) -> None:
        self._indptr = Column(np.int64)
        self._indptr.append(np.zeros(1, np.int64))
        self._indices = Column(np.uint64)

    def append(self, batch: Stored) -> None:
        """Add the sets of a batch behind the last."""
        assert isinstance(batch, SetBatch)
        base = len(self._indices)
        self._indices.append(batch.indices)
        self._indptr.append(batch.indptr[1:] + base)

    def snapshot(self) -> SetBatch:
        """All sets so far, without a copy."""
        indptr: Int64Array = self._indptr.snapshot()
        indices: UInt64Array = self._indices.snapshot()
        return SetBatch(indptr, indices[: indptr[-1]])

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes."""
        return self._indptr.nbytes + self._indices.nbytes


class SparseColumn(SetColumn):
    """Sparse vectors that can be appended to."""

    def __init__(self) -> None:
        super().__init__()
        self._values = Column(np.float32)

    def append(self, batch: Stored) -> None:
        """Add the vectors of a batch behind the last."""
        assert isinstance(batch, SparseBatch)
        self._values.append(batch.values)
        super().append(batch)

    def snapshot(self) -> SparseBatch:
        """All vectors so far, without a copy."""
        sets = super().snapshot()
        return SparseBatch(sets.indptr, sets.indices, self._values.snapshot()[: sets.indptr[-1]])

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes."""
        return super().nbytes + self._values.nbytes


class VectorColumn:
    """Dense vectors that can be appended to."""

    def __init__(self, dim: int) -> None:
        self._rows = Column(np.float32, (dim,))

    def append(self, batch: Stored) -> None:
        """Add the rows of a batch behind the last."""
        assert isinstance(batch, np.ndarray)
        self._rows.append(batch)

    def snapshot(self) -> FloatArray:
        """All vectors so far, without a copy."""
        return self._rows.snapshot()

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes."""
        return self._rows.nbytes


class HashedColumn:
    """Hashes of points that can be appended to; `like` has as many of them."""

    def __init__(self, like: HashedBatch) -> None:
        key_type, tables, sketch_bytes, words = like.widths
        self._keys = Column(key_type, (tables,))
        self._sketches = Column(np.uint8, (sketch_bytes,))
        self._order = Column(np.uint32, (words,))

    def append(self, batch: Stored) -> None:
        """Add the points of a batch behind the last."""
        assert isinstance(batch, HashedBatch)
        self._sketches.append(batch.sketches)
        self._order.append(batch.order)
        self._keys.append(batch.keys)

    def snapshot(self) -> HashedBatch:
        """All points so far, without a copy."""
        keys = self._keys.snapshot()
        return HashedBatch(keys, self._sketches.snapshot(), self._order.snapshot())

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes."""
        return self._keys.nbytes + self._sketches.nbytes + self._order.nbytes


@overload
def feature_column(batch: Batch) -> SetColumn | VectorColumn: ...


@overload
def feature_column(batch: Stored) -> SetColumn | VectorColumn | HashedColumn: ...


def feature_column(batch: Stored) -> SetColumn | VectorColumn | HashedColumn:
    """An empty column for features of this kind."""
    if isinstance(batch, HashedBatch):
        return HashedColumn(batch)
    if isinstance(batch, SparseBatch):
        return SparseColumn()
    return SetColumn() if isinstance(batch, SetBatch) else VectorColumn(batch.shape[1])
