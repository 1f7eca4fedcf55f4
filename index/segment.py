"""Segments: where the points of an index lie.

A segment holds points, their sketches, and what selects those that a query is compared with:
the bitmaps of group tests, or LSH tables (selectors).
A sealed segment is immutable but for the marks of removed points, and its points lie in an order
that puts similar ones into the same cell; the mutable segment takes points in order of arrival.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from . import _native
from .abandon import checkpoint
from .batches import Batch, FloatArray, Int64Array, SetBatch, SparseBatch
from .buffers import Column, feature_column
from .calibration import SAMPLE
from .files import Shapes
from .minhash import MinHashFamily, UInt8Array, UInt32Array
from .projection import SignedRandomProjection
from .selectors import Arrays, GroupTests, Selector, selector_of, selector_shapes
from .tuning import Effort, GroupShape, Shape

Family: TypeAlias = MinHashFamily | SignedRandomProjection

# Ids so close together that a table over their range is smaller than a sorted order.
DENSE_IDS = 2
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


def zeros(shapes: Shapes) -> Arrays:
    """Arrays of zeros in memory."""
    return {name: np.zeros(shape, dtype) for name, (dtype, shape) in shapes.items()}


def split_sketches(sketches: UInt8Array) -> tuple[UInt8Array, UInt8Array]:
    """The parts in which segments hold sketches: the first 16 bytes, and the rest."""
    return sketches[:, : _native.COARSE_BYTES], sketches[:, _native.COARSE_BYTES :]


def rows_of(features: Batch, rows: Int64Array) -> Batch:
    """Chosen rows of a batch; of vectors the batch itself where all are chosen in order."""
    if isinstance(features, SetBatch):
        return features.take(rows)
    if len(rows) == len(features) and np.array_equal(rows, np.arange(len(features))):
        return features
    return features[rows]


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
        if len(owners) <= 1:
            only = int(owners[0]) if len(owners) else 0
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
    if isinstance(batches[0], SparseBatch):
        return SparseBatch.concat([rows for rows in batches if isinstance(rows, SparseBatch)])
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
    for start in range(0, max(1, len(order)), HASH_BLOCK):  # of no points, too
        checkpoint()
        block = points.take(order[start : start + HASH_BLOCK])
        keys.append(family.similarity_keys(block))  # type: ignore[arg-type]
        if isinstance(block, SetBatch) and len(block.indices):
            elements += len(block.indices)
            largest = max(largest, int(block.indices.max()))
    narrow = largest < 1 << 32
    return _Survey(np.concatenate(keys), elements, np.uint32 if narrow else np.uint64)


def _write_block(
    arrays: Arrays, start: int, block: Batch, family: Family, selector: Selector | None
) -> None:
    stop = start + len(block)
    keys, sketches = family.hash(block)
    arrays["coarse"][start:stop], arrays["fine"][start:stop] = split_sketches(sketches)
    if selector is not None:
        selector.insert(keys, start)
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
        coarse, fine: uint8 (n, 16) and (n, 0 | 16 | 48), the parts of the sketches.
        selector: chooses candidates, or None when every query scans all sketches.
        sets: (indptr int64 (n + 1,), elements uint32 or uint64), or None.
        vectors: float32 (n, dim), or None.
        dead: uint8 (ceil(n / 8),), a bit for each removed point.
    """

    def __init__(
        self,
        ids: Int64Array,
        coarse: UInt8Array,
        fine: UInt8Array,
        selector: Selector | None,
        sets: tuple[Int64Array, npt.NDArray[np.uint32 | np.uint64]] | None,
        vectors: FloatArray | None,
        dead: UInt8Array | None = None,
    ) -> None:
        self.ids = ids
        self.coarse, self.fine = coarse, fine
        self.selector = selector
        self.sets = sets
        self.vectors = vectors
        self.dead = np.zeros(-(-len(ids) // 8), np.uint8) if dead is None else dead
        self.removed = int(np.bitwise_count(self.dead).sum())
        self.path: Path | None = None  # the file that the arrays are mapped from, if one
        self.efforts: dict[tuple[int, float, int], Effort] = {}  # the engine's, by what is wanted
        self._places: Places | None = None
        selected = selector.native() if selector is not None else {}
        self._view = _native.SegmentView(
            (coarse, fine), ids, len(ids), self.dead, sets, vectors, **selected
        )
        self._view.any_dead = self.removed > 0

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def shape(self) -> Shape | None:
        """The parameters of the selector, if there is one."""
        return self.selector.shape if self.selector is not None else None

    @classmethod
    def build(
        cls,
        points: Sequence[AlivePoints],
        family: Family,
        layout: Callable[[int], Shape | None],
        allocate: Callable[[Shapes], Arrays] = zeros,
    ) -> Segment:
        """Seal points: order them by similarity, hash them, fill the selector.

        Features are read and written in blocks, so that with arrays in a file a segment may be
        larger than memory.

        Args:
            points: at least one part; vectors are normalised, for cosine.
            family: hashes of the index.
            layout: the selector's shape, by the number of points.
            allocate: makes the segment's arrays, all zeros.
        """
        source = JoinedPoints(points)
        by_id = np.argsort(source.ids, kind="stable")  # whatever the order of arrival was
        survey = _survey(source, by_id, family)
        order = by_id[np.lexsort(survey.keys.T[::-1])]
        n, shape = len(order), layout(len(order))
        shapes: Shapes = {
            "ids": (np.int64, (n,)),
            "coarse": (np.uint8, (n, _native.COARSE_BYTES)),
            "fine": (np.uint8, (n, family.sketch_bits // 8 - _native.COARSE_BYTES)),
            "dead": (np.uint8, (-(-n // 8),)),
        } | selector_shapes(n, shape, family.tables)
        if isinstance(family, MinHashFamily):
            shapes["indptr"] = (np.int64, (n + 1,))
            shapes["elements"] = (survey.element_type, (survey.elements,))
        else:
            assert family.dim is not None  # sparse vectors have an exact index only
            shapes["vectors"] = (np.float32, (n, family.dim))
        arrays = allocate(shapes)
        arrays["ids"][:] = source.ids[order]
        group_size = shape.group_size if isinstance(shape, GroupShape) else 0
        selector = selector_of(arrays, group_size)
        for start in range(0, n, HASH_BLOCK):
            checkpoint()
            _write_block(
                arrays, start, source.take(order[start : start + HASH_BLOCK]), family, selector
            )
        checkpoint()
        if selector is not None:
            selector.finish()
            sample = np.linspace(0, n - 1, SAMPLE).astype(np.int64)
            selector.calibrate(family.hash(source.take(order[sample]))[0], sample, n)
        return cls.of_arrays(arrays, group_size)

    @classmethod
    def of_arrays(cls, arrays: Arrays, group_size: int) -> Segment:
        """The segment whose arrays these are, by name; group_size 0 if it has no bitmaps."""
        selector = selector_of(arrays, group_size)
        sets = (arrays["indptr"], arrays["elements"]) if "indptr" in arrays else None
        vectors = arrays.get("vectors")
        # A copy of `dead`: removals mark it, and the arrays may lie in a file.
        dead = np.array(arrays["dead"])
        coarse, fine = arrays["coarse"], arrays["fine"]
        return cls(arrays["ids"], coarse, fine, selector, sets, vectors, dead)

    @property
    def arrays(self) -> Arrays:
        """All arrays by name; :meth:`of_arrays` is the inverse."""
        named: Arrays = {
            "ids": self.ids,
            "coarse": self.coarse,
            "fine": self.fine,
            "dead": self.dead,
        }
        if self.selector is not None:
            named |= self.selector.arrays
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
        if self._places is None:
            self._places = Places(self.ids)
        return self._places.find(ids)

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
        """Bytes by part: the selector's, ``"sketches"``, ``"ids"`` and ``"features"``."""
        features = self.vectors.nbytes if self.vectors is not None else 0
        if self.sets is not None:
            features = self.sets[0].nbytes + self.sets[1].nbytes
        return _selector_bytes(self.selector) | {
            "sketches": self.coarse.nbytes + self.fine.nbytes,
            "ids": self.ids.nbytes + self.dead.nbytes,
            "features": features,
        }


class Places:
    """Where in `ids` (unique, any order) each id is."""

    def __init__(self, ids: Int64Array) -> None:
        self._ids = ids
        self._least, self._most = (int(ids.min()), int(ids.max())) if len(ids) else (0, -1)
        self._table: npt.NDArray[np.int32] | None = None
        self._by_id: Int64Array | None = None

    def find(self, ids: Int64Array) -> tuple[Int64Array, npt.NDArray[np.bool_]]:
        """Place of each id, int64 (n,), and whether it is here at all, bool (n,)."""
        places = np.zeros(len(ids), np.int64)
        here = (ids >= self._least) & (ids <= self._most)
        # New ids are mostly above all known ones: then nothing is ever sorted.
        if not here.any():
            return places, here
        if self._most - self._least < DENSE_IDS * len(self._ids):
            table = self._dense_table()
            places[here] = table[ids[here] - self._least]
            here[here] = places[here] >= 0
            return np.maximum(places, 0), here
        if self._by_id is None:
            self._by_id = np.argsort(self._ids, kind="stable").astype(np.int64)
        ranks = np.searchsorted(self._ids, ids, sorter=self._by_id)
        places = self._by_id[np.minimum(ranks, len(self._ids) - 1)]
        return places, self._ids[places] == ids

    def _dense_table(self) -> npt.NDArray[np.int32]:
        if self._table is None:
            table = np.full(self._most - self._least + 1, -1, np.int32)
            table[self._ids - self._least] = np.arange(len(self._ids), dtype=np.int32)
            self._table = table
        return self._table


class MutableSegment:
    """Points in order of arrival, searchable at once; an insert sets one bit a table.

    Where the selector of the layout cannot grow, every query scans all sketches.

    Args:
        family: hashes of the index.
        capacity: how many points it can take before it must be sealed.
        like: a batch of the kind of features that it will hold.
        layout: the selector's shape, by the number of points.
    """

    def __init__(
        self,
        family: Family,
        capacity: int,
        like: Batch,
        layout: Callable[[int], Shape | None],
    ) -> None:
        self.capacity = capacity
        self._family = family
        self._ids = Column(np.int64)
        self._coarse = Column(np.uint8, (_native.COARSE_BYTES,))
        self._fine = Column(np.uint8, (family.sketch_bits // 8 - _native.COARSE_BYTES,))
        self._features = feature_column(like)
        shape = layout(capacity)
        self.selector: Selector | None = None
        if isinstance(shape, GroupShape):
            arrays = zeros(GroupTests.shapes(capacity, shape, family.tables))
            self.selector = GroupTests(arrays["bitmaps"], shape.group_size)
        self.dead = np.zeros(-(-capacity // 8), np.uint8)
        self.removed = 0
        self.efforts: dict[tuple[int, float, int], Effort] = {}
        self._places: dict[int, int] = {}
        self._publish()

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def shape(self) -> Shape | None:
        """The parameters of the selector, if there is one."""
        return self.selector.shape if self.selector is not None else None

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
        coarse, fine = split_sketches(sketches)
        self._coarse.append(coarse)
        self._fine.append(fine)
        if self.selector is not None:
            self.selector.insert(keys, first)
        self._ids.append(ids)
        self._places.update(zip(ids.tolist(), range(first, first + len(ids)), strict=True))
        self._publish()

    def _publish(self) -> None:
        """Let searches from now on see all points so far, with one assignment."""
        features = self._features.snapshot()
        sets = (features.indptr, features.indices) if isinstance(features, SetBatch) else None
        vectors = None if isinstance(features, SetBatch) else features
        self._view = _native.SegmentView(
            (self._coarse.snapshot(), self._fine.snapshot()),
            self._ids.snapshot(),
            len(self._ids),
            self.dead,
            sets,
            vectors,
            **(self.selector.native() if self.selector is not None else {}),
        )
        self._view.any_dead = self.removed > 0

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
        return _selector_bytes(self.selector) | {
            "sketches": self._coarse.nbytes + self._fine.nbytes,
            "ids": self._ids.nbytes + self.dead.nbytes,
            "features": self._features.nbytes,
        }


def _selector_bytes(selector: Selector | None) -> dict[str, int]:
    if selector is None:
        return {}
    return {selector.part: sum(array.nbytes for array in selector.arrays.values())}


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
            effort.breadth,
            candidates,
            k,
            min_score,
            queries.highest,
        )
    return view.search_vectors(
        queries.keys,
        queries.sketches,
        features,
        effort.breadth,
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
    segment._view.any_dead = segment._view.any_dead or len(places) > 0
    np.bitwise_or.at(segment.dead, places >> 3, (1 << (places & 7)).astype(np.uint8))
    segment.removed += len(places)
    return ids
