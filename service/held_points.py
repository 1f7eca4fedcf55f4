"""The points of a collection as they are at one moment, held in memory as vectors.

    shard.points_now() ── filter by payload ── decode ── embed ── rows of a matrix

For jobs that go over all points many times. Writes go on meanwhile and do not change what is held.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from closeby.index import MaxIPIndex, MinHashFamily, SetBatch
from closeby.index.batches import FloatArray, Int64Array
from closeby.index.maxip_input import MAX_NORM

from .encoding import Features, decode_features
from .errors import CollectionNotFoundError, ValidationError
from .feature_keeping import require_features
from .log_rows import point_id
from .payload_filter import PayloadFilter
from .shard import Shard

__all__ = ["Embedding", "HeldPoints", "as_given", "check_size", "embedding_of", "hold"]

ROWS_AT_ONCE = 2_000
SKETCH_BITS = 512
"""Dimension of the vectors that stand for sets."""
LARGE_SET = 4 * SKETCH_BITS
"""Elements of a set from which on one-permutation hashing is faster."""


@dataclass(frozen=True, eq=False)
class HeldPoints:
    """Points of one moment.

    Attributes:
        ids: of the points.
        vectors: float32 (n, dim), their vectors.
        free: bool (n,), those that are not excluded.
        seqs: int64 (n,), what `index` calls them.
        index: the collection's own index, of the free points alone; None if it has none, or if it
            was not asked for.
    """

    ids: list[int | str]
    vectors: FloatArray
    free: npt.NDArray[np.bool_]
    seqs: Int64Array
    index: MaxIPIndex | None

    def places(self, seqs: Int64Array) -> Int64Array:
        """Rows of points by what the index calls them, int64 (m,)."""
        order = np.argsort(self.seqs)
        return np.asarray(order[np.searchsorted(self.seqs[order], seqs)], np.int64)


@dataclass(frozen=True)
class Embedding:
    """How features become vectors float32 (n, dim)."""

    dim: int
    vectors: Callable[[Features], FloatArray]


def as_given(shard: Shard) -> Embedding:
    """The vectors as they were stored. Raises ValidationError if the collection holds sets."""
    require_features(shard, "the job")
    spec = shard.record.config["features"]
    _refuse_sparse(spec)
    if spec["kind"] != "vector":
        raise ValidationError.of(
            "collection", "holds sets; only vectors can be combined with weights"
        )
    return Embedding(spec["dim"], _vectors)


def embedding_of(shard: Shard, seed: int) -> Embedding:
    """Vectors of which inner products are the similarity of the collection.

    For `ip` the vectors as they were stored, for `cosine` these with length 1. For `jaccard` 1-bit
    MinHash sketches with coordinates ± 1/sqrt(512): their inner product is an unbiased estimate of
    Jaccard with a standard deviation of about .044 at most (Li, König 2010). `seed` is theirs.
    """
    require_features(shard, "the job")
    if shard.metric == "jaccard":
        return Embedding(SKETCH_BITS, _SketchedSets(seed))
    _refuse_sparse(shard.record.config["features"])
    dim = shard.record.config["features"]["dim"]
    return Embedding(dim, _vectors if shard.metric == "ip" else _directions)


def _refuse_sparse(spec: dict[str, Any]) -> None:
    if spec["kind"] == "sparse":
        raise ValidationError.of(
            "collection", "holds sparse vectors, for which there is no such job yet"
        )


def check_size(count: int, dim: int, most: int) -> None:
    """Raises ValidationError if so many vectors would take more than `most` bytes."""
    size = 4 * count * dim
    if size > most:
        raise ValidationError.of(
            "collection",
            f"has {count} points of {dim} numbers, {size} bytes in memory; the limit"
            f" (max_job_bytes) is {most}",
            most,
        )


def hold(
    shard: Shard,
    embedding: Embedding,
    *,
    matching: PayloadFilter | None,
    excluded: Collection[int | str],
    most_bytes: int,
    tell: Callable[[int, int], None],
    indexed: bool = False,
) -> HeldPoints:
    """All points of this moment that match; `indexed`: with the collection's own index of them.

    `tell(read, total)` is called as they are read; what it raises ends the reading. Raises
    ValidationError if there are none, too many, or one is too long to be added up,
    CollectionNotFoundError if the collection was deleted meanwhile.
    """
    ids: list[int | str] = []
    seqs: list[int] = []
    left_out: list[int] = []
    with shard.points_now(indexed=indexed) as points:
        check_size(points.count, embedding.dim, most_bytes)
        vectors = np.empty((points.count, embedding.dim), np.float32)
        tell(0, points.count)
        read = 0
        stored = iter(points.rows)
        while rows := list(itertools.islice(stored, ROWS_AT_ONCE)):
            read += len(rows)
            kept = [row for row in rows if matching is None or matching.matches(row.payload)]
            if kept:
                part = embedding.vectors(decode_features([row.features or b"" for row in kept]))
                vectors[len(ids) : len(ids) + len(part)] = part
                ids.extend(point_id(row.point) for row in kept)
                seqs.extend(row.seq for row in kept)
            if len(kept) < len(rows):
                left_out.extend({row.seq for row in rows} - {row.seq for row in kept})
            tell(read, points.count)
    if read < points.count:
        raise CollectionNotFoundError("the collection was deleted")
    if not ids:
        what = "holds no points" if matching is None else "holds no point that matches the filter"
        raise ValidationError.of("collection" if matching is None else "filter", what)
    vectors = vectors[: len(ids)]
    _check_norms(vectors, ids)
    apart = set(excluded)
    free = np.fromiter((point not in apart for point in ids), bool, len(ids))
    numbers = np.array(seqs, np.int64)
    if points.index is not None:
        points.index.remove(np.array(left_out, np.int64))
        points.index.remove(numbers[~free])
    return HeldPoints(ids, vectors, free, numbers, points.index)


def _check_norms(vectors: FloatArray, ids: list[int | str]) -> None:
    squares = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)
    longest = int(squares.argmax())
    if squares[longest] > MAX_NORM**2:
        raise ValidationError.of(
            "collection",
            f"the vector of point {ids[longest]!r} is longer than {MAX_NORM:g}, so sums overflow",
            MAX_NORM,
        )


def _vectors(features: Features) -> FloatArray:
    assert not isinstance(features, SetBatch)
    return features


def _directions(features: Features) -> FloatArray:
    vectors = _vectors(features)
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    return np.asarray(vectors / norms[:, None], np.float32)


class _SketchedSets:
    """1-bit MinHash sketches as vectors; the scheme is that of the first sets."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._family: MinHashFamily | None = None

    def __call__(self, features: Features) -> FloatArray:
        assert isinstance(features, SetBatch)
        if self._family is None:
            large = float(features.sizes.mean()) > LARGE_SET
            self._family = MinHashFamily(
                self._seed,
                tables=0,
                sketch_bits=SKETCH_BITS,
                scheme="one_permutation" if large else "permutations",
            )
        bits = np.unpackbits(self._family.sketch(features), axis=1, bitorder="little")
        signs: npt.NDArray[Any] = 1 - 2 * bits.astype(np.float32)
        return np.asarray(signs / np.float32(SKETCH_BITS**0.5), np.float32)
