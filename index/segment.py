"""Segments: where the points of a FLINNG index lie.

A segment holds points, their sketches, and the bitmaps of their group tests (csrc/group_test.inl).
A sealed segment is immutable but for the marks of removed points, and its points lie in an order
that puts similar ones into the same cell; the mutable segment takes points in order of arrival.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

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


Arrays: TypeAlias = dict[str, npt.NDArray[Any]]


def zeros(shapes: Shapes) -> Arrays:
    """Arrays of zeros in memory."""
    return {name: np.zeros(shape, dtype) for name, (dtype, shape) in shapes.items()}


def bitmaps_shape(points: int, shape: GroupShape, tables: int) -> tuple[int, int, int]:
    """Shape of the bitmaps for so many points: (tables, 2^r, stride), stride a multiple of 32."""
    cells = -(-points // shape.group_size)
    align = _native.STRIDE_ALIGNMENT
    return tables, 1 << shape.range_bits, -(-cells // (8 * align)) * align


def rows_of(features: Batch, rows: Int64Array) -> Batch:
    """Chosen rows of a batch."""
    return features.take(rows) if isinstance(features, SetBatch) else features[rows]


@dataclass(frozen=True, eq=False)
class AlivePoints:
    """Points to merge: their ids, and their features when they are asked for.

    Attributes:
        ids: int64 (n,).
        places: int64 (n,), what `take_places` calls them.
        take_places: features at places.
    """

    ids: Int64Array
    places: Int64Array
    take_places: Callable[[Int64Array], Batch]

    def take(self, rows: Int64Array) -> Batch:
        """Features of the points with these numbers, 0 .. n."""
        return self.take_places(self.places[rows])

    @staticmethod
    def of(ids: Int64Array, features: Batch) -> AlivePoints:
        """Points that lie in a batch."""
        return AlivePoints(ids, np.arange(len(ids)), partial(rows_of, features))


class JoinedPoints:
    """Several parts as one, without bringing their features together."""

    def __init__(self, parts: Sequence[AlivePoints]) -> None:
        self._parts = parts
        self._starts = np.cumsum([0] + [len(part.ids) for part in parts])
        self.ids: Int64Array = np.concatenate([part.ids for part in parts])

    def take(self, rows: Int64Array) -> Batch:
        """Features of the points with these numbers over all parts, in this order."""
        owner = np.searchsorted(self._starts, rows, side="right") - 1
        owners = np.unique(owner)
        if len(owners) == 1:
            only = int(owners[0])
            return self._parts[only].take(rows - self._starts[only])
        grouped = np.argsort(owner, kind="stable")
        taken = [self._parts[o].take(rows[owner == o] - self._starts[o]) for o in owners]
        back = np.empty(len(rows), np.int64)
        back[grouped] = np.arange(len(rows))
        return rows_of(concat(taken), back)


def concat(batches: Sequence[Batch]) -> Batch:
    """All rows of batches of one kind, in order."""
    if len(batches) == 1:
        return batches[0]
    if isinstance(batches[0], SetBatch):
        return SetBatch.concat([rows for rows in batches if isinstance(rows, SetBatch)])
    return np.concatenate([rows for rows in batches if not isinstance(rows, SetBatch)])


@dataclass(frozen=True, eq=False)
class _Survey:
    """What must be known of all points before they can be written in order."""

    keys: npt.NDArray[np.uint32]
    elements: int
    element_type: npt.DTypeLike


def _survey(points: JoinedPoints, order: Int64Array, family: Family) -> _Survey:
    keys, elements, largest = [], 0, 0
    for start in range(0, len(order), HASH_BLOCK):
        block = points.take(order[start : start + HASH_BLOCK])
        keys.append(family.similarity_keys(block))  # type: ignore[arg-type]
        if isinstance(block, SetBatch) and len(block.indices):
            elements += len(block.indices)
            largest = max(largest, int(block.indices.max()))
    narrow = largest < 1 << 32
    return _Survey(np.concatenate(keys), elements, np.uint32 if narrow else np.uint64)


def _write_block(
    arrays: Arrays, start: int, block: Batch, family: Family, shape: GroupShape | None
) -> None:
    stop = start + len(block)
    keys, arrays["sketches"][start:stop] = family.hash(block)
    if shape is not None:
        _native.insert_into_groups(arrays["bitmaps"], keys, start, shape.group_size)
    if isinstance(block, SetBatch):
        base = int(arrays["indptr"][start])
        arrays["indptr"][start + 1 : stop + 1] = block.indptr[1:] + base
        arrays["elements"][base : base + len(block.indices)] = block.indices
    else:
        arrays["vectors"][start:stop] = block


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
        points: Sequence[AlivePoints],
        family: Family,
        layout: Callable[[int], GroupShape | None],
        allocate: Callable[[Shapes], Arrays] = zeros,
    ) -> Segment:
        """Seal points: order them by similarity, hash them, set the bits of their tests.

        Features are read and written in blocks, so that with arrays in a file a segment may be
        larger than memory.

        Args:
            points: at least one part; vectors are normalised, for cosine.
            family: hashes of the index.
            layout: the groups, by the number of points.
            allocate: makes the segment's arrays, all zeros.
        """
        source = JoinedPoints(points)
        by_id = np.argsort(source.ids, kind="stable")  # whatever the order of arrival was
        survey = _survey(source, by_id, family)
        order = by_id[np.lexsort(survey.keys.T[::-1])]
        n, shape = len(order), layout(len(order))
        shapes: Shapes = {
            "ids": (np.int64, (n,)),
            "sketches": (np.uint8, (n, family.sketch_bits // 8)),
            "dead": (np.uint8, (-(-n // 8),)),
        }
        if shape is not None:
            shapes["bitmaps"] = (np.uint8, bitmaps_shape(n, shape, family.tables))
        if isinstance(family, MinHashFamily):
            shapes["indptr"] = (np.int64, (n + 1,))
            shapes["elements"] = (survey.element_type, (survey.elements,))
        else:
            shapes["vectors"] = (np.float32, (n, family.dim))
        arrays = allocate(shapes)
        arrays["ids"][:] = source.ids[order]
        for start in range(0, n, HASH_BLOCK):
            _write_block(
                arrays, start, source.take(order[start : start + HASH_BLOCK]), family, shape
            )
        return cls.of_arrays(arrays, shape.group_size if shape else 0)

    @classmethod
    def of_arrays(cls, arrays: Arrays, group_size: int) -> Segment:
        """The segment whose arrays these are, by name; group_size 0 if it has no bitmaps."""
        bitmaps = arrays.get("bitmaps")
        shape = None
        if bitmaps is not None:
            shape = GroupShape(group_size, bitmaps.shape[1].bit_length() - 1)
        sets = (arrays["indptr"], arrays["elements"]) if "indptr" in arrays else None
        vectors = arrays.get("vectors")
        # A copy of `dead`: removals mark it, and the arrays may lie in a file.
        dead = np.array(arrays["dead"])
        return cls(arrays["ids"], arrays["sketches"], bitmaps, shape, sets, vectors, dead)

    @property
    def arrays(self) -> Arrays:
        """All arrays by name; :meth:`of_arrays` is the inverse."""
        named: Arrays = {"ids": self.ids, "sketches": self.sketches, "dead": self.dead}
        if self.bitmaps is not None:
            named["bitmaps"] = self.bitmaps
        if self.sets is not None:
            named |= {"indptr": self.sets[0], "elements": self.sets[1]}
        if self.vectors is not None:
            named["vectors"] = self.vectors
        return named

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

    def alive(self) -> AlivePoints:
        """The points that are not removed."""
        places = np.flatnonzero(~_is_dead(self.dead, np.arange(len(self))))
        return AlivePoints(self.ids[places], places, self._take)

    def _take(self, places: Int64Array) -> Batch:
        if self.sets is not None:
            return SetBatch(*_native.take_sets(*self.sets, places))
        assert self.vectors is not None
        return self.vectors[places]

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
        self.bitmaps: npt.NDArray[np.uint8] | None = None
        if self.shape is not None:
            self.bitmaps = np.zeros(bitmaps_shape(capacity, self.shape, family.tables), np.uint8)
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

    def alive(self) -> AlivePoints:
        """See :meth:`Segment.alive`."""
        places = np.flatnonzero(~_is_dead(self.dead, np.arange(len(self))))
        features = self._features.snapshot()
        return AlivePoints(self.ids[places], places, partial(rows_of, features))

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
