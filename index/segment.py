"""Segments: where the points of an index lie.

A segment holds points, their sketches, and what selects those that a query is compared with:
the bitmaps of group tests, or LSH tables (selectors).
A sealed segment is immutable but for the marks of removed points, and its points lie in an order
that puts similar ones into the same cell; the mutable segment takes points in order of arrival.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from . import _native
from .abandon import checkpoint
from .alive_points import AlivePoints, JoinedPoints, rows_of
from .batches import FloatArray, Int64Array, SetBatch, SparseBatch, is_sparse
from .calibration import SAMPLE
from .files import Shapes
from .hashed import Family, HashedBatch, Stored, hashes_of, order_of
from .held_out import HeldOut, ask_sample
from .marks import is_dead, mark_dead
from .minhash import UInt8Array, UInt32Array
from .places import Places
from .recall_sample import LEAST_POINTS, RecallSample, asked_of
from .selectors import Arrays, Selector, selector_of, selector_shapes
from .tuning import Effort, GroupShape, Shape
from .views import HashedQueries, Viewed, view_of

HASH_BLOCK = 16_384  # points hashed at a time: bounds the memory of their MinHash values


def zeros(shapes: Shapes) -> Arrays:
    """Arrays of zeros in memory."""
    return {name: np.zeros(shape, dtype) for name, (dtype, shape) in shapes.items()}


def spread(points: int, count: int) -> Int64Array:
    """`count` places spread over those of so many points, rising, int64; repeated if there must."""
    return np.linspace(0, points - 1, count).astype(np.int64)


def split_sketches(sketches: UInt8Array) -> tuple[UInt8Array, UInt8Array]:
    """The parts in which segments hold sketches: the first 16 bytes, and the rest."""
    return sketches[:, : _native.COARSE_BYTES], sketches[:, _native.COARSE_BYTES :]


@dataclass(frozen=True, eq=False)
class _Survey:
    """What must be known of all points before they can be written in order."""

    keys: npt.NDArray[np.uint32]
    elements: int
    element_type: npt.DTypeLike
    like: Stored  # no points, of their kind


def _survey(points: JoinedPoints, order: Int64Array, family: Family) -> _Survey:
    keys, elements, largest = [], 0, 0
    for start in range(0, max(1, len(order)), HASH_BLOCK):  # of no points, too
        checkpoint()
        block = points.take(order[start : start + HASH_BLOCK])
        keys.append(order_of(block, family))
        if isinstance(block, SetBatch) and len(block.indices):
            elements += len(block.indices)
            largest = max(largest, int(block.indices.max()))
    element_type = np.uint32 if largest < 1 << 32 else np.uint64
    return _Survey(np.concatenate(keys), elements, element_type, _none_of(block))


def _none_of(batch: Stored) -> Stored:
    return rows_of(batch, np.zeros(0, np.int64))


def _feature_shapes(survey: _Survey, n: int) -> Shapes:
    """Type and shape of the arrays for what is kept of n points."""
    like = survey.like
    if isinstance(like, HashedBatch):
        key_type, tables, _, words = like.widths
        return {"keys": (key_type, (n, tables)), "order": (np.uint32, (n, words))}
    if not isinstance(like, SetBatch):
        return {"vectors": (np.float32, (n, like.shape[1]))}
    sets: Shapes = {
        "indptr": (np.int64, (n + 1,)),
        "elements": (survey.element_type, (survey.elements,)),
    }
    return sets | ({"values": (np.float32, (survey.elements,))} if is_sparse(like) else {})


def _write_block(
    arrays: Arrays,
    start: int,
    block: Stored,
    family: Family,
    selector: Selector | None,
    held: Int64Array,
) -> None:
    stop = start + len(block)
    keys, sketches = hashes_of(block, family)
    arrays["coarse"][start:stop], arrays["fine"][start:stop] = split_sketches(sketches)
    if selector is not None:
        selector.insert(keys, start, held)
    if isinstance(block, SetBatch):
        base = int(arrays["indptr"][start])
        arrays["indptr"][start + 1 : stop + 1] = block.indptr[1:] + base
        arrays["elements"][base : base + len(block.indices)] = block.indices
        if isinstance(block, SparseBatch):
            arrays["values"][base : base + len(block.indices)] = block.values
    elif isinstance(block, HashedBatch):
        arrays["keys"][start:stop], arrays["order"][start:stop] = block.keys, block.order
    else:
        arrays["vectors"][start:stop] = block


class Segment(Viewed):
    """A sealed segment.

    Attributes:
        ids: int64 (n,), in the order of the cells.
        coarse, fine: uint8 (n, 16) and (n, 0 | 16 | 48), the parts of the sketches.
        selector: chooses candidates, or None when every query scans all sketches.
        sets: (indptr int64 (n + 1,), elements uint32 or uint64), or None.
        values: float32, one for each element, where the points are sparse vectors; or None.
        vectors: float32 (n, dim), or None.
        hashes: (keys, order) of a ``HashedBatch`` where no features are kept, or None.
        dead: uint8 (ceil(n / 8),), a bit for each removed point.
        sample: what points of the segment find in it, or None.
    """

    def __init__(self, arrays: Arrays, group_size: int) -> None:
        """The segment whose arrays these are, by name; group_size 0 if it has no bitmaps."""
        self.ids: Int64Array = arrays["ids"]
        self.coarse: UInt8Array = arrays["coarse"]
        self.fine: UInt8Array = arrays["fine"]
        self.selector = selector_of(arrays, group_size)
        self.sets = (arrays["indptr"], arrays["elements"]) if "indptr" in arrays else None
        self.values: FloatArray | None = arrays.get("values")
        self.vectors: FloatArray | None = arrays.get("vectors")
        self.hashes = (arrays["keys"], arrays["order"]) if "keys" in arrays else None
        if self.sets is None and self.vectors is None and self.hashes is None:
            raise ValueError("a segment holds sets, vectors or hashes")
        # A copy: removals mark it, and the arrays may lie in a file.
        self.dead: UInt8Array = np.array(arrays["dead"])
        self.removed = int(np.bitwise_count(self.dead).sum())
        self.sample = RecallSample.of_arrays(arrays)
        self.path: Path | None = None  # the file that the arrays are mapped from, if one
        # The engine's, by what is wanted: how far to look, and the recall that it expects.
        self.outlooks: dict[tuple[int, float, int], tuple[Effort, float]] = {}
        self._places: Places | None = None
        self._view = view_of(arrays, len(self.ids), self.dead, self.selector)
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
        *,
        threshold: float,
    ) -> Segment:
        """Seal points: order them by similarity, hash them, fill the selector.

        Features are read and written in blocks, so that with arrays in a file a segment may be
        larger than memory.

        Args:
            points: at least one part; vectors are normalised, for cosine.
            family: hashes of the index.
            layout: the selector's shape, by the number of points.
            allocate: makes the segment's arrays, all zeros.
            threshold: least similarity of the neighbours whose recall is measured.
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
        if shape is not None and n >= LEAST_POINTS:
            shapes |= RecallSample.shapes(n)
        arrays = allocate(shapes | _feature_shapes(survey, n))
        arrays["ids"][:] = source.ids[order]
        group_size = shape.group_size if isinstance(shape, GroupShape) else 0
        selector = selector_of(arrays, group_size)
        held = spread(n, asked_of(n))
        for start in range(0, n, HASH_BLOCK):
            checkpoint()
            block = source.take(order[start : start + HASH_BLOCK])
            _write_block(arrays, start, block, family, selector, held)
        checkpoint()
        if selector is not None:
            selector.finish()
            asked = HashedQueries.of(source.take(order[held]), family)
            few = spread(len(held), SAMPLE)
            selector.calibrate(asked.keys[few], held[few], n)
            sample = RecallSample.of_arrays(arrays)
            if sample is not None:

                def keys_of(at: Int64Array) -> UInt32Array:
                    return hashes_of(source.take(order[at]), family)[0]

                held_out = HeldOut(arrays, selector, n, held, keys_of)
                ask_sample(sample, asked, held_out, threshold)
            selector.release(asked.keys, held)
        return cls(arrays, group_size)

    @property
    def arrays(self) -> Arrays:
        """All arrays by name; the constructor is the inverse."""
        named: Arrays = {
            "ids": self.ids,
            "coarse": self.coarse,
            "fine": self.fine,
            "dead": self.dead,
        }
        if self.selector is not None:
            named |= self.selector.arrays
        if self.sample is not None:
            named |= self.sample.arrays
        if self.sets is not None:
            named |= {"indptr": self.sets[0], "elements": self.sets[1]}
        if self.values is not None:
            named["values"] = self.values
        if self.vectors is not None:
            named["vectors"] = self.vectors
        if self.hashes is not None:
            named |= {"keys": self.hashes[0], "order": self.hashes[1]}
        return named

    def remove(self, ids: Int64Array) -> Int64Array:
        """Mark points as removed, ids rising; the ids that were here, int64."""
        ids = self._by_id.among(ids)
        places, here = self._by_id.find(ids)
        return mark_dead(self, places[here], ids[here])

    def contains(self, ids: Int64Array) -> npt.NDArray[np.bool_]:
        """Which ids are here and not removed, bool (n,)."""
        places, here = self._by_id.find(ids)
        here[here] = ~is_dead(self.dead, places[here])
        return here

    @property
    def _by_id(self) -> Places:
        if self._places is None:
            self._places = Places(self.ids)
        return self._places

    def alive(self) -> AlivePoints:
        """The points that are not removed."""
        places = np.flatnonzero(~is_dead(self.dead, np.arange(len(self))))
        return AlivePoints(self.ids[places], places, self._take)

    def _take(self, places: Int64Array) -> Stored:
        if self.hashes is not None:
            return self.hashed(places)
        if self.sets is not None:
            indptr, indices = _native.take_sets(*self.sets, places)
            if self.values is None:
                return SetBatch(indptr, indices)
            first = np.repeat(self.sets[0][places] - indptr[:-1], np.diff(indptr))
            return SparseBatch(indptr, indices, self.values[first + np.arange(len(indices))])
        assert self.vectors is not None
        return self.vectors[places]

    def hashed(self, places: Int64Array) -> HashedBatch:
        """The points at these places, of a segment without features."""
        assert self.hashes is not None
        keys, order = self.hashes
        sketches = np.concatenate([self.coarse[places], self.fine[places]], axis=1)
        return HashedBatch(keys[places], sketches, order[places])

    def dead_ids(self) -> Int64Array:
        """Ids of the removed points."""
        return self.ids[is_dead(self.dead, np.arange(len(self)))]

    @property
    def nbytes(self) -> dict[str, int]:
        """Bytes by part: the selector's, sketches, ids, and features or hashes."""
        features = self.vectors.nbytes if self.vectors is not None else 0
        if self.sets is not None:
            features = self.sets[0].nbytes + self.sets[1].nbytes
        if self.values is not None:
            features += self.values.nbytes
        return selector_bytes(self.selector, self.sample) | {
            "sketches": self.coarse.nbytes + self.fine.nbytes,
            "ids": self.ids.nbytes + self.dead.nbytes,
            "features": features,
            "hashes": sum(array.nbytes for array in self.hashes or ()),
        }


def selector_bytes(selector: Selector | None, sample: RecallSample | None) -> dict[str, int]:
    """Bytes of a selector and of what is known of it, by what they are called."""
    if selector is None:
        return {}
    arrays = selector.arrays | (sample.arrays if sample is not None else {})
    return {selector.part: sum(array.nbytes for array in arrays.values())}
