"""What every engine can do, and the checks that all of them make of their input."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Protocol, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from .batches import (
    Batch,
    FloatArray,
    Int64Array,
    SparseBatch,
    as_dense_batch,
    as_set_batch,
    as_sparse_batch,
    is_sparse,
)
from .errors import InvalidInputError

Metric: TypeAlias = Literal["jaccard", "cosine", "ip"]


class Engine(Protocol):
    """An index over points that are called by int64 ids.

    One thread may call ``add`` and ``remove`` while any number of others search.
    """

    kind: str
    metric: Metric

    def __len__(self) -> int: ...

    def check(self, batch: Any) -> Batch:
        """The batch as stored and searched; raises what ``add`` would raise."""
        ...

    def add(self, batch: Any, ids: Any = None) -> None:
        """Add points with new ids."""
        ...

    def remove(self, ids: Any) -> int:
        """Remove points; how many were present."""
        ...

    def search(
        self, batch: Any, k: int, threshold: float | None = None, target_recall: float | None = None
    ) -> tuple[Int64Array, FloatArray]:
        """The k best points: ids int64 (q, k), scores float32 (q, k); -1 and NaN where none."""
        ...

    def recall_estimate(self, target_recall: float | None = None) -> float:
        """Expected recall of neighbours at the index's threshold."""
        ...

    def explain(self) -> dict[str, Any]:
        """What the index is, chose and promises, in words and numbers."""
        ...

    @property
    def nbytes(self) -> dict[str, int]:
        """Bytes by part."""
        ...

    def save(self, path: str | Path) -> None:
        """Write the index to a file."""
        ...

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read an index that ``save`` wrote."""
        ...


def check_metric(metric: Any, known: tuple[Metric, ...]) -> Metric:
    """The metric, if the engine knows it.

    Raises:
        InvalidInputError: it does not.
    """
    for name in known:
        if metric == name:
            return name
    raise InvalidInputError(f"metric must be one of {', '.join(known)}", field="metric")


def check_batch(batch: Any, metric: Metric, dim: int | None) -> Batch:
    """Features in the form that engines store: sets, or float32 vectors, normalised for cosine.

    Raises:
        InvalidInputError: not features of that metric, not finite, of another dimension than
            `dim`, or without direction (all zeros) where the metric is cosine.
    """
    if metric == "jaccard":
        return as_set_batch(batch)
    vectors = as_dense_batch(batch, dim)
    if metric == "ip" or not len(vectors):
        return vectors
    # In float64, so that no finite vector overflows or vanishes.
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    _refuse_zeros(norms)
    return np.asarray(vectors / norms[:, None], np.float32)


def check_features(batch: Any, metric: Metric, dim: int | None, sparse: bool | None) -> Batch:
    """Features of an engine that takes vectors dense or sparse, whichever came first.

    Args:
        batch: sets, or vectors.
        metric: of the engine.
        dim: of its dense vectors, if known.
        sparse: whether its vectors are; None while there are none.

    Raises:
        InvalidInputError: see :func:`check_batch`; or dense among sparse vectors.
    """
    if metric == "jaccard":
        return check_batch(batch, metric, dim)
    given = is_sparse(batch)
    if sparse is not None and sparse != given:
        stored = "sparse: give a SparseBatch or a scipy CSR matrix" if sparse else "dense"
        raise InvalidInputError(f"the vectors of this index are {stored}", field="vector")
    return check_sparse_batch(batch, metric) if given else check_batch(batch, metric, dim)


def check_sparse_batch(batch: Any, metric: Metric) -> SparseBatch:
    """Sparse vectors in the form that engines store, normalised for cosine.

    Raises:
        InvalidInputError: not sparse vectors, not finite, or without direction (no values but
            zeros) where the metric is cosine.
    """
    vectors = as_sparse_batch(batch)
    if metric != "cosine" or not len(vectors):
        return vectors
    owner = np.repeat(np.arange(len(vectors)), vectors.sizes)
    squares = vectors.values.astype(np.float64) ** 2
    norms = np.sqrt(np.bincount(owner, squares, len(vectors)))
    _refuse_zeros(norms)
    values = np.asarray(vectors.values / norms[owner], np.float32)
    return SparseBatch(vectors.indptr, vectors.indices, values)


def _refuse_zeros(norms: npt.NDArray[np.float64]) -> None:
    zero = np.flatnonzero(norms == 0)
    if len(zero):
        raise InvalidInputError(
            "a vector of zeros has no direction, so no cosine", field="vector", row=int(zero[0])
        )


def check_ids(ids: Any, count: int, next_id: int) -> Int64Array:
    """Ids as int64 (count,), the numbers from `next_id` on unless given.

    Raises:
        InvalidInputError: of the wrong number or type, negative, or repeated.
    """
    if ids is None:
        if next_id + count > 1 << 63:
            raise InvalidInputError(
                "there are no free ids above the highest; give ids", field="ids"
            )
        return np.arange(next_id, next_id + count, dtype=np.int64)
    given = np.asarray(ids)
    if given.shape != (count,) or (count and given.dtype.kind not in "iu"):
        raise InvalidInputError(
            f"ids must be {count} integers, one for each point, not {given.dtype} of shape "
            f"{given.shape}",
            field="ids",
        )
    if count and (int(given.max()) >= 1 << 63 or int(given.min()) < 0):
        raise InvalidInputError("ids must be from 0 to 2**63 - 1", field="ids")
    checked = given.astype(np.int64)
    if len(np.unique(checked)) != count:
        raise InvalidInputError("an id is given twice", field="ids")
    return checked


def check_k(k: Any) -> int:
    """The number of hits wanted, as an int.

    Raises:
        InvalidInputError: not a whole number of at least 1.
    """
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise InvalidInputError("k must be a whole number of at least 1", field="k")
    return int(k)


def smallest_hit(metric: Metric, threshold: float | None) -> float:
    """The least score of a hit: the threshold, and for Jaccard at least one shared element.

    Raises:
        InvalidInputError: the threshold is not a number.
    """
    least = float(np.finfo(np.float32).tiny) if metric == "jaccard" else float("-inf")
    if threshold is None:
        return least
    if isinstance(threshold, bool) or not np.isfinite(threshold):
        raise InvalidInputError("threshold must be a finite number", field="threshold")
    return max(least, float(threshold))
