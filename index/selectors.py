"""How a segment selects the points whose sketches a query is compared with.

    GroupTests   bitmaps over cells of points: the points of the cells that pass most tests
    Postings     LSH tables: the points that share a key with the query in any table
    None         all points

A selector names the arrays that it needs, fills them from the keys of the points, block by block,
and hands them to the kernels. ``tuning`` says which one, and of what shape, suits a segment.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from . import _native
from .batches import Int64Array
from .calibration import Calibration
from .files import Shapes
from .minhash import UInt8Array, UInt32Array
from .tuning import GroupShape, PostingsShape, Shape

Arrays: TypeAlias = dict[str, npt.NDArray[Any]]


class Selector(Protocol):
    """What chooses the candidates of one segment.

    Attributes:
        part: what its memory is called in ``nbytes``.
    """

    part: ClassVar[str]

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

    def insert(self, keys: UInt32Array, first: int) -> None:
        """Take the keys, uint32 (n, tables), of points first .. first + n."""
        ...

    def finish(self) -> None:
        """All points were inserted."""
        ...

    def calibrate(self, keys: UInt32Array, positions: Int64Array, points: int) -> None:
        """Learn from a sample of the points, keys uint32 (sample, tables), what recall to expect.

        After :meth:`finish`, if the selector was made with room for it.
        """
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

    def insert(self, keys: UInt32Array, first: int) -> None:
        """Set one bit a point and table."""
        _native.insert_into_groups(self.bitmaps, keys, first, self.shape.group_size)

    def finish(self) -> None:
        """Nothing is left to do."""

    def calibrate(self, keys: UInt32Array, positions: Int64Array, points: int) -> None:
        """See :class:`Selector`."""
        if self.calibration is not None:
            size = self.shape.group_size
            self.calibration.measure(self.bitmaps, -(-points // size), keys, positions // size)

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

    def insert(self, keys: UInt32Array, first: int) -> None:
        """Keep the keys until all points are there."""
        self.positions[:, first : first + len(keys)] = keys.T

    def finish(self) -> None:
        """Sort the points of each table by bucket."""
        _native.sort_postings(self.positions, self.offsets)

    def calibrate(self, keys: UInt32Array, positions: Int64Array, points: int) -> None:
        """Postings do what the formulas say: points that share no key are never met."""

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
