"""What a MaxIP index is given: vectors, queries and ids, checked."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .batches import FloatArray, Int64Array, as_dense_batch
from .errors import InvalidInputError

# Inner products of vectors up to this norm are finite in float32.
MAX_NORM = 1e18
# Norms of queries below which products have few digits left.
SHORT = 1e-28


def checked(batch: Any, dim: int | None) -> tuple[FloatArray, npt.NDArray[np.float64]]:
    """Vectors as an index stores them, float32 (n, dim), and their squared norms (n,).

    Raises:
        InvalidInputError: not finite, of another dimension, or of a norm above ``MAX_NORM``.
    """
    if _as_stored(batch, dim):
        squares = _squares(batch)
        if squares.max() <= MAX_NORM**2:  # so no number is not finite
            return batch, squares
    vectors = as_dense_batch(batch, dim)
    squares = _squares(vectors)
    if not squares.max(initial=0.0) <= MAX_NORM**2:
        raise InvalidInputError(
            f"a vector's norm must be at most {MAX_NORM:g}, or inner products overflow",
            field="vector",
            row=int(squares.argmax()),
        )
    return vectors, squares


def _as_stored(batch: Any, dim: int | None) -> bool:
    return (
        type(batch) is np.ndarray
        and batch.dtype == np.float32
        and batch.ndim == 2
        and batch.flags.c_contiguous
        and (dim is None or batch.shape[1] == dim)
        and batch.size > 0
    )


def _squares(vectors: FloatArray) -> npt.NDArray[np.float64]:
    squares: npt.NDArray[np.float64] = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)
    return squares


def lengthened(queries: FloatArray) -> tuple[FloatArray, npt.NDArray[np.int32]]:
    """Queries times powers of two that bring them near 1, and the exponents, int32 (q,)."""
    exponents = -np.frexp(np.abs(queries).max(axis=1, initial=0))[1]
    return np.ldexp(queries, exponents[:, None]), exponents.astype(np.int32)


def check_turn(turn: Any) -> None:
    """Raises InvalidInputError for what is no integer."""
    if isinstance(turn, bool) or not isinstance(turn, int | np.integer):
        raise InvalidInputError("turn must be an integer", field="turn")


def as_ids(ids: Any) -> Int64Array:
    """Ids of points that should be present, int64 (n,); rounding them would mean others."""
    given = np.atleast_1d(np.asarray(ids))
    if given.size and given.dtype.kind not in "iu":
        raise InvalidInputError(f"ids must be integers, not {given.dtype}", field="ids")
    return given.astype(np.int64).reshape(-1)
