"""Sealed segments in files of their own: written piece by piece, then mapped.

A segment file is a file of arrays (``files``) of kind ``segment``: the arrays of one
:class:`~closeby.index.segment.Segment`, and in its header what they were hashed with. Marks of
points that were removed later are not written back: whoever keeps segment files keeps those too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from .alive_points import AlivePoints
from .batches import Int64Array
from .errors import CorruptFileError, unusable_is_corrupt
from .files import ArrayFileWriter, Shapes, read_arrays
from .hashed import Family, Stored, hashes_of
from .mutable_segment import MutableSegment
from .segment import Segment
from .selectors import Arrays
from .tuning import GroupShape, Shape

KIND = "segment"

Layout: TypeAlias = Callable[[int], Shape | None]
"""The shape of the selector of a segment of so many points; None to scan all sketches."""


@dataclass(frozen=True)
class HashedSegments:
    """Makes the segments of an index that hashes its points: a ``segments.SegmentMaker``.

    Attributes:
        family: hashes of the index.
        layout: the selector's shape, by the number of points.
        threshold: least similarity of the neighbours whose recall is measured.
    """

    family: Family
    layout: Layout
    threshold: float

    def mutable(self, capacity: int, like: Stored) -> MutableSegment:
        """An empty segment for so many points."""
        return MutableSegment(self.family, capacity, like, self.layout, self.threshold)

    def append(self, segment: MutableSegment, ids: Int64Array, features: Stored) -> None:
        """Hash points, unless they are, and add them."""
        segment.append(ids, features, *hashes_of(features, self.family))

    def seal(self, parts: Sequence[AlivePoints], path: Path | None) -> Segment:
        """All points in a sealed segment."""
        if path is not None:
            return write_segment(path, parts, self.family, self.layout, self.threshold)
        return Segment.build(parts, self.family, self.layout, threshold=self.threshold)

    def open(self, path: Path) -> Segment:
        """Map a file that was sealed with the same hashes."""
        return open_segment(path, self.family, verify=False)


def write_segment(
    path: Path,
    points: Sequence[AlivePoints],
    family: Family,
    layout: Layout,
    threshold: float,
) -> Segment:
    """Seal points into a file, which is durable on return, and map it.

    Memory holds a block of points and their sort keys, however many there are.

    Raises:
        OSError: the file cannot be written; nothing is left of it.
    """
    count = sum(len(part.ids) for part in points)
    shape = layout(count)
    header = {
        "index": KIND,
        "points": count,
        "group_size": shape.group_size if isinstance(shape, GroupShape) else 0,
        "family": family.spec,
    }
    writer: ArrayFileWriter | None = None

    def allocate(shapes: Shapes) -> Arrays:
        nonlocal writer
        writer = ArrayFileWriter(path, header, shapes)
        return writer.arrays

    try:
        Segment.build(points, family, layout, allocate, threshold=threshold)
        assert writer is not None
        writer.publish()
    finally:
        if writer is not None:
            writer.__exit__()
    return open_segment(path, family, verify=False)


def open_segment(path: Path, family: Family, *, verify: bool = True) -> Segment:
    """Map a segment file.

    Args:
        path: the file; it must stay unchanged while the segment is in use. On Linux it may be
            unlinked.
        family: hashes of the index that it belongs to.
        verify: compare the checksums of all arrays; without it opening takes the same time
            whatever the size.

    Raises:
        CorruptFileError: the file is damaged, or was written with other hashes.
        OSError: it cannot be opened.
    """
    header, arrays = read_arrays(path, KIND, verify=verify)
    with unusable_is_corrupt(path):
        if header["family"] != family.spec:
            raise CorruptFileError("the segment was hashed with other parameters", path=str(path))
        segment = Segment(arrays, header["group_size"])
    segment.path = path
    return segment
