"""Segments: where the points of a FLINNG index lie.

A segment holds points, their sketches, and the bitmaps of their group tests (csrc/group_test.inl).
A sealed segment is immutable but for the marks of removed points, and its points lie in an order
that puts similar ones into the same cell; the mutable segment takes points in order of arrival.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from . import _native
from .batches import Batch, FloatArray, Int64Array, SetBatch
from .buffers import Column, feature_column
from .files import Shapes
from .minhash import MinHashFamily, UInt8Array, UInt32Array
from .projection import SignedRandomProjection
from .tuning import Effort, GroupShape

Family: TypeAlias = MinHashFamily | SignedRandomProjection

HASH_BLOCK = 16_384  # points hashed at a time: bounds the memory of their MinHash values
# Where a query's elements lie in its hash table; answers do not depend on it.
SALT = secrets.randbits(64)


@dataclass(frozen=True, eq=False)
class HashedQueries:
    """Queries with their hashes, computed once for all segments.

    Attributes:
        features: a ``SetBatch`` of n sets, or float32 (n, dim).
        keys: uint32 (n, tables).
        sketches: uint8 (n, sketch bytes).
        highest: float32 (sketch bits + 1,), the highest similarity that each sketch distance
            leaves plausible.
    """

    features: Batch
    keys: UInt32Array
    sketches: UInt8Array
    highest: FloatArray

    @classmethod
    def of(cls, features: Batch, family: Family) -> HashedQueries:
        """Hash queries whose features were checked."""
        return cls(features, *family.hash(features), family.highest_plausible)

    def __len__(self) -> int:
        return len(self.keys)


def empty_bitmaps(points: int, shape: GroupShape, tables: int) -> npt.NDArray[np.uint8]:
    """Cleared bitmaps for so many points: uint8 (tables, 2^r, stride), stride a multiple of 32."""
    cells = -(-points // shape.group_size)
    align = _native.STRIDE_ALIGNMENT
    stride = -(-cells // (8 * align)) * align
    return np.zeros((tables, 1 << shape.range_bits, stride), np.uint8)


def compact_elements(indices: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint32 | np.uint64]:
    """Elements in 4 bytes each where all of them fit."""
    fits = not len(indices) or int(indices.max()) < 1 << 32
    return indices.astype(np.uint32) if fits else indices


class Segment:
    """A sealed segment.

    Attributes:
        ids: int64 (n,), in the order of the cells.
        sketches: uint8 (n, sketch bytes).
        bitmaps: uint8 (tables, 2^r, stride), or None when every query scans all sketches.
        shape: the groups, or None likewise.
        sets: (indptr int64 (n + 1,), elements uint32 or uint64), or None.
        vectors: float32 (n, dim), or None.
        dead: uint8 (ceil(n / 8),), a bit for each removed point.
    """

    def __init__(
        self,
        ids: Int64Array,
        sketches: UInt8Array,
        bitmaps: npt.NDArray[np.uint8] | None,
        shape: GroupShape | None,
        sets: tuple[Int64Array, npt.NDArray[np.uint32 | np.uint64]] | None,
        vectors: FloatArray | None,
        dead: UInt8Array | None = None,
    ) -> None:
        self.ids = ids
        self.sketches = sketches
        self.bitmaps = bitmaps
        self.shape = shape
        self.sets = sets
        self.vectors = vectors
        self.dead = np.zeros(-(-len(ids) // 8), np.uint8) if dead is None else dead
        self.removed = int(np.bitwise_count(self.dead).sum())
        self._by_id: Int64Array | None = None
        self._view = _native.SegmentView(
            bitmaps,
            shape.group_size if shape else 1,
            sketches,
            ids,
            len(ids),
            self.dead,
            sets,
            vectors,
        )

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def build(
        cls,
        ids: Int64Array,
        features: Batch,
        family: Family,
        layout: Callable[[int], GroupShape | None],
    ) -> Segment:
        """Seal points: order them by similarity, hash them, set the bits of their tests.

        Args:
            ids: int64 (n,).
            features: n sets or vectors (normalised, for cosine).
            family: hashes of the index.
            layout: the groups, by the number of points.
        """
        by_id = np.argsort(ids, kind="stable")  # so that the order of arrival does not matter
        ids = ids[by_id]
        if isinstance(features, SetBatch):
            assert isinstance(family, MinHashFamily)
            features = features.take(by_id)
            order = family.similarity_order(features)
            features = features.take(order)
            sets = (features.indptr, compact_elements(features.indices))
            vectors = None
        else:
            assert isinstance(family, SignedRandomProjection)
            features = features[by_id]
            order = family.similarity_order(features)
            features = features[order]
            sets, vectors = None, features
        shape = layout(len(ids))
        bitmaps = empty_bitmaps(len(ids), shape, family.tables) if shape else None
        sketches = np.empty((len(ids), family.sketch_bits // 8), np.uint8)
        for start in range(0, len(ids), HASH_BLOCK):
            stop = min(start + HASH_BLOCK, len(ids))
            block = (
                features.slice(start, stop)
                if isinstance(features, SetBatch)
                else features[start:stop]
            )
            keys, sketches[start:stop] = family.hash(block)
            if bitmaps is not None and shape is not None:
                _native.insert_into_groups(bitmaps, keys, start, shape.group_size)
        return cls(ids[order], sketches, bitmaps, shape, sets, vectors)

    def search(
        self, queries: HashedQueries, effort: Effort, k: int, min_score: float
    ) -> tuple[Int64Array, FloatArray]:
        """The k best points of each query: ids int64 (q, k), scores float32 (q, k); -1 and NaN."""
        return _search(self._view, queries, effort, k, min_score)

    def remove(self, ids: Int64Array) -> Int64Array:
        """Mark points as removed; the ids that were here, int64."""
        places, here = self._find(ids)
        return _mark_dead(self, places[here], ids[here])

    def contains(self, ids: Int64Array) -> npt.NDArray[np.bool_]:
        """Which ids are here and not removed, bool (n,)."""
        places, here = self._find(ids)
        here[here] = ~_is_dead(self.dead, places[here])
        return here

    def _find(self, ids: Int64Array) -> tuple[Int64Array, npt.NDArray[np.bool_]]:
        """Place of each id, int64 (n,), and whether it is here at all, bool (n,)."""
        if not len(self):
            return np.zeros(len(ids), np.int64), np.zeros(len(ids), bool)
        if self._by_id is None:
            self._by_id = np.argsort(self.ids, kind="stable").astype(np.int64)
        ranks = np.searchsorted(self.ids, ids, sorter=self._by_id)
        places = self._by_id[np.minimum(ranks, len(self) - 1)]
        return places, self.ids[places] == ids

    def alive(self) -> tuple[Int64Array, Batch]:
        """Ids and features of the points that are not removed, by rising id."""
        places = np.flatnonzero(~_is_dead(self.dead, np.arange(len(self))))
        places = places[np.argsort(self.ids[places], kind="stable")]
        if self.sets is not None:
            indptr, elements = self.sets
            stored = SetBatch(indptr, elements).take(places)  # type: ignore[arg-type]
            return self.ids[places], SetBatch(stored.indptr, stored.indices.astype(np.uint64))
        assert self.vectors is not None
        return self.ids[places], self.vectors[places]

    def dead_ids(self) -> Int64Array:
        """Ids of the removed points."""
        return self.ids[_is_dead(self.dead, np.arange(len(self)))]

    @property
    def nbytes(self) -> dict[str, int]:
        """Bytes by part: ``"bitmaps"``, ``"sketches"``, ``"ids"`` and ``"features"``."""
        features = self.vectors.nbytes if self.vectors is not None else 0
        if self.sets is not None:
            features = self.sets[0].nbytes + self.sets[1].nbytes
        return {
            "bitmaps": self.bitmaps.nbytes if self.bitmaps is not None else 0,
            "sketches": self.sketches.nbytes,
            "ids": self.ids.nbytes + self.dead.nbytes,
            "features": features,
        }


class MutableSegment:
    """Points in order of arrival, searchable at once; an insert sets one bit a table.

    Args:
        family: hashes of the index.
        capacity: how many points it can take before it must be sealed.
        like: a batch of the kind of features that it will hold.
        layout: the groups, by the number of points.
    """

    def __init__(
        self,
        family: Family,
        capacity: int,
        like: Batch,
        layout: Callable[[int], GroupShape | None],
    ) -> None:
        self.capacity = capacity
        self.shape = layout(capacity)
        self._family = family
        self._ids = Column(np.int64)
        self._sketches = Column(np.uint8, (family.sketch_bits // 8,))
        self._features = feature_column(like)
        self.bitmaps = empty_bitmaps(capacity, self.shape, family.tables) if self.shape else None
        self.dead = np.zeros(-(-capacity // 8), np.uint8)
        self.removed = 0
        self._places: dict[int, int] = {}
        self._publish()

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def ids(self) -> Int64Array:
        """Ids in order of arrival, int64 (n,)."""
        return self._ids.snapshot()

    def append(
        self, ids: Int64Array, features: Batch, keys: UInt32Array, sketches: UInt8Array
    ) -> None:
        """Add hashed points; at most ``capacity - len(self)``."""
        first = len(self)
        self._features.append(features)
        self._sketches.append(sketches)
        if self.bitmaps is not None and self.shape is not None:
            _native.insert_into_groups(self.bitmaps, keys, first, self.shape.group_size)
        self._ids.append(ids)
        self._places.update(zip(ids.tolist(), range(first, first + len(ids)), strict=True))
        self._publish()

    def _publish(self) -> None:
        """Let searches from now on see all points so far, with one assignment."""
        features = self._features.snapshot()
        sets = (features.indptr, features.indices) if isinstance(features, SetBatch) else None
        vectors = None if isinstance(features, SetBatch) else features
        self._view = _native.SegmentView(
            self.bitmaps,
            self.shape.group_size if self.shape else 1,
            self._sketches.snapshot(),
            self._ids.snapshot(),
            len(self._ids),
            self.dead,
            sets,
            vectors,
        )

    def search(
        self, queries: HashedQueries, effort: Effort, k: int, min_score: float
    ) -> tuple[Int64Array, FloatArray]:
        """See :meth:`Segment.search`."""
        return _search(self._view, queries, effort, k, min_score)

    def remove(self, ids: Int64Array) -> Int64Array:
        """See :meth:`Segment.remove`."""
        places = np.array([self._places.pop(int(i), -1) for i in ids], np.int64)
        return _mark_dead(self, places[places >= 0], ids[places >= 0])

    def contains(self, ids: Int64Array) -> npt.NDArray[np.bool_]:
        """Which ids are here and not removed, bool (n,)."""
        return np.array([int(i) in self._places for i in ids], bool)

    def alive(self) -> tuple[Int64Array, Batch]:
        """See :meth:`Segment.alive`."""
        places = np.flatnonzero(~_is_dead(self.dead, np.arange(len(self))))
        features = self._features.snapshot()
        if isinstance(features, SetBatch):
            return self.ids[places], features.take(places)
        return self.ids[places], features[places]

    def dead_ids(self) -> Int64Array:
        """Ids of the removed points."""
        return self.ids[_is_dead(self.dead, np.arange(len(self)))]

    @property
    def nbytes(self) -> dict[str, int]:
        """See :attr:`Segment.nbytes`."""
        return {
            "bitmaps": self.bitmaps.nbytes if self.bitmaps is not None else 0,
            "sketches": self._sketches.nbytes,
            "ids": self._ids.nbytes + self.dead.nbytes,
            "features": self._features.nbytes,
        }


def _search(
    view: _native.SegmentView, queries: HashedQueries, effort: Effort, k: int, min_score: float
) -> tuple[Int64Array, FloatArray]:
    features = queries.features
    candidates = max(effort.candidates, k)
    if isinstance(features, SetBatch):
        return view.search_sets(
            queries.keys,
            queries.sketches,
            features.indptr,
            features.indices,
            SALT,
            effort.cells,
            candidates,
            k,
            min_score,
            queries.highest,
        )
    return view.search_vectors(
        queries.keys,
        queries.sketches,
        features,
        effort.cells,
        candidates,
        k,
        min_score,
        queries.highest,
    )


def _is_dead(dead: UInt8Array, places: Int64Array) -> npt.NDArray[np.bool_]:
    return np.asarray(dead[places >> 3] >> (places & 7).astype(np.uint8) & 1, bool)


def _mark_dead(
    segment: Segment | MutableSegment, places: Int64Array, ids: Int64Array
) -> Int64Array:
    fresh = ~_is_dead(segment.dead, places)
    places, ids = places[fresh], ids[fresh]
    np.bitwise_or.at(segment.dead, places >> 3, (1 << (places & 7)).astype(np.uint8))
    segment.removed += len(places)
    return ids
