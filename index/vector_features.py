"""Vectors as they are given: dense lists of floats, and sparse ones as indices and values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .batches import FloatArray, SparseBatch, as_dense_batch
from .errors import InvalidInputError
from .featurizer import MAX_ELEMENTS, Featurizer, whole_number

MAX_DIM = 65_536
MAX_SPARSE_DIM = 2**32


class Vector(Featurizer):
    """A dense vector of `dim` floats."""

    kind = "vector"
    field = "vector"
    gives_back = True

    def __init__(self, dim: int) -> None:
        self.dim = whole_number(dim, "features.dim", 1, MAX_DIM)

    @property
    def spec(self) -> dict[str, Any]:
        """See :class:`Featurizer`."""
        return {"kind": self.kind, "dim": self.dim}

    def features(self, inputs: Sequence[Any] | npt.NDArray[Any]) -> FloatArray:
        """See :class:`Featurizer`; inputs are lists of floats, or one array (n, dim)."""
        if isinstance(inputs, np.ndarray):
            return as_dense_batch(inputs, self.dim)
        out = np.empty((len(inputs), self.dim), np.float32)
        for row, vector in enumerate(inputs):
            out[row] = self._checked(vector, row)
        return out

    def _checked(self, vector: Any, row: int) -> FloatArray:
        plain = isinstance(vector, (list, tuple))
        # A bool is an int to Python and a number to NumPy, but not to whoever sent it.
        if plain and not {type(value) for value in vector} <= {int, float}:
            raise InvalidInputError("vector must be a list of numbers", field="vector", row=row)
        if not plain and (not isinstance(vector, np.ndarray) or vector.ndim != 1):
            raise InvalidInputError("vector must be a list of numbers", field="vector", row=row)
        if len(vector) != self.dim:
            raise InvalidInputError(
                f"vector must have {self.dim} dimensions, not {len(vector)}",
                field="vector",
                row=row,
                limit=self.dim,
            )
        try:
            dense: FloatArray = as_dense_batch(np.asarray(vector), self.dim)[0]
        except (InvalidInputError, OverflowError) as error:
            raise InvalidInputError(str(error), field="vector", row=row) from None
        return dense


class Sparse(Featurizer):
    """A sparse vector of `dim` dimensions, given as ``{"indices": […], "values": […]}``.

    Indices are whole numbers 0 .. dim - 1 in any order, none of them twice; a value that is zero
    in float32 is as if it were not given.
    """

    kind = "sparse"
    field = "sparse"
    gives_back = True

    def __init__(self, dim: int) -> None:
        self.dim = whole_number(dim, "features.dim", 1, MAX_SPARSE_DIM)

    @property
    def spec(self) -> dict[str, Any]:
        """See :class:`Featurizer`."""
        return {"kind": self.kind, "dim": self.dim}

    def features(self, inputs: Sequence[Any]) -> SparseBatch:
        """See :class:`Featurizer`; inputs are mappings of two lists or arrays of one length."""
        parts = [self._parts(vector, row) for row, vector in enumerate(inputs)]
        indptr = np.zeros(len(parts) + 1, np.int64)
        np.cumsum([len(indices) for indices, _ in parts], out=indptr[1:])
        indices = np.concatenate([np.zeros(0, np.uint64), *(part[0] for part in parts)])
        given = np.concatenate([np.zeros(0), *(part[1] for part in parts)])
        with np.errstate(over="ignore"):
            values = given.astype(np.float32)
        owner = np.repeat(np.arange(len(parts)), np.diff(indptr))
        self._refuse_where(indices >= self.dim, owner, f"indices must be from 0 to {self.dim - 1}")
        self._refuse_where(
            ~np.isfinite(values), owner, "values must be finite numbers within the range of float32"
        )
        order = np.lexsort((indices, owner))
        indices, values = indices[order], values[order]
        again = (indices[1:] == indices[:-1]) & (owner[1:] == owner[:-1])
        self._refuse_where(again, owner[1:], "an index is given twice")
        kept = values != 0
        offsets = np.concatenate(([0], np.cumsum(np.bincount(owner[kept], minlength=len(parts)))))
        return SparseBatch(offsets.astype(np.int64), indices[kept], values[kept])

    def _refuse_where(self, bad: npt.NDArray[np.bool_], owner: Any, why: str) -> None:
        where = np.flatnonzero(bad)
        if len(where):
            raise self._fault(why, int(owner[where[0]]))

    def _parts(self, vector: Any, row: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Indices uint64 and values float64 of one input, of one length."""
        if not isinstance(vector, Mapping) or vector.keys() != {"indices", "values"}:
            raise self._fault("sparse must be an object of indices and values", row)
        indices = _numbers(vector["indices"], {int}, "iu", np.uint64)
        if indices is None:
            raise self._fault("indices must be a list of whole numbers from 0 on", row)
        values = _numbers(vector["values"], {int, float}, "fiu", np.float64)
        if values is None:
            raise self._fault("values must be a list of numbers", row)
        if len(indices) != len(values):
            raise self._fault(f"has {len(indices)} indices for {len(values)} values", row)
        if len(indices) > MAX_ELEMENTS:
            raise self._fault(
                f"has {len(indices)} values, the limit is {MAX_ELEMENTS}", row, MAX_ELEMENTS
            )
        return indices, values

    def _fault(self, why: str, row: int, limit: int | None = None) -> InvalidInputError:
        return InvalidInputError(why, field=self.field, row=row, limit=limit)


def _numbers(
    given: Any, types: set[type], kinds: str, dtype: type[np.number[Any]]
) -> npt.NDArray[Any] | None:
    """A list of such numbers, or an array of one dimension, as `dtype`; None if it is neither."""
    if isinstance(given, np.ndarray):
        if given.ndim != 1 or given.dtype.kind not in kinds:
            return None
        if dtype is np.uint64 and given.size and given.min() < 0:
            return None
        return given.astype(dtype)
    # A bool is an int to Python and a number to NumPy, but not to whoever sent it.
    if not isinstance(given, (list, tuple)) or not set(map(type, given)) <= types:
        return None
    try:
        return np.array(given, dtype)
    except OverflowError:
        return None
