"""How a segment selects the points whose sketches a query is compared with.

    GroupTests   bitmaps over cells of points: the points of the cells that pass most tests
    Postings     LSH tables: the points that share a key with the query in any table
    None         all points

A selector names the arrays that it needs, fills them from the keys of the points, block by block,
and hands them to the kernels. ``tuning`` says which one, and of what shape, suits a segment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from . import _native
from .batches import Int64Array
from .calibration import Calibration
from .files import Shapes
from .minhash import UInt8Array, UInt32Array
from .recall_sample import NOWHERE
from .tuning import (
    CANDIDATE_COST,
    CELL_COST,
    COUNT_BYTES,
    SCAN_COST,
    TABLE_COST,
    GroupShape,
    PostingsShape,
    Shape,
)

Arrays: TypeAlias = dict[str, npt.NDArray[Any]]

KeysOf: TypeAlias = Callable[[Int64Array], UInt32Array]
# Beyond so many cells, comparing their sketches takes most of a query.
LEAST_CELLS, MOST_CELLS = 8, 4_096
# Where a quarter of the cells is fewer than so many, comparing all points takes no time.
LEAST_BROAD = 512


class Selector(Protocol):
    """What chooses the candidates of one segment.

    Attributes:
        part: what its memory is called in ``nbytes``.
        per_hit: how much farther to look for one more hit.
    """

    part: ClassVar[str]
    per_hit: ClassVar[int]

    @property
    def shape(self) -> Shape:
        """The parameters that ``tuning`` chose."""
        ...

    @property
    def tables(self) -> int:
        """m, keys of a point."""
        ...

    @property
    def arrays(self) -> Arrays:
        """Its arrays by name."""
        ...

    def insert(self, keys: UInt32Array, first: int, held: Int64Array | None = None) -> None:
        """Take the keys, uint32 (n, tables), of points first .. first + n.

        held: places, rising, of points that are to be held out where that makes a difference.
        """
        ...

    def release(self, keys: UInt32Array, held: Int64Array) -> None:
        """Take the points that were held out: their keys, and places as they were named before."""
        ...

    def finish(self) -> None:
        """All points were inserted."""
        ...

    def calibrate(self, keys: UInt32Array, positions: Int64Array, points: int) -> None:
        """Learn from a sample of the points, keys uint32 (sample, tables), what recall to expect.

        After :meth:`finish`, if the selector was made with room for it.
        """
        ...

    def reach(
        self, keys: UInt32Array, places: Int64Array, points: int, keys_of: KeysOf
    ) -> UInt32Array:
        """How far queries must look to find points.

        Args:
            keys: uint32 (q, tables), of the queries.
            places: int64 (q, n), points; -1 for none.
            points: how many there are.
            keys_of: keys of points by their places.

        Returns:
            uint32 (q, n), NOWHERE where looking however far does not find it.
        """
        ...

    def broad(self, points: int) -> int | None:
        """A breadth with which hardly any neighbour is missed; None where no such is worth it."""
        ...

    def farthest(self, points: int) -> int:
        """How far queries look at most."""
        ...

    def cost(self, breadth: int, points: int) -> float:
        """Expected ns of the selection, and of the sketches that are scanned."""
        ...

    def scanned(self, breadth: int, points: int) -> float:
        """Expected number of points whose sketches a query compares."""
        ...

    def widened(self, growth: float) -> float:
        """How many times as far to look when there are `growth` times as many points."""
        ...

    def native(self) -> dict[str, Any]:
        """What ``_native.SegmentView`` is told of it."""
        ...


class GroupTests:
    """Group tests: which cells hold a point with which key.

    Args:
        bitmaps: uint8 (tables, 2^r, stride), bit c of a bitmap for cell c.
        group_size: points of a cell.
        calibration: what a sample of the points told of the cells, or None.
    """

    part: ClassVar[str] = "bitmaps"
    per_hit: ClassVar[int] = 2

    def __init__(
        self, bitmaps: UInt8Array, group_size: int, calibration: Calibration | None = None
    ) -> None:
        self.bitmaps = bitmaps
        self.calibration = calibration
        self.tables = len(bitmaps)
        self.shape = GroupShape(group_size, bitmaps.shape[1].bit_length() - 1)

    @staticmethod
    def shapes(points: int, shape: GroupShape, tables: int) -> Shapes:
        """Type and shape of the arrays for so many points; stride is a multiple of 32."""
        cells = -(-points // shape.group_size)
        align = _native.STRIDE_ALIGNMENT
        stride = -(-cells // (8 * align)) * align
        bitmaps: Shapes = {"bitmaps": (np.uint8, (tables, 1 << shape.range_bits, stride))}
        return bitmaps | Calibration.shapes()

    @property
    def arrays(self) -> Arrays:
        """See :class:`Selector`."""
        calibration = self.calibration.arrays if self.calibration is not None else {}
        return {"bitmaps": self.bitmaps} | calibration

    def insert(self, keys: UInt32Array, first: int, held: Int64Array | None = None) -> None:
        """Set one bit a point and table."""
        start = 0
        if held is not None:
            inside = held[(held >= first) & (held < first + len(keys))] - first
            for place in inside.tolist():
                self._insert(keys[start:place], first + start)
                start = place + 1
        self._insert(keys[start:], first + start)

    def _insert(self, keys: UInt32Array, first: int) -> None:
        _native.insert_into_groups(self.bitmaps, keys, first, self.shape.group_size)

    def release(self, keys: UInt32Array, held: Int64Array) -> None:
        """See :class:`Selector`."""
        for row, place in enumerate(held.tolist()):
            self._insert(keys[row : row + 1], place)

    def finish(self) -> None:
        """Nothing is left to do."""

    def calibrate(self, keys: UInt32Array, positions: Int64Array, points: int) -> None:
        """See :class:`Selector`."""
        if self.calibration is not None:
            own = positions // self.shape.group_size
            self.calibration.measure(self.bitmaps, self._cells(points), keys, own)

    def reach(
        self,
        keys: UInt32Array,
        places: Int64Array,
        points: int,
        keys_of: KeysOf,  # noqa: ARG002
    ) -> UInt32Array:
        """See :class:`Selector`: the places of their cells, by the tests that they pass."""
        cells = np.where(places >= 0, places // self.shape.group_size, -1)
        *_, ranks = _native.ranked_cells(self.bitmaps, self._cells(points), keys, cells)
        return np.where(ranks > 0, ranks, NOWHERE).astype(np.uint32)

    def broad(self, points: int) -> int | None:
        """See :class:`Selector`: a quarter of the cells, if there are many."""
        few = self._cells(points) // 4
        return few if few >= LEAST_BROAD else None

    def farthest(self, points: int) -> int:
        """See :class:`Selector`; up to a half of all cells."""
        return max(LEAST_CELLS, min(MOST_CELLS, self._cells(points) // 2))

    def _cells(self, points: int) -> int:
        return -(-points // self.shape.group_size)

    def cost(self, breadth: int, points: int) -> float:
        """See :class:`Selector`."""
        counted = self.tables * points / (8 * self.shape.group_size) / COUNT_BYTES
        return counted + breadth * CELL_COST + self.scanned(breadth, points) * SCAN_COST

    def scanned(self, breadth: int, points: int) -> float:
        """See :class:`Selector`."""
        return float(min(points, breadth * self.shape.group_size))

    def widened(self, growth: float) -> float:
        """See :class:`Selector`: in as large a share of the cells."""
        return growth

    def native(self) -> dict[str, Any]:
        """See :class:`Selector`."""
        return {"bitmaps": self.bitmaps, "group_size": self.shape.group_size}


class Postings:
    """LSH tables in CSR form: the positions of the points by table and bucket.

    Args:
        offsets: uint32 (tables, 2^r + 1), where a bucket's positions begin.
        positions: uint32 (tables, points). Until :meth:`finish` the points' keys lie here, so that
            building takes no second array of this size.
    """

    part: ClassVar[str] = "postings"
    per_hit: ClassVar[int] = 0

    def __init__(self, offsets: UInt32Array, positions: UInt32Array) -> None:
        self.offsets = offsets
        self.tables = len(offsets)
        self.positions = positions
        self.shape = PostingsShape((offsets.shape[1] - 1).bit_length() - 1)

    @staticmethod
    def shapes(points: int, shape: PostingsShape, tables: int) -> Shapes:
        """Type and shape of the arrays for so many points."""
        return {
            "offsets": (np.uint32, (tables, (1 << shape.range_bits) + 1)),
            "positions": (np.uint32, (tables, points)),
        }

    @property
    def arrays(self) -> Arrays:
        """See :class:`Selector`."""
        return {"offsets": self.offsets, "positions": self.positions}

    def insert(
        self,
        keys: UInt32Array,
        first: int,
        held: Int64Array | None = None,  # noqa: ARG002
    ) -> None:
        """Keep the keys until all points are there; a point in a bucket is no help to others."""
        self.positions[:, first : first + len(keys)] = keys.T

    def release(self, keys: UInt32Array, held: Int64Array) -> None:
        """Nothing was held out."""

    def finish(self) -> None:
        """Sort the points of each table by bucket."""
        _native.sort_postings(self.positions, self.offsets)

    def calibrate(self, keys: UInt32Array, positions: Int64Array, points: int) -> None:
        """Postings do what the formulas say: points that share no key are never met."""

    def reach(
        self,
        keys: UInt32Array,
        places: Int64Array,
        points: int,  # noqa: ARG002
        keys_of: KeysOf,
    ) -> UInt32Array:
        """See :class:`Selector`: the first tables in which they share a bucket."""
        there, which = np.unique(places, return_inverse=True)
        stored = keys_of(np.maximum(there, 0))[which.reshape(places.shape)]
        shift = np.uint64(32 - self.shape.range_bits)
        shared = (stored.astype(np.uint64) >> shift) == (keys[:, None].astype(np.uint64) >> shift)
        found = shared.any(axis=2) & (places >= 0)
        return np.where(found, shared.argmax(axis=2) + 1, NOWHERE).astype(np.uint32)

    def broad(self, points: int) -> int | None:  # noqa: ARG002
        """See :class:`Selector`: what shares no bucket is missed by all tables."""
        return None

    def farthest(self, points: int) -> int:  # noqa: ARG002
        """See :class:`Selector`: all tables."""
        return self.tables

    def cost(self, breadth: int, points: int) -> float:
        """See :class:`Selector`."""
        return breadth * TABLE_COST + self.scanned(breadth, points) * CANDIDATE_COST

    def scanned(self, breadth: int, points: int) -> float:
        """See :class:`Selector`; as many as share a bucket with a stored point, on average."""
        sizes = np.diff(self.offsets[:4].astype(np.int64), axis=1).astype(np.float64)
        mates = float((sizes**2).sum() / max(1.0, sizes.sum()))
        return min(float(points), mates * breadth)

    def widened(self, growth: float) -> float:  # noqa: ARG002
        """See :class:`Selector`: a neighbour shares as many buckets as before."""
        return 1.0

    def native(self) -> dict[str, Any]:
        """See :class:`Selector`."""
        return {"postings": (self.offsets, self.positions)}


def selector_shapes(points: int, shape: Shape | None, tables: int) -> Shapes:
    """Type and shape of the arrays of a selector, by name; none where all points are scanned."""
    if shape is None:
        return {}
    kind = GroupTests if isinstance(shape, GroupShape) else Postings
    return kind.shapes(points, shape, tables)  # type: ignore[arg-type]


def selector_of(arrays: Arrays, group_size: int) -> Selector | None:
    """The selector whose arrays are among these; group_size matters to group tests only."""
    if "bitmaps" in arrays:
        return GroupTests(arrays["bitmaps"], group_size, Calibration.of_arrays(arrays))
    if "offsets" in arrays:
        return Postings(arrays["offsets"], arrays["positions"])
    return None
